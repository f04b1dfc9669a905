"""Annotations of whole slides, in pixels of level 0: QuPath's GeoJSON, or COCO with the slide as its image."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ... import boxes
from ...annotations import Cell
from ...errors import FormatProblem, UserError
from ...io import plain
from ...io.wording import said
from ..formats import coco

GEOJSON = ".geojson"
LARGEST_CELL = 400.0
"""Microns; a larger outline marks a region, not a cell."""


@dataclass(frozen=True)
class Annotated:
    """The cells of one slide, in pixels of level 0, and how many outlines were none of cells."""

    cells: tuple[Cell, ...]
    left_out: int = 0


def find(slide: Path, given: Path | None, mpp: float) -> Annotated | None:
    """Return the annotations of `slide`: of the `given` file or folder, else next to it; None if there are none.

    Beside a slide NAME.svs lies NAME.geojson, or annotations.json (COCO) whose images are slides. Raises UserError for
    a file that was given and says nothing of the slide, and FormatProblem for one that cannot be read.
    """
    folder = slide.parent if given is None else given
    if folder.is_file():
        found = _geojson(folder) if folder.suffix.lower() == GEOJSON else _coco(folder, slide)
        if found is None:
            raise UserError(f"{folder}: no image named {slide.name}; the file_name must be that of the slide")
        return _cells_only(found, mpp)
    for path in (folder / f"{slide.stem}{GEOJSON}", folder / f"{slide.name}{GEOJSON}"):
        if path.is_file():
            return _cells_only(_geojson(path), mpp)
    together = _coco(folder / coco.FILE, slide) if (folder / coco.FILE).is_file() else None
    return None if together is None else _cells_only(together, mpp)


def _cells_only(cells: list[Cell], mpp: float) -> Annotated:
    kept = tuple(cell for cell in cells if max(cell.size) * mpp <= LARGEST_CELL)
    return Annotated(kept, len(cells) - len(kept))


def _coco(path: Path, slide: Path) -> list[Cell] | None:
    """Return the cells of `slide` in the COCO file at `path`, None if it has no such image."""
    for image in coco.read(path).images:
        if Path(image.file_name).name == slide.name:
            return [cell for cell in image.cells if all(map(math.isfinite, cell.box))]
    return None


def _geojson(path: Path) -> list[Cell]:
    """Return a cell for each outline with a class in the GeoJSON file at `path`: its bounding box.

    Outlines without a class, and points, are passed over.
    """
    try:
        content = plain.from_json(plain.text(path, plain.MAX_BYTES))
    except (OSError, ValueError) as error:
        raise FormatProblem(f"{path}: not readable GeoJSON ({str(error)[:120]})") from None
    features = content.get("features") if isinstance(content, dict) else content
    if not isinstance(features, list):
        raise FormatProblem(f"{path}: the list 'features' is missing; expected a GeoJSON FeatureCollection")
    cells = []
    for index, feature in enumerate(features):
        try:
            name = _class(feature["properties"])
            box = _bounds(feature["geometry"]["coordinates"])
        except (KeyError, TypeError, ValueError) as error:
            raise FormatProblem(f"{path}: features[{index}]: {said(str(error))}") from None
        if name is not None and box is not None:
            cells.append(Cell(box, name))
    return cells


def _class(properties: dict[str, Any]) -> str | None:
    """Return the class of an object of QuPath, None if it has none."""
    value = (properties.get("classification") or {}).get("name")
    return None if value is None else coco.category(value)


def _bounds(coordinates: Any) -> tuple[float, float, float, float] | None:
    """Return the xyxy of all points in nested lists of `coordinates`, None if they span no area."""
    points = list(_points(coordinates, plain.MAX_DEPTH))
    if not points:
        return None
    box = boxes.enclosing(points)
    return box if boxes.area(box) else None


def _points(value: Any, depth: int) -> Iterator[tuple[float, float]]:
    if not isinstance(value, list) or not depth:
        raise ValueError("coordinates: expected lists of points")
    if len(value) >= 2 and not isinstance(value[0], list):
        x, y = coco.number(value[0]), coco.number(value[1])
        if not (math.isfinite(x) and math.isfinite(y)):
            raise ValueError("coordinates: not finite")
        yield x, y
        return
    for inner in value:
        yield from _points(inner, depth - 1)


def cut(cells: tuple[Cell, ...], x: float, y: float, side: int, factor: float, least: float = 0.5) -> list[Cell]:
    """Return the `cells` (level 0) that a field shows, in its pixels.

    Args:
        cells: of the slide.
        x: left edge of the field, pixels of level 0.
        y: upper edge.
        side: of the field, its own pixels.
        factor: pixels of level 0 for one of the field.
        least: of the area of a cell that must be inside for it to be annotated; one that shows less is COCO's crowd,
            which is neither learnt nor counted as missed.
    """
    found = []
    for cell in cells:
        moved = cell.moved(-x, -y).scaled(1 / factor)
        inside = boxes.clip(moved.box, side, side)
        if not boxes.area(inside):
            continue
        extra = dict(moved.extra)
        if boxes.area(inside) < least * boxes.area(moved.box):
            extra["iscrowd"] = 1
        found.append(replace(moved, box=tuple(round(v, 2) for v in inside), extra=extra))  # type: ignore[arg-type]
    return found
