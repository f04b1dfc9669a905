"""A scanner of another scale: micrometres per pixel differ, so the image has another size, and every box too."""

import numpy as np
from PIL import Image

from .view import Variation, View


def scale(view: View, amount: float, rng: np.random.Generator) -> View:
    """Return `view` with `amount` more micrometres per pixel (0.25: a quarter more, the image is smaller)."""
    height, width = view.pixels.shape[:2]
    size = (max(1, round(width / (1 + amount))), max(1, round(height / (1 + amount))))
    pixels = np.asarray(Image.fromarray(view.pixels).resize(size, Image.Resampling.LANCZOS))
    factors = np.array([size[0] / width, size[1] / height] * 2)
    return View(pixels, view.boxes * factors, view.mpp * (1 + amount))


VARIATION = Variation(
    "scale", "change of the micrometres per pixel", "relative", (0.08, 0.15, 0.25, 0.4, 0.6), (-0.6, 3.0), scale
)
