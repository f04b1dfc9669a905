"""Vignetting: less light towards the corners."""

import numpy as np

from .light import coded, linear
from .view import Variation, View


def vignetting(view: View, amount: float, rng: np.random.Generator) -> View:
    """Return `view` with `amount` of the light lost at the corner farthest from the axis, by the law of cos^4.

    The axis lies within a tenth of the image's sides from its middle.
    """
    height, width = view.pixels.shape[:2]
    cy, cx = (side * (0.5 + rng.uniform(-0.1, 0.1)) for side in (height, width))
    y, x = np.ogrid[:height, :width]
    squared = (y - cy) ** 2 + (x - cx) ** 2
    tangent = ((1 - amount) ** -0.5 - 1) * squared / squared.max()  # tan^2 of the angle; cos^4 = (1 + tan^2)^-2
    return view.with_pixels(coded(linear(view.pixels) * ((1 + tangent) ** -2.0)[..., None]))


VARIATION = Variation(
    "vignetting", "loss of light at the corners", "relative", (0.1, 0.2, 0.35, 0.5, 0.7), (0.0, 0.95), vignetting
)
