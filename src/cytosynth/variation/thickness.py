"""A specimen of uneven thickness: the path of light, and so the optical density, differs from place to place."""

import numpy as np

from . import staining
from .light import coded, linear
from .smooth import smooth
from .view import Variation, View

LENGTH = 60.0
"""Micrometres over which thickness is alike."""
THINNEST = 0.2


def thickness(view: View, amount: float, rng: np.random.Generator) -> View:
    """Return `view` where thickness has a relative deviation of `amount` over the image, at least THINNEST of it."""
    glass = staining.white(view.pixels)
    path = 1 + amount * smooth(view.pixels.shape[:2], LENGTH / view.mpp, rng)
    densities = staining.density(linear(view.pixels), glass) * np.maximum(path, THINNEST)[..., None]
    return view.with_pixels(coded(staining.intensity(densities, glass)))


VARIATION = Variation(
    "thickness", "deviation of the thickness over the image", "relative", (0.1, 0.2, 0.35, 0.5, 0.7), (0.0, 1.5),
    thickness,
)  # fmt: skip
