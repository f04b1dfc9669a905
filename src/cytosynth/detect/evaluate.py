"""COCO evaluation of detections: mAP, mAP.5, mAP.75 and AP per category, by pycocotools."""

import contextlib
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from ..field import Cell


@dataclass(frozen=True)
class Scores:
    """COCO averages in 0..1; NaN where the truth holds no such cell."""

    map: float
    map_50: float
    map_75: float
    recall: float
    per_category: dict[str, float]


def evaluate(
    truth: Sequence[Sequence[Cell]],
    found: Sequence[Sequence[Cell]],
    categories: Sequence[str],
    most: int = 100,
) -> Scores:
    """Return the COCO scores of `found` against `truth`, image by image, at most `most` detections an image."""
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
    return Scores(
        map=_mean(precision),
        map_50=_mean(precision[0]),
        map_75=_mean(precision[5]),
        recall=_mean(judge.eval["recall"][:, :, 0, -1]),
        per_category={name: _mean(precision[:, :, index]) for index, name in enumerate(categories)},
    )


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


def _mean(values: np.ndarray) -> float:
    valid = values[values > -1]
    return float(valid.mean()) if valid.size else math.nan
