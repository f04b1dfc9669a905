"""Images for viewing: grids, boxes drawn on images, contact sheets."""

import io
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ..annotations import Cell
from ..bethesda import colour
from ..io import atomic
from .image_files import Pixels


def grid(images: Sequence[Pixels], columns: int, gap: int = 4) -> Pixels:
    """Return `images` (height, width, 3), each of its own size, in rows of `columns` on white."""
    height = max(image.shape[0] for image in images)
    width = max(image.shape[1] for image in images)
    rows = -(-len(images) // columns)
    sheet = np.full((rows * (height + gap) - gap, columns * (width + gap) - gap, 3), 255, dtype=np.uint8)
    for index, image in enumerate(images):
        y, x = (index // columns) * (height + gap), (index % columns) * (width + gap)
        sheet[y : y + image.shape[0], x : x + image.shape[1]] = image
    return sheet


def with_boxes(pixels: Pixels, cells: Iterable[Cell], width: int = 3) -> Pixels:
    """Return a copy of `pixels` with the box and category of every cell drawn on it."""
    image = Image.fromarray(pixels)
    draw = ImageDraw.Draw(image)
    font = ImageFont.load_default(size=max(12, pixels.shape[0] // 60))
    for cell in cells:
        text = cell.category if cell.score is None else f"{cell.category} {cell.score:.2f}"
        draw.rectangle(cell.box, outline=colour(cell.category), width=width)
        x, y = cell.box[0], max(cell.box[1] - font.size - 4, 0)
        draw.rectangle(draw.textbbox((x + 2, y), text, font=font), fill=colour(cell.category))
        draw.text((x + 2, y), text, fill=(255, 255, 255), font=font)
    return np.asarray(image)


def save_png(pixels: Pixels, path: Path) -> None:
    """Write `pixels` as PNG atomically."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", optimize=False)
    atomic.write_bytes(path, buffer.getvalue())
