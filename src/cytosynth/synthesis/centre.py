"""A finished image with the appearance of another centre: in the style of a user's fields, and varied."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .. import boxes
from ..annotations import Box, Cell
from ..data import gather, image_files
from ..data.image_files import Pixels
from ..data.slides import glass, reader
from ..errors import UsageError, UserError
from ..io.progress import meter
from ..variation import style as styles
from ..variation.centre import vary
from ..variation.style import Style, restyled
from .settings import PipelineSettings

MPP = 0.49
"""Micrometres a pixel of generated fields, and of edited images at their working scale: a true x20."""
SIDE = 512
"""Side of the fields that are read from a slide, pixels."""
FIELDS = 20
"""Number of fields that are read from a slide."""


def style_of(source: Path, mpp: float | None = None) -> Style:
    """Return the style of `source`: a folder of 5 to 50 images, or a slide.

    Of more images in a folder those at even distances in the order of their names are taken. `mpp` is the micrometres a
    pixel of a folder's images; None leaves the scale of images as it is. A slide states its own and is read at x20.
    Raises UserError for fewer images, or if `source` is not a folder or slide.
    """
    if not source.is_dir() and reader.is_slide(source):
        if mpp is not None:
            raise UsageError(f"{source}: a slide states its own scale; leave --style-mpp out")
        return Style.of(_fields(source))
    if not source.is_dir():
        raise UserError(f"{source}: expected a folder of {styles.FEWEST} to {styles.MOST} fields, or a slide")
    folder = source / "images" if (source / "images").is_dir() else source
    files = [path for _, path in gather.beside(folder)[0]]
    if len(files) < styles.FEWEST:
        raise UserError(f"{folder}: has {len(files)} images; a style needs {styles.FEWEST} to {styles.MOST}")
    chosen = [files[index] for index in np.unique(np.linspace(0, len(files) - 1, styles.MOST).round().astype(int))]
    fields = []
    with meter("reading the style's fields", len(chosen)) as bar:
        for path in chosen:
            fields.append(image_files.read(path))
            bar.advance()
    return Style.of(fields, mpp)


def _fields(slide: Path) -> list[Pixels]:
    """Return fields of the slide at x20: those with the most cells, from all over it."""
    with reader.opened(slide) as opened:
        view = opened.at(MPP)
        covered = glass.coverage(view)
        width, height = view.size
        corners = [(x, y) for y in range(0, height - SIDE + 1, SIDE) for x in range(0, width - SIDE + 1, SIDE)]
        full = sorted(corners, key=lambda corner: (-covered.share(corner[0], corner[1], SIDE, SIDE), corner))
        full = [(x, y) for x, y in full if covered.any(x, y, SIDE, SIDE)][: 4 * FIELDS]
        return [view.read(x, y, SIDE, SIDE) for x, y in sorted(full)[:: max(1, len(full) // FIELDS)][:FIELDS]]


def brought(pixels: Pixels, record: dict[str, Any], settings: PipelineSettings) -> tuple[Pixels, dict[str, Any]]:
    """Return the finished image of `record` with the appearance of the centre of `settings`, and its record.

    The record keeps sizes and boxes of the edit, by which it can be made again; `shown` has those of the image, in the
    same order, and the changes: `style_field` (number of the field whose statistics it took) and `variations`.
    """
    if settings.style is None and settings.vary is None:
        return pixels, record
    shown_boxes = np.array([cell["bbox_xyxy"] for cell in annotated(record)], dtype=np.float64).reshape(-1, 4)
    shown: dict[str, Any] = {}
    if settings.style is not None:
        mpp = settings.vary.mpp if settings.vary else MPP
        view, shown["style_field"] = restyled(
            pixels, shown_boxes, settings.style, mpp, record["seed"], record["file_name"]
        )
        pixels, shown_boxes = view.pixels, view.boxes
    if settings.vary is not None:
        view, shown["variations"] = vary(pixels, shown_boxes, settings.vary, record["seed"], record["file_name"])
        pixels, shown_boxes = view.pixels, view.boxes
    shown |= {"width": pixels.shape[1], "height": pixels.shape[0], "boxes": shown_boxes.round(3).tolist()}
    return pixels, record | {"shown": shown}


def kept_cells(cells: Sequence[Cell], width: int, height: int) -> list[dict[str, Any]]:
    """Return the entries of the annotated `cells` that stay in an image, in its record: boxes clipped to the image.

    An entry is `synthetic` where its cell was already, and has no entry if its box is too small to be written.
    """
    kept = []
    for cell in cells:
        x0, y0, x1, y1 = boxes.clip(cell.box, width, height)
        if min(x1 - x0, y1 - y0) >= boxes.LEAST:
            flags = {"iscrowd": 1 if cell.crowd else 0, "synthetic": cell.extra.get("synthetic") is True}
            kept.append(
                {"bbox_xyxy": [x0, y0, x1, y1], "category": cell.category} | {k: v for k, v in flags.items() if v}
            )
    return kept


def without(
    cells: Sequence[Cell], left_out: Sequence[tuple[Box, str]], size: tuple[int, int]
) -> tuple[list[Cell], list[int]]:
    """Return the `cells` of an image of that (width, height) without those that are `left_out`: box, category.

    Also return the indices of those of `left_out` that are none of the `cells`.
    """
    kept, unknown = list(cells), []
    for number, (box, category) in enumerate(left_out):
        same = [cell for cell in kept if cell.category == category]
        index = boxes.nearest(box, [boxes.clip(cell.box, *size) for cell in same])
        if index is None:
            unknown.append(number)
        else:
            kept.remove(same[index])
    return kept, unknown


def annotated(record: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the cells of the image of `record` that have a box: the edited ones, then real abnormal ones kept."""
    return [*record["cells"], *record.get("kept", [])]


def boxes_shown(record: dict[str, Any]) -> tuple[int, int, list[list[float]]]:
    """Return width, height and boxes (xyxy) of the `annotated` cells of `record`, as its image is on disk."""
    shown = record.get("shown")
    if shown is None:
        return record["width"], record["height"], [cell["bbox_xyxy"] for cell in annotated(record)]
    return shown["width"], shown["height"], shown["boxes"]
