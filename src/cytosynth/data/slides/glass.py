"""Where a slide is empty glass: found on an overview, so that most of a slide need not be read."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ..image_files import Pixels
from .slide import View

STEP = 8
"""Pixels of the view for one of the overview: 4 µm, a nucleus is two of them wide."""
CONTRAST = 14
"""Grey levels that a pixel of the overview must differ from the glass around it to be something."""
BLOCK = 256
"""Rows of the overview that are processed at a time."""
BRIGHT = 99.0
"""Percentile of each channel that is taken for the colour of the glass."""


@dataclass(frozen=True)
class Coverage:
    """Where something lies on the glass.

    Attributes:
        mask: (height, width) of the overview; True where something is.
        step: pixels of the view for one of the overview.
    """

    mask: NDArray[np.bool_]
    step: int = STEP

    def any(self, x: int, y: int, width: int, height: int) -> bool:
        """Return whether anything lies in a region of the view."""
        return bool(self._part(x, y, width, height).any())

    def share(self, x: int, y: int, width: int, height: int) -> float:
        """Return the share of a region of the view that is covered."""
        part = self._part(x, y, width, height)
        return float(part.mean()) if part.size else 0.0

    @property
    def empty(self) -> float:
        """The share of the slide that is empty glass."""
        return 1.0 - float(self.mask.mean())

    def _part(self, x: int, y: int, width: int, height: int) -> NDArray[np.bool_]:
        last_x, last_y = -(-(x + width) // self.step), -(-(y + height) // self.step)
        return np.asarray(self.mask[y // self.step : last_y, x // self.step : last_x])


def coverage(view: View) -> Coverage:
    """Return where something lies on the glass of `view`.

    The glass is the brightest that the overview has; something is what differs from it by more than CONTRAST in any
    channel. It is grown by one pixel, so that the pale rim of a cell counts. Nothing is learnt and nothing depends on
    how much of the slide is covered: one cell alone is found.
    """
    seen = View(view.slide, view.factor * STEP).whole()
    glass = glass_colour(seen)
    something = np.empty(seen.shape[:2], dtype=bool)
    for top in range(0, len(seen), BLOCK):  # an overview may be large itself
        band = seen[top : top + BLOCK].astype(np.int16)
        something[top : top + BLOCK] = (np.abs(band - glass).max(axis=2) > CONTRAST) & (band < 255).any(axis=2)
    return Coverage(ndimage.binary_dilation(something, np.ones((3, 3))))


def glass_colour(seen: Pixels) -> NDArray[np.int16]:
    """Return the RGB colour (3,) of the glass in the (height, width, 3) overview `seen`."""
    drawn = seen.reshape(-1, 3)
    some = drawn[:: max(1, len(drawn) // 1_000_000)]
    scanned = some[(some < 255).any(axis=1)]  # readers return pure white where nothing was scanned
    return np.percentile(scanned if len(scanned) else some, BRIGHT, axis=0).round().astype(np.int16)
