"""JPEG compression, as scanners store their tiles."""

import io

import numpy as np
from PIL import Image

from .view import Variation, View


def jpeg(view: View, amount: float, rng: np.random.Generator) -> View:
    """Return `view` after JPEG of quality `amount` (libjpeg's scale), colour at half resolution (4:2:0)."""
    buffer = io.BytesIO()
    Image.fromarray(view.pixels).save(buffer, "JPEG", quality=round(amount), subsampling=2)
    return view.with_pixels(np.asarray(Image.open(buffer)))


VARIATION = Variation("jpeg", "quality", "libjpeg", (70.0, 45.0, 28.0, 16.0, 8.0), (1.0, 95.0), jpeg)
