"""The close-up: the part of a patch about an edited region, enlarged before it is encoded (not in the paper).

An autoencoder keeps little of what is as small as its factor: at x20 a nucleus is 15 pixels wide, which are two latents
of Stable Diffusion's. Enlarged by a zoom of 2 it is four, and the region is edited in four times as many latents. It is
made as small again before it is put back. (Web interfaces call the same "inpaint only masked".)
"""

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image

from ..annotations import Box
from ..data.image_files import Pixels
from . import patch


@dataclass(frozen=True)
class CloseUp:
    """A square in a patch of `patch.SIZE` pixels a side, which is enlarged to that size.

    Attributes:
        at: its (x, y) corner in the patch.
        side: its side, pixels of the patch.
    """

    at: tuple[int, int]
    side: int

    @classmethod
    def of(cls, box: Box, zoom: float) -> "CloseUp":
        """Return the close-up of the region `box` (xyxy of its patch), enlarged by `zoom`.

        By less where the region would not fit with a margin of context around it.
        """
        longest = max(box[2] - box[0], box[3] - box[1])
        side = max(round(patch.SIZE / zoom), math.ceil(longest * patch.SIZE / patch.MOST))
        side = min(side, patch.SIZE)
        return cls(patch.corner(box, patch.SIZE, patch.SIZE, side), side)

    @property
    def zoom(self) -> float:
        """By which it is enlarged."""
        return patch.SIZE / self.side

    def of_patch(self, window: Pixels) -> Pixels:
        """Return the enlarged (size, size, 3) close-up of the (size, size, 3) patch `window`."""
        x, y = self.at
        return enlarged(window[y : y + self.side, x : x + self.side], (patch.SIZE, patch.SIZE))

    def inner(self, box: Box) -> Box:
        """Return `box` of the patch in coordinates of the enlarged close-up."""
        x0, y0, x1, y1 = patch.inner(box, self.at)
        return x0 * self.zoom, y0 * self.zoom, x1 * self.zoom, y1 * self.zoom

    def put_back(self, window: Pixels, decoded: Pixels, box: Box) -> Pixels:
        """Return the patch `window` with the `decoded` close-up in it, as small as it was and with its background.

        All are (size, size, 3); `box` is the edited region of the patch. The rest of the patch does not change.
        """
        if self.side == patch.SIZE:
            return decoded
        (x, y), side = self.at, self.side
        result = window.copy()
        before = window[y : y + side, x : x + side]
        small = reduced(decoded, (side, side))
        result[y : y + side, x : x + side] = patch.match_background(small, before, patch.inner(box, self.at))
        return result


def enlarged(pixels: Pixels, size: tuple[int, int]) -> Pixels:
    """Return (height, width, 3) `pixels` enlarged to `size` (width, height), as a close-up is (Lanczos)."""
    return _resized(pixels, size, Image.Resampling.LANCZOS)


def reduced(pixels: Pixels, size: tuple[int, int]) -> Pixels:
    """Return (height, width, 3) `pixels` reduced to `size` (width, height), as a close-up is: means of areas."""
    return _resized(pixels, size, Image.Resampling.BOX)


def _resized(pixels: Pixels, size: tuple[int, int], by: Image.Resampling) -> Pixels:
    if pixels.shape[1::-1] == size:
        return pixels
    return np.asarray(Image.fromarray(np.ascontiguousarray(pixels)).resize(size, by))
