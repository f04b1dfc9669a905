"""COCO in parts: `annotations/000000.json` ..., each of bounded size, for sets that are too large for one file.

Image and annotation ids count on from part to part, so that they are those of the single file.
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from ...annotations import DataSet, Image
from ...io import atomic
from . import coco

LARGEST = 100_000
"""Images of a set whose annotations are in one file."""
IMAGES, CELLS = 10_000, 500_000
"""Of a part: it ends with the image that reaches either."""


class Counter:
    """Gives the images and cells of a data set their ids, in order, from 1."""

    def __init__(self, about: DataSet) -> None:
        """Begin the set that `about` describes."""
        self.about, self.images, self.cells = about, 0, 0

    def encode(self, images: Iterable[Image]) -> dict[str, Any]:
        """Return the next `images` as a COCO object."""
        content = coco.encode(replace(self.about, images=tuple(images)))
        ids = {entry["id"]: number for number, entry in enumerate(content["images"], self.images + 1)}
        for entry in content["images"]:
            entry["id"] = ids[entry["id"]]
        for number, entry in enumerate(content["annotations"], self.cells + 1):
            entry["id"], entry["image_id"] = number, ids[entry["image_id"]]
        self.images += len(content["images"])
        self.cells += len(content["annotations"])
        return content


def write(about: DataSet, images: Iterable[Image], count: int, root: Path) -> None:
    """Write the annotations of the `count` `images` of the data set that `about` describes into `root`.

    Up to `LARGEST` are in one file; more are in parts, of which one at a time is in memory.
    """
    if count <= LARGEST:
        coco.write(replace(about, images=tuple(images)), root)
        return
    counter = Counter(about)
    for number, part in enumerate(divided(images)):
        atomic.write_json(root / coco.PARTS / f"{number:06d}.json", counter.encode(part))
    (root / coco.FILE).unlink(missing_ok=True)


def read(root: Path) -> Iterator[DataSet]:
    """Yield the parts of the data set in the folder `root`, one at a time; raise FormatProblem as `coco.read` does."""
    for file in coco.parts(root):
        yield replace(coco.read(file), folder=root / "images")


def divided(images: Iterable[Image]) -> Iterator[tuple[Image, ...]]:
    """Yield `images` in parts of at most `IMAGES`, and of about `CELLS` at most."""
    part: list[Image] = []
    cells = 0
    for image in images:
        part.append(image)
        cells += len(image.cells)
        if len(part) >= IMAGES or cells >= CELLS:
            yield tuple(part)
            part, cells = [], 0
    if part:
        yield tuple(part)
