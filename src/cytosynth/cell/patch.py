"""Patches around cells: centred on the box, moved inside at the borders, and pasted back."""

import math

import numpy as np

from ..data.images import Pixels
from ..field import Box

SIZE = 256
"""Side of the paper's patches, pixels."""
MOST = 0.9 * SIZE
"""Greatest side of an edited region: some of the patch must stay to paint towards."""


def corner(box: Box, width: int, height: int, size: int = SIZE) -> tuple[int, int]:
    """Return the (x, y) corner of the `size` patch centred on `box`, moved inside an image of `width` x `height`."""
    x = round((box[0] + box[2] - size) / 2)
    y = round((box[1] + box[3] - size) / 2)
    return min(max(x, 0), width - size), min(max(y, 0), height - size)


def enlarge(box: Box, factor: float, width: int, height: int, most: float = MOST) -> Box:
    """Return `box` grown about its middle by `factor`, at most `most` a side, in whole pixels inside the image."""
    middle_x, middle_y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    half_x = max(min((box[2] - box[0]) * factor, most) / 2, 4)
    half_y = max(min((box[3] - box[1]) * factor, most) / 2, 4)
    return (
        float(max(0, math.floor(middle_x - half_x))),
        float(max(0, math.floor(middle_y - half_y))),
        float(min(width, math.ceil(middle_x + half_x))),
        float(min(height, math.ceil(middle_y + half_y))),
    )


def match_background(edited: Pixels, original: Pixels, box: Box) -> Pixels:
    """Return the `edited` patch shifted so that its background has the mean colour of the `original`'s.

    Encoding and decoding a patch by itself moves its colours by a few levels; what lies outside `box` (xyxy of
    the patch) should not have changed, and says by how much.
    """
    x0, y0, x1, y1 = (int(value) for value in box)
    background = np.ones(edited.shape[:2], dtype=bool)
    background[y0:y1, x0:x1] = False
    if not background.any():
        return edited
    shift = original[background].mean(axis=0) - edited[background].mean(axis=0)
    return np.asarray(np.clip(np.rint(edited + shift), 0, 255), dtype=np.uint8)


def paste(pixels: Pixels, edited: Pixels, at: tuple[int, int], box: Box, feather: int = 8) -> None:
    """Blend `box` (xyxy whole pixels of the image) of the `edited` patch into `pixels`, in place.

    Args:
        pixels: (height, width, 3) image.
        edited: (size, size, 3) patch.
        at: corner of the patch in the image.
        box: region to paste; nothing outside it changes by a single bit.
        feather: width of the linear blend inside the box's edge, pixels.
    """
    x0, y0, x1, y1 = (int(value) for value in box)
    new = edited[y0 - at[1] : y1 - at[1], x0 - at[0] : x1 - at[0]].astype(np.float32)
    old = pixels[y0:y1, x0:x1].astype(np.float32)
    weight = np.minimum.outer(_ramp(y1 - y0, feather), _ramp(x1 - x0, feather))[..., None]
    pixels[y0:y1, x0:x1] = np.clip(np.rint(old + weight * (new - old)), 0, 255).astype(np.uint8)


def _ramp(length: int, feather: int) -> np.ndarray:
    """Return weights from near 0 at both ends to 1 at `feather` pixels inside."""
    position = np.arange(length) + 0.5
    weights = np.clip(np.minimum(position, length - position) / max(feather, 1), 0, 1)
    return np.asarray(weights, dtype=np.float32)
