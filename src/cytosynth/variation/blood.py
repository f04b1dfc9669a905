"""Blood: red cells over the field."""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from . import staining
from .light import coded, linear
from .view import Variation, View

DIAMETER = (7.2, 0.5)
"""Of a red cell, micrometres: mean and deviation."""
SHAPE = (0.81, 7.83, -4.39)
"""Coefficients of its thickness, micrometres (Evans and Fung, Microvasc. Res. 4:335, 1972)."""
PER_MICROMETRE = np.array([0.03, 0.17, 0.21])
"""Optical density of a micrometre of it in red, green and blue: haemoglobin and eosin."""
BLUR = 0.6
"""Micrometres: they lie above the plane of focus."""
CLUSTER, SPREAD = 12.0, 30.0
"""Red cells of a cluster, on average, and the micrometres that they lie from its middle."""


def thickness(share: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the thickness (micrometres) of a red cell at a `share` of its radius; 0 outside."""
    squared = np.minimum(share, 1.0) ** 2
    return np.asarray(np.sqrt(1 - squared) * (SHAPE[0] + SHAPE[1] * squared + SHAPE[2] * squared**2))


def blood(view: View, amount: float, rng: np.random.Generator) -> View:
    """Return `view` with red cells, in clusters, whose discs together make `amount` of its area.

    They lie over cells and each other, and absorb: densities add up. Boxes stay.
    """
    height, width = view.pixels.shape[:2]
    area = np.pi * (DIAMETER[0] / 2 / view.mpp) ** 2
    path = np.zeros((height, width))
    left = rng.poisson(amount * height * width / area)
    while left > 0:
        cluster = min(left, 1 + rng.poisson(CLUSTER - 1))
        middle = rng.uniform((0, 0), (height, width))
        for y, x in rng.normal(middle, SPREAD / view.mpp, (cluster, 2)):
            _add(path, y, x, max(rng.normal(*DIAMETER), 4.0) / 2 / view.mpp)
        left -= cluster
    path = ndimage.gaussian_filter(path, BLUR / view.mpp)
    glass = staining.white(view.pixels)
    densities = staining.density(linear(view.pixels), glass) + path[..., None] * PER_MICROMETRE
    return view.with_pixels(coded(staining.intensity(densities, glass)))


def _add(path: NDArray[np.float64], y: float, x: float, radius: float) -> None:
    """Add a red cell of `radius` pixels at (`y`, `x`) to the micrometres of light's `path` through blood."""
    top, left = max(int(y - radius), 0), max(int(x - radius), 0)
    part = path[top : max(int(y + radius) + 2, 0), left : max(int(x + radius) + 2, 0)]
    rows, columns = np.ogrid[top : top + part.shape[0], left : left + part.shape[1]]
    part += thickness(np.hypot(rows - y, columns - x) / radius)


VARIATION = Variation(
    "blood", "share of the area covered by red blood cells", "relative", (0.03, 0.08, 0.16, 0.3, 0.5), (0.0, 2.0), blood
)
