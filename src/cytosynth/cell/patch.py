"""Patches around cells: centred on the box, moved inside at the borders, and put back in one of two ways."""

import math
from collections.abc import Sequence

import numpy as np

from ..annotations import Box
from ..data.image_files import Pixels
from ..errors import UserError
from .settings import EditSettings

SIZE = 256
"""Side of the paper's patches, pixels."""
MOST = 0.9 * SIZE
"""Largest side of an edited region: a margin of the patch must remain as context."""


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


def check_size(width: int, height: int) -> None:
    """Raise UserError for an image that is smaller than a patch."""
    if min(width, height) < SIZE:
        larger = math.ceil(100 * SIZE / max(min(width, height), 1)) / 100
        raise UserError(
            f"the image ({width}x{height}) is smaller than a patch of {SIZE} pixels; give larger fields, joined tiles, "
            f"or a --scale {larger:g} times as large (cells are then larger than those the models were trained on)"
        )


def window(pixels: Pixels, at: tuple[int, int]) -> Pixels:
    """Return the (size, size, 3) patch of `pixels` whose corner is `at` (x, y)."""
    return pixels[at[1] : at[1] + SIZE, at[0] : at[0] + SIZE]


def inner(box: Box, at: tuple[int, int]) -> Box:
    """Return `box` of the image in coordinates of the patch whose corner is `at`."""
    return box[0] - at[0], box[1] - at[1], box[2] - at[0], box[3] - at[1]


def covered(box: Box, width: int, height: int, settings: EditSettings) -> Box:
    """Return the region that an edit of `box` changes: `box`, or its whole patch if that is put back."""
    if settings.paste == "box":
        return box
    x, y = corner(box, width, height)
    return float(x), float(y), float(x + SIZE), float(y + SIZE)


def compose(pixels: Pixels, edits: Sequence[tuple[Box, Pixels]], settings: EditSettings) -> Pixels:
    """Return a copy of (height, width, 3) `pixels` with edited patches put back.

    With paste=box each region is laid over the image, feathered inside its edge and shifted to the background colour of
    the unedited patch; pixels outside the regions stay bit-identical. With paste=patch the whole decoded patch is put
    back unchanged (Section III-C): in order, later ones over earlier ones, and then all regions again in order, so that
    the background of one patch never covers the cell of another.

    Args:
        pixels: the unedited image, from which all patches were taken.
        edits: region (xyxy whole pixels) and (size, size, 3) decoded patch of each edit, in order.
        settings: `paste` and `feather`.
    """
    height, width = pixels.shape[:2]
    result = pixels.copy()
    corners = [corner(box, width, height) for box, _ in edits]
    if settings.paste == "patch":
        for at, (_, decoded) in zip(corners, edits, strict=True):
            window(result, at)[:] = decoded
    for at, (box, decoded) in zip(corners, edits, strict=True):
        if settings.paste == "patch":
            paste(result, decoded, at, box, feather=0)
        else:
            matched = match_background(decoded, window(pixels, at), inner(box, at))
            paste(result, matched, at, box, settings.feather, rounded=settings.outline == "rounded")
    return result


def match_background(edited: Pixels, original: Pixels, box: Box) -> Pixels:
    """Return the `edited` patch shifted so that its background has the mean colour of the `original`'s.

    Encoding and decoding a patch by itself moves its colours by a few levels; pixels outside `box` (xyxy of the patch)
    should not have changed, and show by how much.
    """
    x0, y0, x1, y1 = (int(value) for value in box)
    background = np.ones(edited.shape[:2], dtype=bool)
    background[y0:y1, x0:x1] = False
    if not background.any():
        return edited
    shift = original[background].mean(axis=0) - edited[background].mean(axis=0)
    return np.asarray(np.clip(np.rint(edited + shift), 0, 255), dtype=np.uint8)


def paste(
    pixels: Pixels, edited: Pixels, at: tuple[int, int], box: Box, feather: int = 8, rounded: bool = False
) -> None:  # fmt: skip
    """Blend `box` (xyxy whole pixels of the image) of the `edited` patch into `pixels`, in place.

    Args:
        pixels: (height, width, 3) image.
        edited: (size, size, 3) patch.
        at: corner of the patch in the image.
        box: region to paste; nothing outside it changes by a single bit.
        feather: width of the linear blend inside the edge, pixels.
        rounded: the edge is the ellipse in the box, which has no straight part, instead of the box's own.
    """
    x0, y0, x1, y1 = (int(value) for value in box)
    new = edited[y0 - at[1] : y1 - at[1], x0 - at[0] : x1 - at[0]].astype(np.float32)
    old = pixels[y0:y1, x0:x1].astype(np.float32)
    shape = _ellipse if rounded else _rectangle
    weight = shape(y1 - y0, x1 - x0, feather)[..., None]
    pixels[y0:y1, x0:x1] = np.clip(np.rint(old + weight * (new - old)), 0, 255).astype(np.uint8)


def _rectangle(height: int, width: int, feather: int) -> np.ndarray:
    """Return weights (height, width) from near 0 at the edge to 1 at `feather` pixels inside."""
    return np.asarray(np.minimum.outer(_ramp(height, feather), _ramp(width, feather)))


def _ellipse(height: int, width: int, feather: int) -> np.ndarray:
    """Return weights (height, width): 0 outside the ellipse in the box, 1 at about `feather` pixels inside."""
    y, x = (np.abs((np.arange(side) + 0.5) * 2 / side - 1) for side in (height, width))
    inside = (1 - np.hypot(x[None, :], y[:, None])) * min(height, width) / 2
    return np.asarray(np.clip(inside / feather if feather else inside > 0, 0, 1), dtype=np.float32)


def _ramp(length: int, feather: int) -> np.ndarray:
    """Return weights from near 0 at both ends to 1 at `feather` pixels inside; 1 everywhere for a feather of 0."""
    if not feather:
        return np.ones(length, dtype=np.float32)
    position = np.arange(length) + 0.5
    weights = np.clip(np.minimum(position, length - position) / feather, 0, 1)
    return np.asarray(weights, dtype=np.float32)
