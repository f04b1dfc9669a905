"""Values with intervals under resampling whole images, since the cells of one image are not independent."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t

from .distance import drawn, members

Indices = NDArray[np.int64]
LEAST = 4
"""A resampling that leaves fewer cells of a set is passed over."""


class Estimate(NamedTuple):
    """A value and its 95 % interval; None with a single image, of which nothing can be resampled."""

    value: float
    low: float | None = None
    high: float | None = None

    def __str__(self) -> str:
        """Say it as a cell of a table."""
        if self.low is None or self.high is None:
            return f"{self.value:.4g}"
        return f"{self.value:.4g} [{self.low:.3g}, {self.high:.3g}]"


def estimates(
    statistic: Callable[..., Sequence[float]],
    groups: Sequence[Sequence[str]],
    draws: int,
    seed: int = 0,
    *,
    centred: bool = True,
) -> list[Estimate]:
    """Return each value of `statistic`, which is called with the indices of every set, and its 95 % interval.

    Args:
        statistic: returns values from one array of indices for each of `groups`.
        groups: the image of each member of each set; whole images are resampled with replacement, each set by itself.
        draws: how often.
        seed: of the resampling.
        centred: move the intervals so that their means are the values: repeated images raise every distance.
    """
    values = np.asarray(statistic(*(np.arange(len(names)) for names in groups)), dtype=np.float64)
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(draws):
        chosen = [drawn(names, rng) for names in groups]
        if min(map(len, chosen)) >= LEAST:
            rows.append(statistic(*chosen))
    if not rows or min(len(members(names)) for names in groups) < 2:
        return [Estimate(float(value)) for value in values]
    table = np.asarray(rows, dtype=np.float64)
    shift = values - table.mean(axis=0) if centred else np.zeros_like(values)
    low, high = np.percentile(table, (2.5, 97.5), axis=0) + shift
    return [Estimate(*map(float, row)) for row in zip(values, low, high, strict=True)]


def mean(values: Sequence[float]) -> Estimate:
    """Return the mean of independent repetitions and the 95 % interval of Student's t.

    Few of them make a wide interval, as they should; a single one has none.
    """
    numbers = np.asarray(values, dtype=np.float64)
    middle = float(numbers.mean())
    if len(numbers) < 2:
        return Estimate(middle)
    half = float(t.ppf(0.975, len(numbers) - 1) * numbers.std(ddof=1) / np.sqrt(len(numbers)))
    return Estimate(middle, middle - half, middle + half)
