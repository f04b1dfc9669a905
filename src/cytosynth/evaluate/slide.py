"""Artefacts of a generated slide: borders of windows and tiles, and repetition.

Three measures, none of them from the paper. Each is compared with a counterpart in real fields, or elsewhere in the
same slide.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..data.image_files import Pixels
from . import statistics
from .distance import Interval, Matrix, kid, nearest

NEAR, FAR = 4, 40
"""Pixels from a border of the lines next to it with which it is compared: of the same cells, not of the border."""
PIECE = 128
"""Pixels of a border that are resampled together: neighbouring pixels are not independent."""


@dataclass(frozen=True)
class Ratio:
    """The gradient across borders over that across lines next to them, with its 95 % interval, and how many pieces."""

    value: float
    interval: Interval
    pieces: int


def gradient_ratio(pixels: Pixels, columns: Sequence[int], rows: Sequence[int], resamples: int = 1000) -> Ratio:
    """Return how much more the image changes across borders than across the lines next to them; 1: not more.

    Of each piece of a border of PIECE pixels the mean |difference| of the two pixels that it parts, over RGB, is
    compared with that across the parallel lines NEAR to FAR pixels away on both sides. The ratio is of the sums over
    all pieces; the interval is a bootstrap over pieces.

    Args:
        pixels: (height, width, 3).
        columns: borders between columns x - 1 and x.
        rows: the same for rows.
        resamples: of the bootstrap.
    """
    pairs = np.concatenate([_pieces(pixels, columns), _pieces(pixels.transpose(1, 0, 2), rows)])
    if not len(pairs):
        raise ValueError("no border lies FAR enough inside")
    drawn = np.array([pairs[chosen].sum(axis=0) for (chosen,) in statistics.resamples([range(len(pairs))], resamples)])
    low, high = statistics.middle(drawn[:, 0] / drawn[:, 1])
    across, beside = pairs.sum(axis=0)
    return Ratio(float(across / beside), Interval(float(low), float(high)), len(pairs))


def _pieces(pixels: Pixels, columns: Sequence[int]) -> NDArray[np.float64]:
    """Return (pieces, 2): the gradient across the border and that across lines next to it, of each piece."""
    height, width = pixels.shape[:2]
    found = []
    for x in columns:
        if not FAR < x < width - FAR:
            continue
        strip = pixels[:, x - FAR - 1 : x + FAR + 1].astype(np.float64)
        steps = np.abs(np.diff(strip, axis=1)).mean(axis=2)  # step FAR is across the border
        beside = np.concatenate([steps[:, : FAR - NEAR + 1], steps[:, FAR + NEAR :]], axis=1).mean(axis=1)
        across = steps[:, FAR]
        for top in range(0, height - PIECE + 1, PIECE):
            found.append((across[top : top + PIECE].mean(), beside[top : top + PIECE].mean()))
    return np.array(found).reshape(-1, 2)


def repetition(windows: Matrix) -> NDArray[np.float64]:
    """Return, for each of the (n, d) features of `windows` that do not overlap, the distance to the nearest other."""
    rest = (np.delete(windows, index, axis=0) for index in range(len(windows)))
    return np.array([nearest(windows[i : i + 1], others)[1][0] for i, others in enumerate(rest)])


def border_distance(at_borders: Matrix, inside: Matrix) -> tuple[float, float]:
    """Return the kernel distance of windows at borders to windows inside, and that of the two halves of those inside.

    The second is the value of the first if there is no difference.
    """
    half = len(inside) // 2
    order = np.random.default_rng(0).permutation(len(inside))
    floor = kid(inside[order[:half]], inside[order[half:]])
    return kid(at_borders, inside).mean, floor.mean
