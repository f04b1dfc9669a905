"""Smooth random fields: what varies over micrometres, not pixels."""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage


def smooth(shape: tuple[int, int], length: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """Return a Gaussian random field (`shape`) of mean 0 and deviation 1, correlated over `length` pixels.

    Made on a coarse grid, as nothing in it is finer.
    """
    step = max(1.0, length / 4)
    rows, columns = (int(side / step) + 3 for side in shape)
    coarse = ndimage.gaussian_filter(rng.standard_normal((rows + 16, columns + 16)), length / step)[8:-8, 8:-8]
    y, x = np.mgrid[: shape[0], : shape[1]] / step
    field = ndimage.map_coordinates(coarse, [y, x], order=1 if step == 1 else 3, mode="nearest")
    return np.asarray((field - field.mean()) / (field.std() + 1e-12), dtype=np.float64)


def streaks(
    shape: tuple[int, int], length: float, width: float, angle: float, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Return a field as `smooth` does, `length` by `width` pixels along `angle` (radians), bent a little."""
    step = max(1.0, width / 3)
    reach = int(np.hypot(*shape) / step) + 4
    coarse = ndimage.gaussian_filter(rng.standard_normal((reach, reach)), (width / step, length / step), mode="wrap")
    y, x = np.mgrid[: shape[0], : shape[1]].astype(np.float64)
    bend = smooth(shape, length * 0.7, rng) * length / 3
    along = np.cos(angle) * x + np.sin(angle) * y
    across = -np.sin(angle) * x + np.cos(angle) * y + bend
    field = ndimage.map_coordinates(coarse, [across / step, along / step], order=1, mode="grid-wrap")
    return np.asarray((field - field.mean()) / (field.std() + 1e-12), dtype=np.float64)
