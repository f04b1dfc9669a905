"""`cytosynth check`: everything wrong with a data set, in one pass."""

import hashlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from ..annotations import DataSet, Image
from ..errors import FormatProblem
from ..io import wording
from ..io.progress import meter
from ..io.seen import Seen, seen
from . import file_names, gather, image_files, split
from .image_files import Pixels
from .read import FOUND_OUT, Place, guess, read
from .slides import glass, reader

BLOCK = 1024
"""Pixels of a slide, each way, that are read at a time."""
LISTED = 20
"""Number of images without an entry that are listed; the others are counted."""


def check(
    root: Path,
    kind: str | None = None,
    note: Callable[[str], None] = lambda _: None,
    place: Place = FOUND_OUT,
    **options: Any,
) -> list[str]:
    """Return a line for each problem of the data set at `root`, empty if there are none; `note` gets a summary, then a
    line on the parts, and one for each part that is empty.

    Unreadable, truncated, missing, unlisted and duplicate images, wrong sizes, boxes outside their image or without
    area, NaN, unknown categories, file names that leave the folder, and decompression bombs. Also corrections made
    while reading: clipped boxes, duplicate ids. `place` and `options` are those of `read`.
    """
    problems: list[str] = []

    def corrected(about: str, line: str) -> None:
        problems.append(f"{line} ({about})")

    try:
        kind = kind or guess(root, place)
        data = read(root, kind, problems.append, corrected, place=place, **options)
    except FormatProblem as problem:
        return [*problems, str(problem)]
    cells = sum(len(image.cells) for image in data.images)
    note(f"{kind}, {wording.amount(len(data.images), 'image')}, {wording.amount(cells, 'cell')}")
    for line in split.Sizes(data.parts, data.images).lines(data):
        note(line)
    if not data.images and not problems:
        problems.append(f"{root}: contains no image, read as {kind}")
    prepared = kind == "comparison-detector"
    with meter("checking", len(data.images)) as bar, seen() as names, seen() as contents:
        for image in data.images:
            if names.first(image.file_name, image.file_name):
                problems.append(f"{image.file_name}: listed twice")
            if kind == "slides":
                problems += _slide(data, image)
            else:
                problems += of_image(image, data.path(image), partial(_read, data, image), contents, prepared)
            problems += of_cells(image)
            bar.advance()
    left = unlisted(data) if kind not in ("images", "slides") else []
    problems += [f"{data.folder / name}: not in the annotations" for name in left[:LISTED]]
    if len(left) > LISTED:
        problems.append(f"{data.folder}: {len(left) - LISTED} more images are not in the annotations")
    return problems


def unlisted(data: DataSet) -> list[str]:
    """Return the names of image files below the folder of `data`, no links, that are none of its images."""
    listed = {image.file_name for image in data.images}
    left = [name for name in gather.images(data.folder) if name not in listed]
    return [name for name in left if (data.folder / name).is_file() and not (data.folder / name).is_symlink()]


def _read(data: DataSet, image: Image) -> Pixels:
    return image_files.read(file_names.inside(data.folder, image.file_name))


def of_image(
    image: Image, path: Path, read: Callable[[], Pixels], contents: Seen, prepared: bool = False
) -> Iterator[str]:
    """Yield a line for each problem of the file of `image` at `path`, read by `read`.

    `contents` are those of the images before it. One that is still to be `prepared` may have another size.
    """
    try:
        pixels = read()
    except (image_files.ImageProblem, FormatProblem) as problem:
        yield str(problem)
        return
    height, width = pixels.shape[:2]
    annotated = (image.width, image.height)
    if (width, height) != annotated and not prepared:
        yield image_files.other_size(path, (width, height), annotated)
    digest = hashlib.sha256(pixels.tobytes()).hexdigest()
    first = contents.first(digest, image.file_name)
    if first not in (None, image.file_name):
        yield f"{path}: duplicate of {first}"


def _slide(data: DataSet, image: Image) -> Iterator[str]:
    """Read a slide at x20, except empty glass."""
    try:
        with reader.opened(data.folder / image.file_name) as slide:
            view = slide.at()
            covered = glass.coverage(view)
            if covered.empty == 1:
                yield f"{image.file_name}: shows only empty glass"
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


def of_cells(image: Image) -> Iterator[str]:
    """Yield a line for each problem of the cells of `image`."""
    seen: set[tuple[object, ...]] = set()
    for number, cell in enumerate(image.cells):
        where = f"{image.file_name}: box {number} ({cell.category[:60]})"
        key = (cell.category, *cell.box)
        if key in seen:
            yield f"{where}: duplicate of another box"
        seen.add(key)
