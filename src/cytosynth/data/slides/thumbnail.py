"""A thumbnail of a slide with the boxes of its cells."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from ...annotations import Cell
from ...bethesda import colour
from ..image_files import Pixels
from .slide import Slide

SIDE = 2048
"""Of the longer side of a thumbnail, pixels."""
LEAST = 5.0
"""Side of a box that is drawn, pixels: a cell of a large slide is smaller."""


def with_boxes(slide: Slide, cells: Sequence[Cell], side: int = SIDE) -> Pixels:
    """Return `slide` at most `side` pixels wide and high, with a box in its category's colour for each of `cells`.

    They are in pixels of level 0.
    """
    view = slide.thumbnail(side)
    return marked(view.whole(), cells, view.factor)


def marked(pixels: Pixels, cells: Sequence[Cell], factor: float) -> Pixels:
    """Return (height, width, 3) `pixels` with a box for each of `cells`, which are `factor` times larger."""
    image = Image.fromarray(pixels)
    draw = ImageDraw.Draw(image)
    for cell in cells:
        x, y = (value / factor for value in cell.centre)
        half_x, half_y = (max(size / factor, LEAST) / 2 for size in cell.size)
        draw.rectangle((x - half_x, y - half_y, x + half_x, y + half_y), outline=colour(cell.category))
    return np.asarray(image)
