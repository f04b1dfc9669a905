"""All arithmetic on boxes: clipping, overlap, intersection over union, xywh and xyxy.

A box is xyxy in pixels (`annotations.Box`): x_min, y_min, x_max, y_max; the image spans 0..width and 0..height.
"""

import math
from collections.abc import Iterable, Sequence

from .annotations import Box

TOLERANCE = 0.5
"""Pixels by which a box may exceed its image, since the tools that wrote it round."""
LEAST = 0.1
"""Smallest side of a box, pixels; a smaller box has no area."""
INSIDE = 0.5
"""Share of its area that a box must have inside its image to be clipped rather than refused."""


def clip(box: Box, width: float, height: float) -> Box:
    """Return the part of `box` inside an image of `width` x `height`; a box without area if there is none."""
    x0, x1 = (min(max(value, 0.0), float(width)) for value in (box[0], box[2]))
    y0, y1 = (min(max(value, 0.0), float(height)) for value in (box[1], box[3]))
    return x0, y0, x1, y1


def area(box: Box) -> float:
    """Return the area of `box` in square pixels."""
    return max(box[2] - box[0], 0.0) * max(box[3] - box[1], 0.0)


def intersection(first: Box, second: Box) -> float:
    """Return the area that two boxes share."""
    return area(
        (max(first[0], second[0]), max(first[1], second[1]), min(first[2], second[2]), min(first[3], second[3]))
    )


def overlap(first: Box, second: Box) -> bool:
    """Return whether two boxes share any area."""
    return first[0] < second[2] and second[0] < first[2] and first[1] < second[3] and second[1] < first[3]


def overlapping(boxes: Sequence[Box]) -> tuple[int, int] | None:
    """Return the indices of the first two of `boxes` that share any area, None if all lie apart."""
    for second, box in enumerate(boxes):
        for first, earlier in enumerate(boxes[:second]):
            if overlap(earlier, box):
                return first, second
    return None


def iou(first: Box, second: Box) -> float:
    """Return the intersection of two boxes over their union, 0..1."""
    shared = intersection(first, second)
    union = area(first) + area(second) - shared
    return shared / union if union > 0 else 0.0


def to_xywh(box: Box) -> Box:
    """Return x_min, y_min, width and height of `box`, COCO's order."""
    return box[0], box[1], box[2] - box[0], box[3] - box[1]


def from_xywh(values: Sequence[float]) -> Box:
    """Return the box of x_min, y_min, width and height."""
    x, y, width, height = values
    return x, y, x + width, y + height


def enclosing(points: Iterable[tuple[float, float]]) -> Box:
    """Return the smallest box that holds all (x, y) `points`, of which there is at least one."""
    xs, ys = zip(*points, strict=True)
    return min(xs), min(ys), max(xs), max(ys)


def nearest(box: Box, others: Sequence[Sequence[float]]) -> int | None:
    """Return the index of the one of `others` whose sides are nearest to those of `box`; None: beyond `TOLERANCE`."""
    far = [max(abs(a - b) for a, b in zip(box, other, strict=True)) for other in others]
    index = min(range(len(far)), key=far.__getitem__, default=None)
    return index if index is not None and far[index] <= TOLERANCE else None


def quoted(box: Box) -> str:
    """Return `box` in the form used in messages."""
    return f"({', '.join(f'{value:g}' for value in box)})"


def fitted(box: Box, width: int, height: int) -> tuple[Box, bool]:
    """Return `box` inside its image of `width` x `height`, and whether more than rounding had to be clipped for it.

    Raises ValueError saying why for a box that is not finite, has no area, or lies outside with more than half of it.
    For an image without a size (its width or height is not positive) borders are not looked at.
    """
    if not all(map(math.isfinite, box)):
        raise ValueError(f"box {quoted(box)} is not finite")
    if min(box[2] - box[0], box[3] - box[1]) < LEAST:
        raise ValueError(f"box {quoted(box)} has no area ({box[2] - box[0]:g} x {box[3] - box[1]:g})")
    if width <= 0 or height <= 0:
        return box, False
    inside = clip(box, width, height)
    if area(inside) < INSIDE * area(box) or min(inside[2] - inside[0], inside[3] - inside[1]) < LEAST:
        raise ValueError(f"box {quoted(box)} lies outside the image of {width}x{height}")
    return inside, max(abs(a - b) for a, b in zip(box, inside, strict=True)) > TOLERANCE
