"""Real cells cut out of their images, each under a feathered elliptical mask, and put into another image."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ... import boxes
from ...annotations import Box, Cell
from ...data import augment
from ...data.image_files import Pixels
from .settings import PasteSettings

GREATEST = 24.0
"""Maximum shift of a cell's colours, levels of 255."""
SMALLEST = 4
"""Side of a box, pixels, below which there is nothing to paste."""


@dataclass(frozen=True)
class Exemplar:
    """A real cell that was cut out.

    Attributes:
        file_name: of the image it is from.
        digest: SHA-256 of that file.
        source_box: its box there, at the working scale.
        category: as annotated.
        pixels: (h, w, 3) of the ellipse's bounding box.
        mask: (h, w) weights, 1 in the middle, 0 at the ellipse's edge.
        box: the cell's box in `pixels`, xyxy.
    """

    file_name: str
    digest: str
    source_box: Box
    category: str
    pixels: Pixels
    mask: NDArray[np.float32]
    box: Box

    def turned(self, turn: int) -> "Exemplar":
        """Return it after the flip and turn number `turn` of D4."""
        height, width = self.mask.shape
        box = augment.d4_box(self.box, turn, width, height)
        return replace(self, pixels=augment.d4(self.pixels, turn), mask=augment.d4(self.mask, turn), box=box)


def cut(
    pixels: Pixels,
    cells: Sequence[Cell],
    file_name: str,
    digest: str,
    categories: Sequence[str],
    settings: PasteSettings,
    normal: str,
) -> list[Exemplar]:
    """Return the cells of `categories` in (h, w, 3) `pixels` that can be cut out whole.

    The ellipse around a box is `settings.context` times as large, or smaller, so that it is inside the image and does
    not contain the centre of another cell that is not `normal`, which would be pasted without its box. A cell is left
    out if even the ellipse of its box does not fulfil this.
    """
    height, width = pixels.shape[:2]
    abnormal = [cell for cell in cells if cell.category != normal]
    found = []
    for cell in abnormal:
        if cell.category not in categories or cell.crowd or min(cell.size) < SMALLEST:
            continue
        others = [other.centre for other in abnormal if other is not cell]
        context = _context(cell, others, width, height, settings.context)
        if context is None:
            continue
        (x, y), (half_x, half_y) = cell.centre, (context * side / 2 for side in cell.size)
        x0, y0 = max(round(x - half_x), 0), max(round(y - half_y), 0)
        x1, y1 = min(round(x + half_x), width), min(round(y + half_y), height)
        columns, rows = np.arange(x0, x1) + 0.5 - x, np.arange(y0, y1) + 0.5 - y
        radius = np.sqrt((columns[None, :] / half_x) ** 2 + (rows[:, None] / half_y) ** 2)
        box = (cell.box[0] - x0, cell.box[1] - y0, cell.box[2] - x0, cell.box[3] - y0)
        found.append(
            Exemplar(
                file_name, digest, cell.box, cell.category, pixels[y0:y1, x0:x1].copy(),
                feathered(radius, settings.feather), box,
            )
        )  # fmt: skip
    return found


def feathered(radius: NDArray[np.float64], feather: float) -> NDArray[np.float32]:
    """Return the mask at a `radius` (0 in the middle of the ellipse, 1 on its edge): 1, then half a cosine to 0."""
    outside = np.clip((radius - (1 - feather)) / feather, 0, 1)
    return np.asarray(0.5 * (1 + np.cos(np.pi * outside)), dtype=np.float32)


def put(pixels: Pixels, exemplar: Exemplar, centre: tuple[float, float], match: bool = True) -> Box:
    """Paste `exemplar` into (h, w, 3) `pixels`, in place, its box about `centre`; return the box, inside the image.

    Nothing outside the ellipse changes by a single bit. With `match` its colours are shifted, by at most `GREATEST`, so
    that where the mask falls off they are on average those that were there. Raises ValueError for an image that is
    smaller than the exemplar.
    """
    height, width = exemplar.mask.shape
    if pixels.shape[0] < height or pixels.shape[1] < width:
        raise ValueError(f"an exemplar of {width}x{height} does not fit into {pixels.shape[1]}x{pixels.shape[0]}")
    middle = ((exemplar.box[0] + exemplar.box[2]) / 2, (exemplar.box[1] + exemplar.box[3]) / 2)
    x = min(max(round(centre[0] - middle[0]), 0), pixels.shape[1] - width)
    y = min(max(round(centre[1] - middle[1]), 0), pixels.shape[0] - height)
    old = pixels[y : y + height, x : x + width].astype(np.float32)
    new = exemplar.pixels.astype(np.float32)
    fringe = (exemplar.mask > 0) & (exemplar.mask < 0.5)
    if match and fringe.any():
        new = new + np.clip(old[fringe].mean(axis=0) - new[fringe].mean(axis=0), -GREATEST, GREATEST)
    mixed = old + exemplar.mask[..., None] * (new - old)
    pixels[y : y + height, x : x + width] = np.clip(np.rint(mixed), 0, 255).astype(np.uint8)
    x0, y0, x1, y1 = exemplar.box
    return boxes.clip((x0 + x, y0 + y, x1 + x, y1 + y), pixels.shape[1], pixels.shape[0])


def _context(cell: Cell, others: Sequence[tuple[float, float]], width: int, height: int, wanted: float) -> float | None:
    """Return how many times the box the ellipse about `cell` may be, at most `wanted`; None if not even once."""
    x, y = cell.centre
    half_x, half_y = cell.size[0] / 2, cell.size[1] / 2
    room = min(x / half_x, y / half_y, (width - x) / half_x, (height - y) / half_y)
    apart = min((np.hypot((ox - x) / half_x, (oy - y) / half_y) for ox, oy in others), default=np.inf)
    context = float(min(wanted, room, apart))
    return context if context >= 1 - 1e-6 else None
