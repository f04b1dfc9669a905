"""COCO evaluation of detections: mAP, mAP.5, mAP.75 and AP per category, by pycocotools."""

import contextlib
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from ..field import Cell


@dataclass(frozen=True)
class Scores:
    """COCO averages in 0..1; NaN where the truth holds no such cell.

    Attributes:
        map: mean over categories and IoU thresholds 0.50 to 0.95, the paper's mAP.
        map_50: at IoU 0.5.
        map_75: at IoU 0.75.
        recall: average recall.
        per_category: AP of each category, mean over those thresholds.
        intervals: 95 % of `map` and of each category under resampling of whole images, where that was asked for.
    """

    map: float
    map_50: float
    map_75: float
    recall: float
    per_category: dict[str, float]
    intervals: dict[str, tuple[float, float]] = field(default_factory=dict)


def evaluate(
    truth: Sequence[Sequence[Cell]],
    found: Sequence[Sequence[Cell]],
    categories: Sequence[str],
    most: int = 100,
    draws: int = 0,
    seed: int = 0,
) -> Scores:
    """Return the COCO scores of `found` against `truth`, image by image.

    Args:
        truth: the annotated cells of each image.
        found: the detected cells of each, with scores.
        categories: those that count.
        most: detections of an image that count, best first.
        draws: how often images are drawn with repetition for the intervals; 0: none.
        seed: of the drawing.
    """
    ids = {name: index for index, name in enumerate(categories, 1)}
    coco = COCO()
    coco.dataset = {
        "info": {},
        "images": [{"id": index} for index in range(1, len(truth) + 1)],
        "categories": [{"id": value, "name": name} for name, value in ids.items()],
        "annotations": _entries(truth, ids),
    }
    with contextlib.redirect_stdout(io.StringIO()):
        coco.createIndex()
        results = COCO()
        results.dataset = {**coco.dataset, "annotations": _entries(found, ids)}
        results.createIndex()
        judge = COCOeval(coco, results, "bbox")
        judge.params.maxDets = [1, 10, most]
        judge.evaluate()
        judge.accumulate()
    precision = judge.eval["precision"][:, :, :, 0, -1]
    recall = _mean(judge.eval["recall"][:, :, 0, -1])
    return Scores(
        map=_mean(precision),
        map_50=_mean(precision[0]),
        map_75=_mean(precision[5]),
        recall=recall,
        per_category=_by_category(precision, categories),
        intervals=_intervals(judge, categories, draws, seed) if draws and len(truth) > 1 else {},
    )


def _intervals(judge: COCOeval, categories: Sequence[str], draws: int, seed: int) -> dict[str, tuple[float, float]]:
    """Return the middle 95 % of `map` and each category's AP when the evaluated images are drawn with repetition.

    The matches of each image stay; only what is accumulated changes. A draw without cells of a category says nothing
    of it; a category without any has no interval.
    """
    matched, count = judge.evalImgs, len(judge.params.imgIds)
    judge.params.areaRng, judge.params.maxDets = judge.params.areaRng[:1], judge.params.maxDets[-1:]
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(draws):
        chosen = rng.integers(count, size=count)
        judge.evalImgs = [matched[start + index] for start in range(0, len(matched), count) for index in chosen]
        with contextlib.redirect_stdout(io.StringIO()):
            judge.accumulate()
        precision = judge.eval["precision"][:, :, :, 0, 0]
        rows.append({"map": _mean(precision), **_by_category(precision, categories)})
    judge.evalImgs = matched
    values = {name: np.array([row[name] for row in rows if not math.isnan(row[name])]) for name in rows[0]}
    limits = {name: np.percentile(drawn, (2.5, 97.5)) for name, drawn in values.items() if drawn.size}
    return {name: (float(low), float(high)) for name, (low, high) in limits.items()}


def _by_category(precision: NDArray[np.float64], categories: Sequence[str]) -> dict[str, float]:
    return {name: _mean(precision[:, :, index]) for index, name in enumerate(categories)}


def _entries(images: Sequence[Sequence[Cell]], ids: dict[str, int]) -> list[dict[str, object]]:
    entries: list[dict[str, object]] = []
    for image_id, cells in enumerate(images, 1):
        for cell in cells:
            if cell.category in ids:
                width, height = cell.size
                entry: dict[str, object] = {
                    "id": len(entries) + 1, "image_id": image_id, "category_id": ids[cell.category], "iscrowd": 0,
                    "bbox": [cell.box[0], cell.box[1], width, height], "area": width * height,
                }  # fmt: skip
                if cell.score is not None:
                    entry["score"] = cell.score
                entries.append(entry)
    return entries


def _mean(values: NDArray[np.float64]) -> float:
    valid = values[values > -1]
    return float(valid.mean()) if valid.size else math.nan
