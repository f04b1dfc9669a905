"""One line of a YOLO label: a class, then a box, a polygon, an oriented box or a pose in fractions of the image."""

import math
from collections.abc import Mapping, Sequence

from ... import boxes
from ...annotations import Cell
from ...io import wording
from . import cells
from .findings import Note

BOX = 4
"""Numbers after the class: centre, width and height."""
LEAST_POLYGON = 6
LARGEST = 2.0
"""A fraction of the image beyond which numbers are taken for pixels."""


def read(
    line: str, names: Mapping[int, str], there: str, size: tuple[int, int], where: str, note: Note, pose: bool = False
) -> Cell:
    """Return the cell of a `line`: `class x y width height [score]`, or `class x1 y1 x2 y2 x3 y3 ... [score]`.

    A polygon of three points or more, and an oriented box, which is one of four, becomes the box that encloses it. Of
    a `pose` (`class x y width height` and key points) the box is taken.

    Args:
        line: of a label file.
        names: of the classes by number.
        there: those numbers, as a message lists them.
        size: width and height of the image.
        where: file and line, for messages.
        note: called for a clipped box.
        pose: whether key points follow the box.

    Raises ValueError saying what is wrong.
    """
    parts, index = line.split(), -1
    try:
        index = _class(parts[0])
        values = [cells.number(part) for part in parts[1:]]
    except (ValueError, IndexError):
        values = []
    score = None
    if pose:
        values = values[:BOX]
    elif len(values) == BOX + 1 or (len(values) > LEAST_POLYGON and len(values) % 2):
        score = values.pop()
    if len(values) != BOX and (len(values) < LEAST_POLYGON or len(values) % 2):
        raise ValueError(f"expected 'class x y width height', got {line[:80]!r}")
    if score is not None and not math.isfinite(score):
        raise ValueError(f"expected 'class x y width height', got {line[:80]!r}")
    if index not in names:
        raise ValueError(f"unknown category {wording.said(index)}; expected one of {there}")
    if any(value > LARGEST for value in values):
        raise ValueError(f"{line[:80]!r} is in pixels; YOLO uses fractions of the image, 0 to 1")
    width, height = size
    if len(values) == BOX:
        x, y, w, h = values
        box = ((x - w / 2) * width, (y - h / 2) * height, (x + w / 2) * width, (y + h / 2) * height)
    else:
        box = boxes.enclosing(
            list(zip([v * width for v in values[::2]], [v * height for v in values[1::2]], strict=True))
        )
    return cells.make(box, names[index], score, size=size, where=where, note=note)


def _class(text: str) -> int:
    """Return the number of a class, which some tools write as 1.0."""
    value = float(text) if "." in text else int(text)
    if value != int(value):
        raise ValueError(text)
    return int(value)


def write(cell: Cell, categories: Sequence[str], width: int, height: int) -> str:
    """Return the line of `cell` in an image of `width` x `height`."""
    x0, y0, x1, y1 = cell.box
    values = ((x0 + x1) / 2 / width, (y0 + y1) / 2 / height, (x1 - x0) / width, (y1 - y0) / height)
    return " ".join([str(categories.index(cell.category)), *(f"{value:.9f}" for value in values)])
