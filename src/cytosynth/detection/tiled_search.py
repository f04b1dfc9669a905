"""Finding the cells of a whole slide: by tiles that overlap, every cell once, in bounded memory."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Protocol

import numpy as np
import torch
from annotated_types import Ge, Interval
from numpy.typing import NDArray
from pydantic import AfterValidator, BaseModel, Strict
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from ..annotations import Box, Cell
from ..data.image_files import Pixels
from ..data.slides.glass import Coverage
from ..io import atomic, plain, records
from ..io.progress import meter
from ..io.records import append_line
from ..provenance import sides
from . import tiles
from .model import Detector

OVERLAP = 128
"""Pixels that tiles share, as in `Detector.find`."""
BUCKET = 256
"""Side of the squares, pixels, in which boxes that touch are looked for."""


class Field(Protocol):
    """What cells are found in: a slide at x20, or one that is being made."""

    @property
    def size(self) -> tuple[int, int]:
        """Width and height, pixels."""

    def read(self, x: int, y: int, width: int, height: int) -> Pixels:
        """Return the (height, width, 3) pixels of a region inside."""


@dataclass(frozen=True)
class Search:
    """What is looked for.

    Attributes:
        detector: finds it.
        threshold: score threshold, 0–1.
        identity: of field and models; results of another identity are not used.
    """

    detector: Detector
    threshold: float
    identity: str


def find(field: Field, covered: Coverage | None, search: Search, record: Path, title: str) -> list[Cell]:
    """Return the cells of `field` in its pixels, best first.

    Args:
        field: is read by tiles; memory does not depend on its size, but for the cells found.
        covered: where something lies on the glass; tiles of empty glass are skipped. None: nothing is.
        search: what is looked for.
        record: file of what each tile showed, a line a tile; a killed search continues from it.
        title: of the progress bar.
    """
    width, height = field.size
    side = search.detector.config.tile
    corners = list(search.detector.corners(width, height, OVERLAP))
    looked = [at for at in corners if covered is None or covered.any(*at, min(side, width), min(side, height))]
    before = _before(record, search)
    with meter(title, len(looked), sum(at in before for at in looked)) as bar:
        for x, y in looked:
            if (x, y) in before:
                continue
            pixels = field.read(x, y, min(side, width - x), min(side, height - y))
            before[x, y] = _row(search.detector.look(pixels, search.threshold), x, y)
            append_line(record, {"x": x, "y": y, "found": before[x, y]})
            bar.advance()
    seen = [_seen(before[x, y], x, y, side) for x, y in looked]
    names = search.detector.config.categories
    return [Cell(box, names[label - 1], score) for box, label, score in joined(seen, width, height)]


def joined(seen: Sequence[tiles.Seen], width: int, height: int) -> list[tuple[Box, int, float]]:
    """Return box (xyxy), label and score of every cell of what was `seen`, best first: those of `tiles.joined`.

    That compares every box with every other. Boxes that share no area do not decide on each other, so it is asked for
    each group of boxes that touch, in coordinates from near the group's corner.
    """
    if not any(len(one.boxes) for one in seen):
        return []
    boxes, labels, scores = (torch.cat([getattr(one, name) for one in seen]) for name in ("boxes", "labels", "scores"))
    number = torch.cat([torch.full((len(one.boxes),), index) for index, one in enumerate(seen)])
    groups = touching(boxes.numpy())
    order = np.argsort(groups, kind="stable")
    kept: list[tuple[Tensor, Tensor, Tensor]] = []
    for members in np.split(order, np.flatnonzero(np.diff(groups[order])) + 1):
        some = torch.from_numpy(members)
        if len(some) == 1:
            kept.append((boxes[some], labels[some], scores[some]))
            continue
        corner = (boxes[some, :2].amin(dim=0).floor() - 2).clamp(min=0)  # a tile's edge stays inside, the image's at 0
        origin = corner.repeat(2)
        parts = []
        for index in sorted(set(number[some].tolist())):
            own = some[number[some] == index]
            tile = tuple(int(value) for value in torch.tensor(seen[index].tile) - origin)
            parts.append(tiles.Seen(boxes[own] - origin, labels[own], scores[own], tile))  # type: ignore[arg-type]
        found = tiles.joined(parts, int(width - corner[0]), int(height - corner[1]))
        kept.append((found[0] + origin, *found[1:]))
    together = [torch.cat(part) for part in zip(*kept, strict=True)]
    rows = zip(*(part.tolist() for part in together), strict=True)
    ordered = sorted((-score, [round(side, 2) for side in box], label) for box, label, score in rows)
    return [((box[0], box[1], box[2], box[3]), label, -negative) for negative, box, label in ordered]


def most_certain(cells: Sequence[Cell]) -> list[Cell]:
    """Return those of `cells`, best first, that `tiles.most_certain` keeps: a nucleus found as NILM and as LSIL is one.

    Only cells whose boxes touch are compared, since a slide may have a hundred thousand.
    """
    if not cells:
        return []
    groups: dict[int, list[Cell]] = {}
    for group, cell in zip(touching(np.array([cell.box for cell in cells])).tolist(), cells, strict=True):
        groups.setdefault(group, []).append(cell)
    kept = {id(cell) for members in groups.values() for cell in tiles.most_certain(members)}
    return [cell for cell in cells if id(cell) in kept]


def touching(boxes: NDArray[np.float64]) -> NDArray[np.int32]:
    """Return the number of the group of each of (n, 4) `boxes`: those that share area, directly or through others.

    Pairs are sought among the boxes that reach into the same square of BUCKET pixels.
    """
    first, last = (boxes[:, :2] // BUCKET).astype(np.int64), (boxes[:, 2:] // BUCKET).astype(np.int64)
    squares: dict[tuple[int, int], list[int]] = {}
    for index, ((x0, y0), (x1, y1)) in enumerate(zip(first.tolist(), last.tolist(), strict=True)):
        for y in range(y0, y1 + 1):
            for x in range(x0, x1 + 1):
                squares.setdefault((y, x), []).append(index)
    pairs: list[NDArray[np.int64]] = []
    for members in squares.values():
        own = np.array(members)
        low, high = boxes[own, :2], boxes[own, 2:]
        share = (low[:, None] < high[None]).all(axis=2) & (high[:, None] > low[None]).all(axis=2)
        pairs.append(own[np.argwhere(np.triu(share, 1))])
    rows, columns = np.concatenate(pairs).T
    graph = coo_array((np.ones(len(rows), dtype=bool), (rows, columns)), shape=(len(boxes), len(boxes)))
    return np.asarray(connected_components(graph, directed=False)[1])


def _row(found: tiles.Seen, x: int, y: int) -> list[list[float]]:
    """Return what was found in a tile at (x, y) as it is recorded: xyxy of the field, label, score."""
    boxes = (found.boxes.double() + torch.tensor([x, y, x, y])).tolist()
    rows = zip(boxes, found.labels.tolist(), found.scores.tolist(), strict=True)
    return [[*(round(side, 2) for side in box), label, round(score, 6)] for box, label, score in rows]


def _seen(rows: list[list[float]], x: int, y: int, side: int) -> tiles.Seen:
    values = torch.tensor(rows, dtype=torch.float64).reshape(-1, 6)
    return tiles.Seen(values[:, :4], values[:, 4].long(), values[:, 5], (x, y, x + side, y + side))


Whole = Annotated[int, Strict()]
Number = Annotated[float, Strict()]


def _boxed(row: tuple[float, ...]) -> tuple[float, ...]:
    sides(row[:4])
    return row


class Tile(BaseModel):
    """A line of the record: what was found in the tile at (x, y), rows as `_row` makes them."""

    x: Whole
    y: Whole
    found: list[
        Annotated[
            tuple[Number, Number, Number, Number, Annotated[Whole, Ge(1)], Annotated[Number, Interval(ge=0, le=1)]],
            AfterValidator(_boxed),
        ]
    ]


def _before(record: Path, search: Search) -> dict[tuple[int, int], list[list[float]]]:
    """Return what is recorded of tiles by corner; a record of another search is started again."""
    lines = plain.lines(record)
    first = next(lines, None)
    if not isinstance(first, dict) or first.get("identity") != search.identity:
        atomic.write_text(record, json.dumps({"identity": search.identity}) + "\n")
        return {}
    known: dict[tuple[int, int], list[list[float]]] = {}
    most = len(search.detector.config.categories)
    for tile in records.typed(Tile, record):
        if all(label <= most for *_, label, _ in tile.found):
            known[tile.x, tile.y] = [list(row) for row in tile.found]
    return known
