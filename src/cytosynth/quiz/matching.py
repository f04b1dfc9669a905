"""Matching real and synthetic cells by size and sharpness, so that neither reveals the origin (`--match`)."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from ..cell.quality import morphology
from ..data.image_files import Pixels
from .cells import Candidate
from .settings import Match

Values = NDArray[np.float64]
ABSENT = 1e6
"""Cost of a pair of which one cell has no measurable nucleus: no such pair is taken while there are others."""


def sharpness(pixels: Pixels) -> float:
    """Return the mean size of the gradient of the grey levels of (height, width, 3) `pixels`, per pixel."""
    grey = pixels.astype(np.float64).mean(axis=2)
    down, right = np.gradient(grey)
    return float(np.hypot(down, right).mean())


def diameter(pixels: Pixels) -> float | None:
    """Return the diameter in pixels of the nucleus in the middle of the square `pixels`; None if none is found."""
    side = pixels.shape[0]
    found = morphology.measure(pixels, (side / 4, side / 4, 3 * side / 4, 3 * side / 4))
    return found.diameter if found else None


def measured(cells: Sequence[Candidate], by: Sequence[Match]) -> Values:
    """Return the (n, len(by)) logarithms of what is matched, NaN where a nucleus is not found."""
    rows = []
    for cell in cells:
        assert cell.pixels is not None
        values = {"size": diameter(cell.pixels), "sharpness": sharpness(cell.pixels)}
        rows.append([np.log(max(values[name] or np.nan, 1e-6)) for name in by])
    return np.asarray(rows, dtype=np.float64).reshape(len(rows), len(by))


def matched(
    real: Sequence[Candidate], synthetic: Sequence[Candidate], number: int, by: Sequence[Match]
) -> tuple[list[Candidate], list[Candidate]]:
    """Return the `number` of pairs of `real` and `synthetic` cells of one category that are most alike.

    Of all sets of this number of pairs, the one with the least sum of squared differences, in standard deviations of
    all these cells: a linear assignment (Kuhn 1955) in which stand-ins without cost take the cells that are left over.
    Cells without a measurable nucleus come last.
    """
    if not by:
        return list(real[:number]), list(synthetic[:number])
    first, second = measured(real, by), measured(synthetic, by)
    spread = np.nanstd(np.concatenate([first, second]), axis=0)
    spread[~(spread > 0)] = 1.0
    cost = (((first[:, None] - second[None]) / spread) ** 2).sum(axis=2)
    cost[~np.isfinite(cost)] = ABSENT
    height, width = cost.shape
    padded = np.zeros((height + width - number, height + width - number))
    padded[:height, :width] = cost
    padded[height:, width:] = ABSENT * number + 1  # stand-ins never take each other
    pairs = [(row, column) for row, column in zip(*linear_sum_assignment(padded), strict=True)
             if row < height and column < width]  # fmt: skip
    return [real[row] for row, _ in pairs], [synthetic[column] for _, column in pairs]


def difference(real: Sequence[float], synthetic: Sequence[float]) -> float | None:
    """Return the standardised mean difference (Cohen's d) of two samples; None if they do not vary."""
    first, second = np.asarray(real, dtype=np.float64), np.asarray(synthetic, dtype=np.float64)
    if min(len(first), len(second)) < 2:
        return None
    deviation = float(np.sqrt((first.var(ddof=1) + second.var(ddof=1)) / 2))
    return float((second.mean() - first.mean()) / deviation) if deviation > 0 else None
