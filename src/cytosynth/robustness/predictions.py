"""What each detector finds under each condition, kept in the run folder, so that a run continues."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from ..annotations import Cell
from ..data.sources import Sample
from ..detection.external import Finder, Named
from ..errors import UserError
from ..evaluate.detection.scoring import LEAST
from ..io import atomic, plain
from ..variation.catalogue import at_strength
from ..variation.view import View
from .recipe import CLEAN, RobustnessRecipe, parsed

Number = Annotated[float, Field(allow_inf_nan=False)]
CellRow = tuple[Number, Number, Number, Number, str, Number | None]
"""x_min, y_min, x_max, y_max, category, score; of an annotated cell None, or -1 where it is a crowd."""
CROWD = -1.0


class Predictions(BaseModel):
    """Annotated and detected cells of every image under one condition.

    Attributes:
        digest: of the detector.
        truth: by image, in the order of the data.
        found: the same.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    digest: str
    truth: list[list[CellRow]]
    found: list[list[CellRow]]

    def cells(self) -> tuple[list[list[Cell]], list[list[Cell]]]:
        """Return annotated and detected cells, image by image."""
        truth = [[_cell(*entry) for entry in image] for image in self.truth]
        return truth, [[_cell(*entry) for entry in image] for image in self.found]


def varied(sample: Sample, condition: str, recipe: RobustnessRecipe) -> tuple[np.ndarray, list[Cell]]:
    """Return the pixels and cells of `sample` under `condition`: the same for the same seed and name."""
    if condition == CLEAN:
        return sample.pixels, list(sample.cells)
    name, strength = parsed(condition)
    boxes = np.array([cell.box for cell in sample.cells], dtype=np.float64).reshape(-1, 4)
    view, _ = at_strength(View(sample.pixels, boxes, recipe.mpp), name, strength, recipe.seed, sample.name)
    boxes = view.boxes.tolist()
    return view.pixels, [
        replace(cell, box=(x0, y0, x1, y1)) for cell, (x0, y0, x1, y1) in zip(sample.cells, boxes, strict=True)
    ]


def predicted(
    finder: Finder, samples: Sequence[Sample], condition: str, recipe: RobustnessRecipe, path: Path
) -> Predictions:
    """Return what `finder` finds in `samples` under `condition`: read from `path`, or found now and written there.

    Raises UserError if `path` contains something else, or is of another detector.
    """
    if path.exists():
        return _read(path, finder.digest, len(samples))
    truth: list[list[Cell]] = []

    def images() -> Iterator[Named]:
        for sample in samples:
            pixels, cells = varied(sample, condition, recipe)
            truth.append(cells)
            yield sample.name, pixels

    found = finder.find_all(images(), len(samples), LEAST, condition)
    made = Predictions(
        digest=finder.digest,
        truth=[[_entry(cell, CROWD if cell.crowd else None) for cell in cells] for cells in truth],
        found=[[_entry(cell, cell.score) for cell in cells] for cells in found],
    )
    atomic.write_json(path, made.model_dump())
    return made


def _read(path: Path, digest: str, images: int) -> Predictions:
    todo = "damaged, not predictions; delete it, the same command creates it again"
    made = plain.typed(Predictions, path, todo, plain.MAX_BYTES)
    if made.digest != digest or len(made.truth) != images:
        raise UserError(f"{path}: made by another detector or on other images; use another folder")
    return made


def _entry(cell: Cell, score: float | None) -> CellRow:
    x0, y0, x1, y1 = (round(float(value), 3) for value in cell.box)
    return x0, y0, x1, y1, cell.category, score


def _cell(x0: float, y0: float, x1: float, y1: float, category: str, score: float | None) -> Cell:
    if score == CROWD:
        return Cell((x0, y0, x1, y1), category, None, {"iscrowd": 1})
    return Cell((x0, y0, x1, y1), category, score)
