"""`cytosynth check`: everything wrong with a data set, in one pass."""

import hashlib
import math
from collections.abc import Callable, Iterator
from pathlib import Path

from ..annotations import Cell, DataSet, Image
from ..errors import FormatProblem
from ..io import wording
from ..io.progress import meter
from . import convert, image_files
from .slides import glass, reader

BLOCK = 1024
"""Pixels of a slide, each way, that are read at a time."""
TOLERANCE = 0.5
"""Pixels by which a box may pass the border: rounding of the tools that wrote it."""


def check(root: Path, kind: str | None = None, note: Callable[[str], None] = lambda _: None) -> list[str]:
    """Return a line for each problem of the data set at `root`, empty when it is sound; `note` what is there.

    Unreadable, truncated, missing and duplicate images, wrong sizes, boxes outside their image or without
    area, NaN, unknown categories, file names that leave the folder, and decompression bombs.
    """
    problems: list[str] = []
    try:
        data = convert.read(root, kind, report=problems.append)
    except FormatProblem as problem:
        return [*problems, str(problem)]
    kind = kind or convert.guess(root)
    cells = sum(len(image.cells) for image in data.images)
    note(f"{kind}, {wording.amount(len(data.images), 'image')}, {wording.amount(cells, 'cell')}")
    if not data.images and not problems:
        problems.append(f"{root}: no image in it, read as {kind}")
    prepared = kind == "comparison-detector"
    names: set[str] = set()
    contents: dict[str, str] = {}
    with meter("checking", len(data.images)) as bar:
        for image in data.images:
            if image.file_name in names:
                problems.append(f"{image.file_name}: listed twice")
            names.add(image.file_name)
            problems += _slide(data, image) if kind == "slides" else _image(data, image, contents, prepared)
            problems += _cells(image)
            bar.advance()
    return problems


def _image(data: DataSet, image: Image, contents: dict[str, str], prepared: bool) -> Iterator[str]:
    try:
        path = image_files.inside(data.folder, image.file_name)
        pixels = image_files.read(path)
    except image_files.ImageProblem as problem:
        yield str(problem)
        return
    height, width = pixels.shape[:2]
    annotated = (image.width, image.height)
    if (width, height) != annotated and not prepared:
        yield image_files.other_size(path, (width, height), annotated)
    digest = hashlib.sha256(pixels.tobytes()).hexdigest()
    if digest in contents and contents[digest] != image.file_name:
        yield f"{path}: a duplicate of {contents[digest]}"
    contents.setdefault(digest, image.file_name)


def _slide(data: DataSet, image: Image) -> Iterator[str]:
    """Read all of a slide at x20 that is not empty glass."""
    try:
        with reader.opened(data.folder / image.file_name) as slide:
            view = slide.at()
            covered = glass.coverage(view)
            if covered.empty == 1:
                yield f"{image.file_name}: nothing but empty glass"
            width, height = view.size
            corners = [(x, y) for y in range(0, height, BLOCK) for x in range(0, width, BLOCK)]
            with meter(image.file_name[:40], len(corners)) as bar:
                for x, y in corners:
                    size = (min(BLOCK, width - x), min(BLOCK, height - y))
                    if covered.any(x, y, *size):
                        view.read(x, y, *size)
                    bar.advance()
    except image_files.ImageProblem as problem:
        yield str(problem)


def _cells(image: Image) -> Iterator[str]:
    seen: set[tuple[object, ...]] = set()
    for number, cell in enumerate(image.cells):
        where = f"{image.file_name}: box {number} ({cell.category[:60]})"
        problem = _box(cell, image.width, image.height)
        if problem:
            yield f"{where}: {problem}"
        key = (cell.category, *cell.box)
        if key in seen:
            yield f"{where}: a duplicate of another box"
        seen.add(key)


def _box(cell: Cell, width: int, height: int) -> str | None:
    x0, y0, x1, y1 = cell.box
    if not all(map(math.isfinite, cell.box)):
        return f"{cell.box} is not finite"
    if x1 <= x0 or y1 <= y0:
        return f"no area ({x1 - x0:g} x {y1 - y0:g})"
    if x0 < -TOLERANCE or y0 < -TOLERANCE or x1 > width + TOLERANCE or y1 > height + TOLERANCE:
        return f"({x0:g}, {y0:g}, {x1:g}, {y1:g}) outside the image of {width}x{height}"
    return None
