"""Keeping the best weights: "the best model is selected" (Section IV-A), by a score on held-out data."""

import json
from pathlib import Path
from typing import NamedTuple

from pydantic import BaseModel

from ..errors import UsageError
from ..io import atomic, plain, records
from . import card
from .recipe import Recipe
from .task import Task

SCORES = "validation.jsonl"
BEST = "best"
SCORE = "best.json"
"""File in the folder of the best weights: their step and score, written together with them."""


class Kept(BaseModel, strict=True):
    """The content of `SCORE`."""

    step: int
    score: float


class Best(NamedTuple):
    """The weights with the lowest score so far."""

    step: int
    score: float
    weights: Path


def validate(task: Task, recipe: Recipe, run: Path, step: int, title: str) -> float:
    """Score the current `task`, write the score to the folder `run`, store the weights if they are the best; return the
    score.

    Raises UsageError if there is no held-out data.
    """
    score = task.score()
    if score is None:
        raise UsageError(f"validate_every={recipe.validate_every}: there is no held-out data to score on; set it to 0")
    before = best(run)
    # A run that was killed here may have kept a later best already: it is met again with the same score.
    if before is None or score < before.score:
        with atomic.folder(run / BEST) as part:
            task.export(part)
            atomic.write_text(part / "README.md", card.weights_card(title, step, recipe))
            atomic.write_json(part / SCORE, {"step": step, "score": score})
    with atomic.opened(run / SCORES, "ab") as file:
        file.write((json.dumps({"step": step, "score": score}) + "\n").encode())
    return score


def best(run: Path) -> Best | None:
    """Return the best weights in the folder `run`; None if there are none.

    Raises UserError if their step and score cannot be read.
    """
    path = run / BEST / SCORE
    if not path.exists():
        return None
    todo = f"not a step and its score; delete {run / BEST}; the best from now on is kept"
    kept = plain.typed(Kept, path, todo)
    return Best(kept.step, kept.score, run / BEST)


def exhausted(run: Path, recipe: Recipe) -> bool:
    """Return whether none of the last `patience` scores in the folder `run` is better than the best before."""
    path = run / SCORES
    if recipe.patience is None:
        return False
    scores = [entry["score"] for entry in records.with_number(path, "score")]
    return len(scores) > recipe.patience and len(scores) - 1 - scores.index(min(scores)) >= recipe.patience
