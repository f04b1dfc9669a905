"""A public detection set of our own: coloured ellipses on a textured background, generated from a seed."""

from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PILImage

from ..annotations import Box, Cell, DataSet, Image
from ..data import split
from ..data.formats import coco
from ..data.image_files import Pixels
from ..data.preview import save_png
from ..io import atomic
from .recipe import SanityRecipe

COLOURS: Final = {"rose": (190, 90, 130), "teal": (80, 150, 150), "ochre": (180, 150, 80)}
"""Mean colour of each class; that of an object is up to `JITTER` away in each channel."""
JITTER: Final = 35.0
CLASSES: Final = tuple(COLOURS)
RADII: Final = (9.0, 24.0)
"""Of an ellipse's half axes: boxes of 18 to 48 pixels, for which the small backbones' anchors are made."""
MOST: Final = 6
"""Objects of an image; there are as many grey rectangles, which are distractors."""
CROWDED: Final = 0.2
"""Objects whose boxes share more (IoU) are not drawn."""
TRIES: Final = 20


def write(root: Path, recipe: SanityRecipe) -> None:
    """Write the images of `recipe` as a COCO data set with parts train, val and test, unless they are there."""
    if (root / coco.FILE).exists():
        return
    parts = {"train": recipe.train, "val": recipe.val, "test": recipe.test}
    images, names = [], {}
    for number, (part, count) in enumerate(parts.items()):
        names[part] = [f"{part}_{index:04d}.png" for index in range(count)]
        for index, name in enumerate(names[part]):
            pixels, cells = draw(np.random.default_rng([number, index]), recipe.side)
            save_png(pixels, root / "images" / name)
            images.append(Image(name, recipe.side, recipe.side, tuple(cells)))
    atomic.write_json(root / split.FILE, names)
    coco.write(DataSet(root / "images", tuple(images), CLASSES, (), {"description": "drawn ellipses"}), root)


def draw(rng: np.random.Generator, side: int) -> tuple[Pixels, list[Cell]]:
    """Return an image of `side` pixels with one to six ellipses, and their boxes and classes."""
    canvas = np.array([205.0, 205.0, 210.0]) + 25 * _texture(rng, side)[..., None] * rng.uniform(0.5, 1, 3)
    for _ in range(int(rng.integers(MOST))):
        x, y, width, height = *rng.uniform(0, side, 2), *rng.uniform(6, 30, 2)
        rows, columns = slice(int(y), int(y + height)), slice(int(x), int(x + width))
        canvas[rows, columns] = rng.uniform(90, 190)
    cells: list[Cell] = []
    for _ in range(int(rng.integers(1, MOST + 1))):
        inside, box = ellipse(rng, side, [cell.box for cell in cells])
        if inside is None:
            continue
        name = CLASSES[int(rng.integers(len(CLASSES)))]
        colour = np.array(COLOURS[name]) + rng.uniform(-JITTER, JITTER, 3)
        canvas[inside] = colour + 20 * rng.standard_normal((int(inside.sum()), 1))
        cells.append(Cell(box, name))
    canvas += 4 * rng.standard_normal(canvas.shape)
    return np.clip(canvas, 0, 255).astype(np.uint8), cells


def ellipse(rng: np.random.Generator, side: int, taken: list[Box]) -> tuple[NDArray[np.bool_] | None, Box]:
    """Return the mask and box of a turned ellipse that lies whole in the image and covers no other; or no mask."""
    for _ in range(TRIES):
        a, b, angle = *rng.uniform(*RADII, 2), rng.uniform(0, np.pi)
        half = np.hypot([a * np.cos(angle), a * np.sin(angle)], [b * np.sin(angle), b * np.cos(angle)])
        centre = rng.uniform(half, side - half)
        x0, y0, x1, y1 = (round(float(value), 2) for value in (*(centre - half), *(centre + half)))
        box = (x0, y0, x1, y1)
        if all(shared(box, other) <= CROWDED for other in taken):
            y, x = np.mgrid[:side, :side] + 0.5 - centre[::-1, None, None]
            along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
            return (along / a) ** 2 + (across / b) ** 2 <= 1, box
    return None, (0.0, 0.0, 0.0, 0.0)


def shared(a: Box, b: Box) -> float:
    """Return the IoU of two boxes."""
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    common = max(width, 0.0) * max(height, 0.0)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
    return common / (sum(areas) - common)


def _texture(rng: np.random.Generator, side: int) -> NDArray[np.float64]:
    """Return (side, side) smooth noise of three sizes, about -1 to 1."""
    total = np.zeros((side, side))
    for cells in (4, 12, 40):
        coarse = PILImage.fromarray(rng.standard_normal((cells, cells)).astype(np.float32))
        total += np.asarray(coarse.resize((side, side), PILImage.Resampling.BICUBIC)) / 3
    return total
