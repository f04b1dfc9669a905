"""The sharpness and the number of nuclei of a field of a slide. Nothing here is learnt."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ..image_files import Pixels

NUCLEUS_AREA = (40, 900)
"""Pixels of a nucleus at x20: 3.5 to 16.5 µm across."""
NUCLEUS_DENSITY = 0.45
"""Optical density of red above which a pixel is nuclear: haematoxylin absorbs red, eosin and orange G do not."""
EDGE = 2.0
"""Grey levels per pixel from which a gradient is that of a structure rather than of noise."""


class Worth(NamedTuple):
    """Of one field: sharpness (no unit, the same for pale and dark stain) and number of nuclei."""

    focus: float
    nuclei: int


def worth(pixels: Pixels, glass: NDArray[np.int16]) -> Worth:
    """Return sharpness and number of nuclei of (height, width, 3) `pixels` on `glass` of that RGB colour (3,)."""
    return Worth(round(focus(pixels), 4), nuclei(pixels, glass))


def focus(pixels: Pixels) -> float:
    """Return the sum of |Laplacian| over that of |gradient|, where there are edges; 0 if there are none.

    Blur takes more of the second derivative than of the first, whatever the contrast; the ratio is about
    2 for edges of one pixel and falls as 1 over their width.
    """
    grey = pixels.astype(np.float32).mean(axis=2)
    smooth = ndimage.gaussian_filter(grey, 0.7)  # noise of single pixels is not sharpness
    gradient = np.hypot(ndimage.sobel(smooth, axis=0), ndimage.sobel(smooth, axis=1)) / 8
    edges = gradient > EDGE
    if not edges.any():
        return 0.0
    return float(np.abs(ndimage.laplace(smooth))[edges].sum() / gradient[edges].sum())


def nuclei(pixels: Pixels, glass: NDArray[np.int16]) -> int:
    """Return how many dark spots of a nucleus's size lie in (height, width, 3) `pixels` at x20."""
    red = ndimage.uniform_filter(pixels[..., 0].astype(np.float32), 3)
    density = -np.log10(np.maximum(red, 1) / max(float(glass[0]), 1))
    labels, count = ndimage.label(density > NUCLEUS_DENSITY)
    areas = np.bincount(labels.ravel(), minlength=count + 1)[1:]
    return int(((areas >= NUCLEUS_AREA[0]) & (areas <= NUCLEUS_AREA[1])).sum())
