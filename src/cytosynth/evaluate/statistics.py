"""Values with intervals under resampling whole images, since the cells of one image are not independent."""

from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import t

Indices = NDArray[np.int64]
Groups = Sequence[Hashable]
"""The image of each member of a set; `range(n)` if each is from its own image."""
LEAST = 4
"""A resample with fewer cells of a set is skipped."""


class Estimate(NamedTuple):
    """A value and its 95 % interval; None with a single image, which cannot be resampled."""

    value: float
    low: float | None = None
    high: float | None = None

    def __str__(self) -> str:
        """Return it as a cell of a table."""
        if self.low is None or self.high is None:
            return f"{self.value:.4g}"
        return f"{self.value:.4g} [{self.low:.3g}, {self.high:.3g}]"


def members(groups: Groups) -> list[Indices]:
    """Return the indices of each group, in the order of their first member."""
    found: dict[Hashable, list[int]] = {}
    for index, group in enumerate(groups):
        found.setdefault(group, []).append(index)
    return [np.array(indices) for indices in found.values()]


def resamples(groups: Sequence[Groups], draws: int, seed: int | Sequence[int] = 0) -> Iterator[tuple[Indices, ...]]:
    """Yield, `draws` times, the indices of every set when as many groups as it has are resampled with replacement."""
    rng = np.random.default_rng(seed)
    sets = [members(names) for names in groups]
    single = [len(parts) == len(names) for parts, names in zip(sets, groups, strict=True)]
    for _ in range(draws):
        numbers = [rng.integers(len(parts), size=len(parts)) for parts in sets]
        yield tuple(
            chosen if alone else np.concatenate([parts[number] for number in chosen])
            for chosen, parts, alone in zip(numbers, sets, single, strict=True)
        )


def middle(values: ArrayLike) -> NDArray[np.float64]:
    """Return the bounds (2, ...) of the middle 95 % of `values` (draws, ...)."""
    return np.asarray(np.percentile(np.asarray(values, dtype=np.float64), (2.5, 97.5), axis=0))


def interval(value: float, resampled: Sequence[float] | NDArray[np.float64]) -> Estimate:
    """Return `value` with the middle 95 % of it `resampled`; those that are not finite say nothing.

    Without, where it is not finite itself or fewer than two are left.
    """
    known = np.asarray(resampled, dtype=np.float64)
    known = known[np.isfinite(known)]
    if not np.isfinite(value) or len(known) < 2:
        return Estimate(value)
    return Estimate(value, *map(float, middle(known)))


def estimates(
    statistic: Callable[..., ArrayLike],
    groups: Sequence[Groups],
    draws: int,
    seed: int | Sequence[int] = 0,
    *,
    centred: bool | Sequence[bool] = True,
) -> list[Estimate]:
    """Return each value of `statistic`, which is called with the indices of every set, and its 95 % interval.

    Args:
        statistic: returns values from one array of indices for each of `groups`.
        groups: the image of each member of each set; whole images are resampled with replacement, each set by itself.
        draws: how often.
        seed: of the resampling.
        centred: move the intervals, or those of the values marked, so that their means are the values: repeated images
            raise every distance.
    """
    values = np.asarray(statistic(*(np.arange(len(names)) for names in groups)), dtype=np.float64)
    rows = [statistic(*chosen) for chosen in resamples(groups, draws, seed) if min(map(len, chosen)) >= LEAST]
    if not rows or min(len(set(names)) for names in groups) < 2:
        return [Estimate(float(value)) for value in values]
    table = np.asarray(rows, dtype=np.float64)
    low, high = middle(table) + np.where(centred, values - table.mean(axis=0), 0.0)
    return [Estimate(*map(float, row)) for row in zip(values, low, high, strict=True)]


def mean(values: Sequence[float]) -> Estimate:
    """Return the mean of independent repetitions and the 95 % interval of Student's t.

    Few repetitions give a wide interval; a single one has none.
    """
    numbers = np.asarray(values, dtype=np.float64)
    middle = float(numbers.mean())
    if len(numbers) < 2:
        return Estimate(middle)
    half = float(t.ppf(0.975, len(numbers) - 1) * numbers.std(ddof=1) / np.sqrt(len(numbers)))
    return Estimate(middle, middle - half, middle + half)
