"""COCO evaluation of detections: mAP, mAP.5, mAP.75 and AP per category, by pycocotools."""

import contextlib
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from ...annotations import Cell
from ..statistics import middle, resamples


@dataclass(frozen=True)
class Scores:
    """COCO averages in 0..1; NaN where the truth holds no such cell.

    Attributes:
        map: mean over categories and IoU thresholds 0.50 to 0.95, the paper's mAP.
        map_50: at IoU 0.5.
        map_75: at IoU 0.75.
        recall: average recall.
        per_category: AP of each category, mean over those thresholds.
        intervals: 95 % of `map` and of each category under resampling whole images, where that was asked for.
    """

    map: float
    map_50: float
    map_75: float
    recall: float
    per_category: dict[str, float]
    intervals: dict[str, tuple[float, float]] = field(default_factory=dict)


class Matches:
    """Detections matched with the truth, so that any resample of images can be scored without matching again."""

    def __init__(
        self,
        truth: Sequence[Sequence[Cell]],
        found: Sequence[Sequence[Cell]],
        categories: Sequence[str],
        most: int = 100,
    ) -> None:
        """Match `found` (with scores) with `truth`, image by image, by COCO's rules.

        Args:
            truth: the annotated cells of each image.
            found: the detected cells of each, with scores.
            categories: those that count.
            most: detections of an image that count, best first.
        """
        self.categories, self.images = tuple(categories), len(truth)
        ids = {name: index for index, name in enumerate(categories, 1)}
        coco = COCO()
        coco.dataset = {
            "info": {},
            "images": [{"id": index} for index in range(1, len(truth) + 1)],
            "categories": [{"id": value, "name": name} for name, value in ids.items()],
            "annotations": _annotations(truth, ids),
        }
        with contextlib.redirect_stdout(io.StringIO()):
            coco.createIndex()
            results = COCO()
            results.dataset = {**coco.dataset, "annotations": _annotations(found, ids)}
            results.createIndex()
            self._evaluation = COCOeval(coco, results, "bbox")
            self._evaluation.params.maxDets = [most]
            self._evaluation.params.areaRng = self._evaluation.params.areaRng[:1]
            self._evaluation.params.areaRngLbl = self._evaluation.params.areaRngLbl[:1]
            self._evaluation.evaluate()
        self._matched = self._evaluation.evalImgs

    def scores(self, chosen: Sequence[int] | NDArray[np.int64] | None = None) -> Scores:
        """Return the COCO scores of the images `chosen` by number, with repetition as they come; none: of all."""
        if chosen is not None:
            starts = range(0, len(self._matched), self.images)
            self._evaluation.evalImgs = [self._matched[start + int(index)] for start in starts for index in chosen]
            self._evaluation._paramsEval.imgIds = list(range(1, len(chosen) + 1))
        else:
            self._evaluation.evalImgs = self._matched
            self._evaluation._paramsEval.imgIds = list(range(1, self.images + 1))
        self._evaluation.params.imgIds = self._evaluation._paramsEval.imgIds
        with contextlib.redirect_stdout(io.StringIO()):
            self._evaluation.accumulate()
        precision = self._evaluation.eval["precision"][:, :, :, 0, 0]
        return Scores(
            map=_mean(precision),
            map_50=_mean(precision[0]),
            map_75=_mean(precision[5]),
            recall=_mean(self._evaluation.eval["recall"][:, :, 0, 0]),
            per_category=_by_category(precision, self.categories),
        )


def evaluate(
    truth: Sequence[Sequence[Cell]],
    found: Sequence[Sequence[Cell]],
    categories: Sequence[str],
    most: int = 100,
    draws: int = 0,
    seed: int = 0,
) -> Scores:
    """Return the COCO scores of `found` against `truth`, image by image, as `Matches` takes them.

    Args:
        truth: the annotated cells of each image.
        found: the detected cells of each, with scores.
        categories: those that count.
        most: detections of an image that count, best first.
        draws: how often images are resampled with replacement for the intervals; 0: none.
        seed: of the resampling.
    """
    matches = Matches(truth, found, categories, most)
    scores = matches.scores()
    return replace(scores, intervals=_intervals(matches, draws, seed)) if draws and len(truth) > 1 else scores


def _intervals(matches: Matches, draws: int, seed: int) -> dict[str, tuple[float, float]]:
    """Return the middle 95 % of `map` and each category's AP when the evaluated images are resampled with replacement.

    The matches of each image stay; only their accumulation changes. Resamples without cells of a category are left out
    for it; a category without any cell has no interval.
    """
    rows = [matches.scores(chosen) for (chosen,) in resamples([range(matches.images)], draws, seed)]
    drawn = {"map": [row.map for row in rows]} | {c: [row.per_category[c] for row in rows] for c in matches.categories}
    known = {name: [value for value in values if not math.isnan(value)] for name, values in drawn.items()}
    limits = {name: middle(values) for name, values in known.items() if values}
    return {name: (float(low), float(high)) for name, (low, high) in limits.items()}


def _by_category(precision: NDArray[np.float64], categories: Sequence[str]) -> dict[str, float]:
    return {name: _mean(precision[:, :, index]) for index, name in enumerate(categories)}


def _annotations(images: Sequence[Sequence[Cell]], ids: dict[str, int]) -> list[dict[str, object]]:
    found: list[dict[str, object]] = []
    for image_id, cells in enumerate(images, 1):
        for cell in cells:
            if cell.category in ids:
                width, height = cell.size
                entry: dict[str, object] = {
                    "id": len(found) + 1, "image_id": image_id, "category_id": ids[cell.category],
                    "iscrowd": int(cell.crowd), "area": width * height,
                    "bbox": [cell.box[0], cell.box[1], width, height],
                }  # fmt: skip
                if cell.score is not None:
                    entry["score"] = cell.score
                found.append(entry)
    return found


def _mean(values: NDArray[np.float64]) -> float:
    valid = values[values > -1]
    return float(valid.mean()) if valid.size else math.nan
