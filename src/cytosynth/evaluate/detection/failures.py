"""Where a detector fails: which categories it confuses, and cells of which size it misses."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt

import numpy as np
import torch
from torchvision.ops import box_iou

from ...annotations import Cell
from ...boxes import area, intersection

MISSED = "missed"
NOTHING = "no such cell"
SIZES = 3
"""Groups of equally many annotated cells by size."""


@dataclass(frozen=True)
class Failures:
    """The detection result for every annotated cell, and the detections where there is no cell.

    Attributes:
        confusion: by annotated category, how many cells were found as each category or missed; last, by `NOTHING`,
            what was found where no cell is.
        missed: lower and upper edge of each group by size (square root of the area, pixels), cells in it, and the
            share of them that was missed.
    """

    confusion: dict[str, dict[str, int]]
    missed: list[tuple[float, float, int, float]]


def failures(
    truth: Sequence[Sequence[Cell]],
    found: Sequence[Sequence[Cell]],
    categories: Sequence[str],
    iou: float = 0.5,
    threshold: float = 0.3,
) -> Failures:
    """Return where `found` differs from `truth`, image by image.

    Detections of score `threshold` or more are taken best first, whatever their category; each goes to the annotated
    cell that it overlaps most, by at least `iou`, and that none has taken yet. A crowd is not a cell to find, and
    detections inside one are not counted as errors, nor are detections of other categories.
    """
    columns = [*categories, MISSED]
    confusion = {row: dict.fromkeys(columns, 0) for row in (*categories, NOTHING)}
    sizes: list[float] = []
    misses: list[bool] = []
    for annotated, detected in zip(truth, found, strict=True):
        cells = [cell for cell in annotated if cell.category in categories and not cell.crowd]
        crowds = [cell for cell in annotated if cell.category in categories and cell.crowd]
        seen = [cell for cell in detected if cell.category in categories and (cell.score or 0) >= threshold]
        taken = _taken(cells, crowds, seen, iou)
        for cell, name in zip(cells, taken[0], strict=True):
            confusion[cell.category][name] += 1
            sizes.append(sqrt(cell.size[0] * cell.size[1]))
            misses.append(name == MISSED)
        for name in taken[1]:
            confusion[NOTHING][name] += 1
    return Failures(confusion, _by_size(np.array(sizes), np.array(misses)))


def _taken(
    cells: Sequence[Cell], crowds: Sequence[Cell], detected: Sequence[Cell], iou: float
) -> tuple[list[str], list[str]]:
    """Return the category as which each of `cells` was found, and the detections outside them and `crowds`."""
    names, beside = [MISSED] * len(cells), []
    boxes = torch.tensor([cell.box for cell in cells], dtype=torch.float64).reshape(-1, 4)
    for cell in sorted(detected, key=lambda one: -(one.score or 0)):
        overlaps = box_iou(torch.tensor([cell.box], dtype=torch.float64), boxes)[0]
        free = [i for i, name in enumerate(names) if name == MISSED and overlaps[i] >= iou]
        if free:
            names[max(free, key=lambda i: float(overlaps[i]))] = cell.category
        elif not (overlaps >= iou).any() and not any(_inside(cell, crowd) >= iou for crowd in crowds):
            beside.append(cell.category)
    return names, beside


def _inside(cell: Cell, crowd: Cell) -> float:
    """Return the share of `cell` that lies in `crowd`, COCO's overlap of the two."""
    return intersection(cell.box, crowd.box) / max(area(cell.box), 1e-9)


def _by_size(sizes: "np.ndarray", misses: "np.ndarray") -> list[tuple[float, float, int, float]]:
    """Return the groups of `Failures.missed`; cells that are all of one size make one group."""
    if not len(sizes):
        return []
    edges = np.unique(np.quantile(sizes, np.linspace(0, 1, SIZES + 1)).round())
    if len(edges) < 2:
        return [(float(edges[0]), float(edges[0]), len(sizes), float(misses.mean()))]
    group = np.clip(np.searchsorted(edges, sizes.round(), side="right") - 1, 0, len(edges) - 2)
    return [
        (float(edges[g]), float(edges[g + 1]), int((group == g).sum()), float(misses[group == g].mean()))
        for g in range(len(edges) - 1)
        if (group == g).any()
    ]
