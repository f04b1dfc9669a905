"""Whether the region is as sharp as its surroundings, and not grainier.

Fine detail is what a Gaussian of deviation `COARSE` takes off the optical density of the luminance, after one of
`FINE` has taken the noise of single pixels off. It is compared inside the region with the surroundings in the patch,
on stained pixels alone, as bare glass has none:

- `detail`: ratio of the root mean squares, which edges of nuclei and membranes decide; blurred is below 1;
- `grain`: ratio of the medians of the absolute values, which the texture between edges decides; noisy is above 1.
"""

import numpy as np
from numpy.typing import NDArray
from skimage.filters import gaussian

from ...annotations import Box
from ...data.image_files import Pixels
from .. import patch

FINE, COARSE = 0.7, 1.5
"""Deviations, pixels."""
STAINED = 0.08
"""Optical density above the glass from which a pixel counts."""
FEWEST = 50
"""Minimum number of stained pixels, inside and outside, for a measurement."""
INSET = 4
"""Pixels at the region's border that are left out: the blend is there."""
LUMINANCE = np.array([0.299, 0.587, 0.114])
"""Of R, G and B (ITU-R BT.601)."""


def against_surroundings(pixels: Pixels, box: Box) -> tuple[float, float]:
    """Return `detail` and `grain` of `box` (xyxy whole pixels) of (height, width, 3) `pixels`; 1 where none is stained.

    The surroundings are the rest of the patch about the box.
    """
    at = patch.corner(box, pixels.shape[1], pixels.shape[0])
    window = patch.window(pixels, at)
    x0, y0, x1, y1 = (int(value) for value in patch.inner(box, at))
    smooth = gaussian(-np.log10(np.maximum(window @ LUMINANCE, 1) / 255), FINE)
    fine = np.abs(smooth - gaussian(smooth, COARSE))
    stained = smooth - np.percentile(smooth, 1) > STAINED
    inside, outside = np.zeros(fine.shape, dtype=bool), np.ones(fine.shape, dtype=bool)
    inside[y0 + INSET : y1 - INSET, x0 + INSET : x1 - INSET] = True
    outside[y0:y1, x0:x1] = False
    within, around = fine[inside & stained], fine[outside & stained]
    if min(len(within), len(around)) < FEWEST:
        return 1.0, 1.0
    return _ratio(_rms(within), _rms(around)), _ratio(float(np.median(within)), float(np.median(around)))


def _rms(values: NDArray[np.float64]) -> float:
    return float(np.sqrt(np.square(values).mean()))


def _ratio(first: float, second: float) -> float:
    return (first + 1e-6) / (second + 1e-6)
