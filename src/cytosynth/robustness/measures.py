"""Measures of predictions: AP, recall at fixed false positives, by category; and how often a category flips."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..annotations import Cell
from ..bethesda import NILM
from ..evaluate.detection.average_precision import Matches, Scores
from ..evaluate.detection.recall import FreeResponse, by_overlap
from ..evaluate.detection.scoring import MOST
from ..evaluate.statistics import resamples
from .recipe import RobustnessRecipe

OVERALL = ("AP", "AP.5", "recall")
ASC_US = "ASC-US"
FLIPS = {"NILM to ASC-US": (NILM, ASC_US), "ASC-US to NILM": (ASC_US, NILM)}
Cells = Sequence[Sequence[Cell]]
Result = dict[str, Any]
"""`scores`: measure to value (None if there is no such cell); `drawn`: the same for every resample of the images."""


def draws_of(recipe: RobustnessRecipe, images: int) -> list[NDArray[np.int64]]:
    """Return the bootstrap resamples of images, by index, the same for every detector and condition."""
    return [chosen for (chosen,) in resamples([range(images)], recipe.draws, [recipe.seed, 1])]


def measured(
    truth: Cells, found: Cells, categories: Sequence[str], recipe: RobustnessRecipe, draws: Sequence[NDArray[np.int64]]
) -> Result:
    """Return AP, AP.5, recall, and AP and recall of each of `categories`, in all and for each of the `draws`.

    Recall is at `recipe.false_positives` per image and category, at overlap 0.5; over all, the mean of categories.
    """
    matches = Matches(truth, found, categories, MOST)
    responses = {
        name: FreeResponse(_of(truth, name), _of(found, name), by_overlap)
        for name in categories
        if any(cell.category == name for cells in truth for cell in cells)
    }

    def values(chosen: NDArray[np.int64] | None) -> dict[str, float | None]:
        recalls = {name: one.recall(recipe.false_positives, chosen) for name, one in responses.items()}
        return _named(matches.scores(chosen), recalls, categories)

    rows = [values(chosen) for chosen in draws]
    return {"scores": values(None), "drawn": {name: [row[name] for row in rows] for name in (rows or [{}])[0]}}


def _named(scores: Scores, recalls: dict[str, float], categories: Sequence[str]) -> dict[str, float | None]:
    known = [value for value in recalls.values() if value == value]
    found = {"AP": scores.map, "AP.5": scores.map_50, "recall": sum(known) / len(known) if known else float("nan")}
    found |= {f"AP {name}": scores.per_category[name] for name in categories}
    found |= {f"recall {name}": recalls.get(name, float("nan")) for name in categories}
    return {name: round(value, 5) if value == value else None for name, value in found.items()}


def _of(images: Cells, category: str) -> list[list[Cell]]:
    return [[cell for cell in cells if cell.category == category] for cells in images]


def called(truth: Cells, found: Cells, threshold: float) -> list[list[str | None]]:
    """Return the detected category of each annotated cell: that of the best detection that overlaps it by 0.5 or more.

    None if it is not found.
    """
    names: list[list[str | None]] = []
    for annotated, detected in zip(truth, found, strict=True):
        kept = sorted((c for c in detected if (c.score or 0) >= threshold), key=lambda cell: -(cell.score or 0))
        names.append([next((d.category for d in kept if by_overlap(cell, d)), None) for cell in annotated])
    return names


def flips(before: list[list[str | None]], after: list[list[str | None]], knows_normal: bool) -> dict[str, NDArray]:
    """Return, for each of FLIPS, (images, 2): cells that changed so, and cells called by the first name before.

    A detector that does not know NILM calls a cell NILM by not finding it.
    """
    counts = {name: np.zeros((len(before), 2), dtype=np.int64) for name in FLIPS}
    for index, (was, is_) in enumerate(zip(before, after, strict=True)):
        for first, second in zip(was, is_, strict=True):
            first, second = (name if knows_normal else name or NILM for name in (first, second))
            for title, (origin, goal) in FLIPS.items():
                counts[title][index] += (first == origin and second == goal, first == origin)
    return counts
