"""Distances between two sets of features: Fréchet, kernel, and the four shares of k-nearest-neighbour balls."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import qr, svdvals

from ..errors import UserError
from ..io.progress import meter
from .statistics import middle, resamples

Matrix = NDArray[np.floating]
ROWS = 1024
"""Rows of a distance matrix held at a time."""


class Interval(NamedTuple):
    """The middle 95 % of resampled values."""

    low: float
    high: float


class Kernel(NamedTuple):
    """The kernel distance over subsets: mean, standard deviation, middle 95 %, and how large the subsets were."""

    mean: float
    std: float
    interval: Interval
    subset_size: int


class Manifold(NamedTuple):
    """Shares of images inside k-nearest-neighbour balls; all but density lie in 0..1."""

    precision: float
    recall: float
    density: float
    coverage: float


def frechet(a: Matrix, b: Matrix) -> float:
    """Return the Fréchet distance between Gaussians fitted to (n, d) `a` and (m, d) `b` (Heusel et al. 2017).

    |mean_a - mean_b|² + tr(C_a + C_b - 2 (C_a C_b)^½), in double precision. The eigenvalues of C_a C_b are the
    squared singular values of A Bᵀ, where Aᵀ A = C_a and Bᵀ B = C_b: no square root of a matrix that fewer images
    than dimensions leave singular.
    """
    _same_dimension(a, b, 2)
    mean_a, root_a = _moments(a)
    mean_b, root_b = _moments(b)
    traces = float(np.square(root_a).sum() + np.square(root_b).sum())
    return float(np.square(mean_a - mean_b).sum() + traces - 2 * svdvals(root_a @ root_b.T).sum())


def _moments(features: Matrix) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the mean (d,) and a root R (min(n, d), d) of the covariance, Rᵀ R = C."""
    values = np.asarray(features, dtype=np.float64)
    mean = values.mean(axis=0)
    root = (values - mean) / np.sqrt(len(values) - 1)
    if len(root) > root.shape[1]:
        root = qr(root, mode="r", overwrite_a=True)[0][: root.shape[1]]
    return mean, root


def frechet_interval(
    a: Matrix, b: Matrix, groups_a: Sequence[str], groups_b: Sequence[str], draws: int = 100, seed: int = 0
) -> Interval:
    """Return the 95 % interval of `frechet` under resampling of images.

    Whole groups (the windows of one image or slide) are resampled with replacement. Repeated images raise every
    Fréchet distance, so the interval is moved to the distance itself: it says how much that one may vary.
    """
    value = frechet(a, b)
    values = np.empty(draws)
    with meter("resampling", draws) as bar:
        for index, (first, second) in enumerate(resamples([groups_a, groups_b], draws, seed)):
            values[index] = frechet(a[first], b[second])
            bar.advance()
    return Interval(*map(float, middle(values) - values.mean() + value))


def kid(a: Matrix, b: Matrix, *, subsets: int = 100, subset_size: int | None = None, seed: int = 0) -> Kernel:
    """Return the kernel distance of (n, d) `a` and (m, d) `b` (Bińkowski et al. 2018): unbiased MMD², (x·y/d + 1)³.

    Args:
        a: features.
        b: features.
        subsets: number of subsets.
        subset_size: images in each; None: 1000, or half of the smaller set where that is less.
        seed: of the subsets, which are sampled as in torch-fidelity.
    """
    _same_dimension(a, b, 4)
    size = subset_size or min(1000, min(len(a), len(b)) // 2)
    rng = np.random.RandomState(seed)  # torch-fidelity's generator: the same seed gives the same subsets
    first, second = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    values = np.array(
        [
            _mmd(first[rng.choice(len(a), size, replace=False)], second[rng.choice(len(b), size, replace=False)])
            for _ in range(subsets)
        ]
    )
    return Kernel(float(values.mean()), float(values.std()), Interval(*map(float, middle(values))), size)


def _mmd(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    n, d = a.shape
    own_a, own_b, across = ((x @ y.T / d + 1) ** 3 for x, y in ((a, a), (b, b), (a, b)))
    within = own_a.sum() - np.trace(own_a) + own_b.sum() - np.trace(own_b)
    return float(within / (n * (n - 1)) - 2 * across.mean())


def prdc(generated: Matrix, real: Matrix, k: int = 5) -> Manifold:
    """Return precision and recall (Kynkäänniemi et al. 2019), density and coverage (Naeem et al. 2020).

    An image's ball reaches to its `k`-th nearest neighbour in its own set. Precision: generated images inside a
    real ball. Recall: real ones inside a generated ball. Density: real balls around a generated image, over `k`.
    Coverage: real balls with a generated image in them.
    """
    _same_dimension(generated, real, k + 1)
    real_radii, generated_radii = _radii(real, k), _radii(generated, k)
    inside = np.zeros(len(generated), dtype=np.int64)
    recalled, covered = np.zeros(len(real), bool), np.zeros(len(real), bool)
    for rows, squares in _squares(real, generated):
        in_real = squares <= real_radii[rows, None]
        inside += in_real.sum(axis=0)
        covered[rows] = in_real.any(axis=1)
        recalled[rows] = (squares <= generated_radii).any(axis=1)
    density = float(inside.mean()) / k
    return Manifold(float((inside > 0).mean()), float(recalled.mean()), density, float(covered.mean()))


def nearest(a: Matrix, b: Matrix) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return, for each row of (n, d) `a`, the index of the nearest row of (m, d) `b` and the distance to it."""
    indices, distances = np.empty(len(a), np.int64), np.empty(len(a))
    for rows, squares in _squares(a, b):
        indices[rows] = squares.argmin(axis=1)
        distances[rows] = np.sqrt(squares.min(axis=1))
    return indices, distances


def neighbourhood(
    a: Matrix, b: Matrix, k: int, groups_a: Sequence[str], groups_b: Sequence[str]
) -> NDArray[np.float64]:
    """Return the mean distance of each row of (n, d) `a` to its `k` nearest rows of (m, d) `b` of another group.

    Raises UserError if fewer than `k` rows are of another group.
    """
    _same_dimension(a, b, 1)
    numbers = {name: number for number, name in enumerate(dict.fromkeys([*groups_a, *groups_b]))}
    own, others = (np.array([numbers[name] for name in groups]) for groups in (groups_a, groups_b))
    means = np.empty(len(a))
    for rows, squares in _squares(a, b):
        squares[own[rows, None] == others] = np.inf
        nearest_ones = np.partition(squares, min(k, len(b)) - 1, axis=1)[:, :k]
        if k > len(b) or np.isinf(nearest_ones).any():
            raise UserError(f"fewer than {k} real windows of other images to compare with; lower `neighbours`")
        means[rows] = np.sqrt(nearest_ones).mean(axis=1)
    return means


def auc(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    """Return the probability that a value of `first` is higher than one of `second`, ties counted half."""
    ordered = np.sort(second)
    below, up_to = (np.searchsorted(ordered, first, side="left"), np.searchsorted(ordered, first, side="right"))
    return float((below + up_to).mean() / (2 * len(second)))


def _radii(features: Matrix, k: int) -> NDArray[np.float64]:
    """Return the squared distance of each row to its `k`-th nearest other row."""
    radii = np.empty(len(features))
    for rows, squares in _squares(features, features):
        squares[np.arange(len(squares)), np.arange(rows.start, rows.start + len(squares))] = 0
        radii[rows] = np.partition(squares, k, axis=1)[:, k]
    return radii


def _squares(a: Matrix, b: Matrix) -> Iterator[tuple[slice, NDArray[np.float64]]]:
    """Yield the squared distances of `a` to `b`, some rows of `a` at a time."""
    first, second = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    norms = np.square(second).sum(axis=1)
    for start in range(0, len(first), ROWS):
        rows = first[start : start + ROWS]
        squares = np.square(rows).sum(axis=1)[:, None] + norms - 2 * rows @ second.T
        yield slice(start, start + len(rows)), np.maximum(squares, 0)


def _same_dimension(a: Matrix, b: Matrix, fewest: int) -> None:
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1]:
        raise ValueError(f"features of shapes {a.shape} and {b.shape}; expected (n, d) and (m, d)")
    if min(len(a), len(b)) < fewest:
        raise UserError(f"{min(len(a), len(b))} images; this measure needs at least {fewest}")
