"""Merging the detections in the tiles of a large image: every cell once."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor
from torchvision.ops import batched_nms, box_area, box_iou

from ..annotations import Cell
from ..boxes import iou

Tile = tuple[int, int, int, int]
"""xyxy in pixels of the image; it may reach beyond the right and lower edge."""
SAME: Final = 0.5
"""Overlap from which on two boxes are one cell."""
AS_SURE: Final = 0.5
"""Share of a cut box's score that another must have to replace it, so that noise does not remove a confident cell."""


@dataclass(frozen=True)
class Seen:
    """The detections in one tile.

    Attributes:
        boxes: (n, 4) xyxy in pixels of the image.
        labels: (n,).
        scores: (n,).
        tile: where it lies.
    """

    boxes: Tensor
    labels: Tensor
    scores: Tensor
    tile: Tile


def most_certain(found: Sequence[Cell]) -> list[Cell]:
    """Return `found`, best first, without cells that a better one of another category overlaps by `SAME`."""
    kept: list[Cell] = []
    for cell in sorted(found, key=lambda one: -(one.score or 0.0)):
        others = (one for one in kept if one.category != cell.category)
        if all(iou(one.box, cell.box) < SAME for one in others):
            kept.append(cell)
    return kept


def joined(seen: Sequence[Seen], width: int, height: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return the boxes (n, 4), labels and scores of what was `seen` in an image of that size, best first.

    Of boxes that their tile shows whole, non-maximum suppression keeps one a cell. A box that its tile cuts is kept
    unless another tile shows that cell, whole or more of it.
    """
    boxes, labels, scores = (torch.cat([getattr(one, name) for one in seen]) for name in ("boxes", "labels", "scores"))
    number = torch.cat([torch.full((len(one.boxes),), index) for index, one in enumerate(seen)])
    tiles = torch.tensor([one.tile for one in seen], dtype=boxes.dtype)[number]
    whole = _uncut(boxes, tiles, width, height)
    uncut, cut = whole.nonzero()[:, 0], (~whole).nonzero()[:, 0]
    chosen = uncut[batched_nms(boxes[uncut], scores[uncut], labels[uncut], SAME)].tolist()
    cut = cut[batched_nms(boxes[cut], scores[cut], labels[cut] * len(seen) + number[cut], SAME)]  # each tile's own
    cut = cut[(scores[cut] * box_area(boxes[cut]).sqrt()).argsort(descending=True, stable=True)]
    known = torch.cat([torch.tensor(chosen, dtype=torch.long), cut])
    for place, index in enumerate(cut.tolist(), len(chosen)):
        others = known[:place]  # also those dropped: the cell they were part of is kept
        others = others[(labels[others] == labels[index]) & (number[others] != number[index])]
        others = others[scores[others] >= AS_SURE * scores[index]]
        if not _shown(boxes[index], tiles[index], boxes[others], tiles[others]).any():
            chosen.append(index)
    kept = torch.tensor(chosen, dtype=torch.long)
    kept = kept[scores[kept].argsort(descending=True, stable=True)]
    return boxes[kept], labels[kept], scores[kept]


def _uncut(boxes: Tensor, tiles: Tensor, width: int, height: int) -> Tensor:
    """Return which (n, 4) `boxes` touch no edge that their tile (n, 4) has inside the image."""
    kept = torch.ones(len(boxes), dtype=torch.bool)
    for column, outer in ((0, 0), (1, 0), (2, width), (3, height)):
        edge = tiles[:, column]
        inner = edge > outer if column < 2 else edge < outer
        kept &= ~inner | ((boxes[:, column] - edge).abs() > 1)
    return kept


def _shown(box: Tensor, tile: Tensor, others: Tensor, tiles: Tensor) -> Tensor:
    """Return which of `others` (n, 4), from `tiles` (n, 4), are the cell of the cut `box` (4,) from `tile` (4,).

    They cover most of it or, of a cell much wider than the overlap, agree with it in what both tiles show.
    """
    same: Tensor = box_area(_within(others, box)) >= SAME * box_area(box[None])
    for row, (other, both) in enumerate(zip(others, _within(tiles, tile), strict=True)):
        same[row] |= box_iou(_within(box[None], both), _within(other[None], both))[0, 0] >= SAME
    return same


def _within(boxes: Tensor, region: Tensor) -> Tensor:
    """Return what of (n, 4) `boxes` lies in the `region` (4,), of no area where nothing does."""
    first = torch.maximum(boxes[:, :2], region[:2])
    return torch.cat([first, torch.maximum(torch.minimum(boxes[:, 2:], region[2:]), first)], dim=1)
