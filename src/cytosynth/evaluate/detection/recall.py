"""Recall at a fixed number of false positives an image (free-response ROC), and matching by overlap or by centre."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from ...annotations import Cell
from ...boxes import iou

Matching = Callable[[Cell, Cell], bool]
"""(annotated, detected) to whether the detection is of the annotated cell."""


def by_overlap(annotated: Cell, detected: Cell, least: float = 0.5) -> bool:
    """Return whether the boxes overlap (IoU) by `least` or more: for boxes of the same kind."""
    return iou(annotated.box, detected.box) >= least


def by_centre(annotated: Cell, detected: Cell) -> bool:
    """Return whether the centre of either box lies in the other: for boxes of different kinds."""
    return _holds(annotated, detected.centre) or _holds(detected, annotated.centre)


def _holds(cell: Cell, point: tuple[float, float]) -> bool:
    x0, y0, x1, y1 = cell.box
    return x0 <= point[0] <= x1 and y0 <= point[1] <= y1


class FreeResponse:
    """Detections of one category matched with annotated cells, so that any resample of images can be scored."""

    def __init__(
        self, truth: Sequence[Sequence[Cell]], found: Sequence[Sequence[Cell]], matching: Matching = by_overlap
    ) -> None:
        """Match image by image: detections best first, each with a cell that none has yet.

        Crowds are not cells to find, and detections inside one are not counted.

        Args:
            truth: annotated cells of one category, by image.
            found: detections of that category with scores, by image.
            matching: when a detection is of a cell.
        """
        self.cells = np.array([sum(not cell.crowd for cell in cells) for cells in truth], dtype=np.int64)
        matched = [_matched(*pair, matching) for pair in zip(truth, found, strict=True)]
        self.scores = [np.array([score for score, _ in one], dtype=np.float64) for one in matched]
        self.hits = [np.array([hit for _, hit in one], dtype=bool) for one in matched]

    def recall(self, false_positives: float, chosen: NDArray[np.int64] | None = None) -> float:
        """Return the share of cells found where at most `false_positives` an image are wrong; NaN without cells.

        The score threshold is the lowest that keeps within this number on the images `chosen` by index (None: all).
        """
        indices = range(len(self.cells)) if chosen is None else chosen
        cells = int(sum(self.cells[index] for index in indices))
        if not cells:
            return float("nan")
        scores = np.concatenate([self.scores[index] for index in indices])
        hits = np.concatenate([self.hits[index] for index in indices])
        order = np.argsort(-scores, kind="stable")
        wrong, right = np.cumsum(~hits[order]), np.cumsum(hits[order])
        within = wrong <= false_positives * len(indices)
        ends = np.append(np.diff(scores[order]) != 0, True)[: len(order)]  # equal scores are counted together
        allowed = right[within & ends]
        return float(allowed.max(initial=0)) / cells


def _matched(truth: Sequence[Cell], found: Sequence[Cell], matching: Matching) -> list[tuple[float, bool]]:
    """Return score and whether it is right of every detection that counts."""
    free = [cell for cell in truth if not cell.crowd]
    crowds = [cell for cell in truth if cell.crowd]
    outcome = []
    for cell in sorted(found, key=lambda one: -(one.score or 0.0)):
        near = [index for index, other in enumerate(free) if matching(other, cell)]
        if near:
            best = max(near, key=lambda index: iou(free[index].box, cell.box))
            del free[best]
            outcome.append((cell.score or 0.0, True))
        elif not any(_holds(crowd, cell.centre) for crowd in crowds):
            outcome.append((cell.score or 0.0, False))
    return outcome
