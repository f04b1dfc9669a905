"""Scores of a detector on annotated images: COCO scores, those of resamples of the images, and where it fails."""

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import BaseModel, ConfigDict, Field
from torchvision.ops import nms

from ...annotations import Cell
from ...bethesda import NILM, ONE_CLASS
from ...data.sources import Sample
from ...detection import model
from ...detection.external import Finder
from ...errors import UserError
from ...io import plain
from ...io.progress import meter
from ..statistics import Indices, resamples
from . import failures
from .average_precision import Matches, Scores, evaluate

MOST = 300
"""Maximum number of detections per image."""
MEASURES = ("mAP", "mAP.5", "mAP.75")
ABNORMAL_AP = "AP.5 abnormal"
"""AP at IoU 0.5 of all cells that are not NILM, as one class."""
OVERLAP = 0.5
"""IoU from which detections of several classes count as one cell."""
LEAST = 0.05
"""Minimum score of the detections that are used."""


def scored(finder: Finder, test: Sequence[Sample], draws: int) -> dict[str, Any]:
    """Return scores of `finder` on `test`, those of `draws` resamples of its images, and where it fails.

    The resamples are the same for every detector, so that differences can be taken resample by resample. Of a detector
    of abnormal cells, `ABNORMAL_AP` is among the scores.
    """
    truth, categories = [sample.cells for sample in test], finder.categories
    found = finder.find_all(((sample.name, sample.pixels) for sample in test), len(test), LEAST, "clean")
    matches = Matches(truth, found, categories, MOST)
    one = None
    if any(name != NILM for name in categories):
        one = Matches(
            [one_class(cells) for cells in truth], [most_confident(cells) for cells in found], (ONE_CLASS,), MOST
        )
    drawn = [_all(matches, one, images) for (images,) in resamples([range(len(test))], draws)]
    return {
        "scores": _all(matches, one),
        "drawn": {name: [row[name] for row in drawn] for name in drawn[0]},
        "failures": asdict(failures.failures(truth, found, categories)),
    }


def one_class(cells: Sequence[Cell]) -> list[Cell]:
    """Return those of `cells` that are not NILM, all as `ONE_CLASS`."""
    return [replace(cell, category=ONE_CLASS) for cell in cells if cell.category != NILM]


def most_confident(found: Sequence[Cell]) -> list[Cell]:
    """Return the detections `found` as `one_class` does, keeping the best of those that overlap by `OVERLAP`."""
    cells = one_class(found)
    boxes = torch.tensor([cell.box for cell in cells], dtype=torch.float64).reshape(-1, 4)
    scores = torch.tensor([cell.score or 0.0 for cell in cells], dtype=torch.float64)
    return [cells[index] for index in nms(boxes, scores, OVERLAP).tolist()]


def _all(matches: Matches, one: Matches | None, images: Indices | None = None) -> dict[str, float | None]:
    """Return the scores of `images`, all where None, by category and, if requested, of `one` class."""
    named = _named(matches.scores(images))
    if one is not None:
        value = one.scores(images).map_50
        named[ABNORMAL_AP] = round(value, 6) if value == value else None
    return named


Share = Annotated[float, Field(ge=0, le=1)]


class Scored(BaseModel):
    """The result of `scored`, as it is written."""

    model_config = ConfigDict(allow_inf_nan=False)
    scores: dict[str, Share | None]
    drawn: dict[str, list[Share | None]]
    failures: failures.Failures

    def of(self, categories: Sequence[str], draws: int) -> bool:
        """Return whether it has this number of resamples (`draws`) and is of a detector of these `categories`."""
        confusion = self.failures.confusion
        return (
            self.scores.keys() == self.drawn.keys()
            and self.scores.keys() - {ABNORMAL_AP} == {*MEASURES, *categories}  # earlier results are without
            and all(len(values) == draws for values in self.drawn.values())
            and confusion.keys() == {*categories, failures.NOTHING}
            and all(row.keys() == {*categories, failures.MISSED} for row in confusion.values())
        )


def read(file: Path, kind: type[Scored], categories: Sequence[str], draws: int, made: Path) -> dict[str, Any]:
    """Return the values of `kind` in `file`, see `Scored.of`.

    Raises UserError if it contains something else; the message says that deleting `made` creates them again.
    """
    todo = f"damaged, not the scores of a detector; delete {made}, the same command creates it again"
    found = plain.typed(kind, file, todo, plain.MAX_BYTES)
    if not found.of(categories, draws):
        raise UserError(f"{file}: {todo}")
    return found.model_dump()


def _named(scores: Scores) -> dict[str, float | None]:
    """Return the scores by the names of the tables, None if the images have no such cell."""
    values = dict(zip(MEASURES, (scores.map, scores.map_50, scores.map_75), strict=True)) | scores.per_category
    return {name: round(value, 6) if value == value else None for name, value in values.items()}


def measure(detector: model.Detector, samples: Sequence[Sample], draws: int = 0, most: int = MOST) -> Scores:
    """Return the COCO scores of `detector` on `samples`, with intervals from `draws` bootstrap resamples of the images.

    `most` detections of an image count, best first.
    """
    found = []
    with meter("detecting", len(samples)) as bar:
        for sample in samples:
            found.append(detector.find(sample.pixels, threshold=LEAST))
            bar.advance()
    return evaluate([s.cells for s in samples], found, detector.config.categories, most=most, draws=draws)


def validation(detector: model.Detector, samples: Sequence[Sample]) -> dict[str, float]:
    """Return mAP, mAP.5, mAP.75, recall and AP by category of `detector` on `samples`, as `train_detector` asks."""
    scores = measure(detector, samples)
    values = {"map": scores.map, "map_50": scores.map_50, "map_75": scores.map_75, "recall": scores.recall}
    return {**values, **scores.per_category}
