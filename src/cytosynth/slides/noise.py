"""Random fields that depend only on (seed, stream, position), for any region."""

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from ..foundation import sampling

BLOCK = 64
"""Side of the blocks that are drawn whole; each has its own generator."""
SPLINE = 151 / 315
"""Variance, each way, that a cubic B-spline leaves of independent values of variance 1, mean over positions."""


def white(seed: tuple[int, ...], channels: int, x: int, y: int, width: int, height: int) -> Tensor:
    """Return (channels, height, width) Gaussian noise of a plane at (x, y), both not negative.

    A value depends on `seed` (of the run, and of what it is drawn for) and on its place in the plane alone.
    """
    result = torch.empty(channels, height, width)
    for row in range(y // BLOCK, (y + height - 1) // BLOCK + 1):
        for column in range(x // BLOCK, (x + width - 1) // BLOCK + 1):
            block = sampling.noise((channels, BLOCK, BLOCK), *seed, row, column)
            left, top = column * BLOCK, row * BLOCK
            x0, y0, x1, y1 = max(x, left), max(y, top), min(x + width, left + BLOCK), min(y + height, top + BLOCK)
            result[:, y0 - y : y1 - y, x0 - x : x1 - x] = block[:, y0 - top : y1 - top, x0 - left : x1 - left]
    return result


def smooth(
    seed: tuple[int, ...], spacing: float, x: int, y: int, width: int, height: int, step: float = 1.0
) -> NDArray[np.float64]:
    """Return (height, width) smooth Gaussian noise of variance about 1 that varies over `spacing`.

    A cubic B-spline over independent values on a lattice.

    Args:
        seed: as for `white`.
        spacing: of the lattice.
        x: of the first value, in units of `step`.
        y: the same.
        width: values.
        height: values.
        step: distance of two values, in the unit of `spacing`.
    """
    across = (np.arange(x, x + width) + 0.5) * step / spacing + 2  # two nodes to the left of the plane
    down = (np.arange(y, y + height) + 0.5) * step / spacing + 2
    left, top = int(across[0]) - 1, int(down[0]) - 1
    nodes = white(seed, 1, left, top, int(across[-1]) - left + 4, int(down[-1]) - top + 4)[0].double().numpy()
    grid = np.meshgrid(down - top, across - left, indexing="ij")
    return np.asarray(ndimage.map_coordinates(nodes, grid, order=3, prefilter=False, mode="nearest") / SPLINE)
