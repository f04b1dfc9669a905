"""The current detector's uncertainty on synthetic cells: high where it misses or nearly misclassifies them."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, Field
from torchvision.ops import box_iou

from ...annotations import Cell
from ...data import image_files
from ...detection.external import Finder, OwnDetector
from ...evaluate.detection.scoring import LEAST
from ...io.records import append_line, typed
from .candidates import Candidate

TOGETHER = 16
"""Number of images whose uncertainty a kill may lose."""
IOU = 0.5
"""Overlap (IoU) from which a detection is assigned to an annotated cell."""


def of_cells(annotated: Sequence[Cell], found: Sequence[Cell], categories: Sequence[str]) -> list[float]:
    """Return the uncertainty of a detector on each `annotated` cell of `categories`, in 0..1.

    1 - max(right - wrong, 0), where `right` is the best score of the cell's category and `wrong` the best of any other
    among the detections that overlap it by `IOU` or more: the margin of active learning. A cell that is missed, or
    classified as another category, has 1. (Entropy is not used: the remaining scores of a cell are not a distribution;
    those of some detectors do not add up to 1.)
    """
    cells = [cell for cell in annotated if cell.category in categories]
    overlaps = box_iou(_boxes(cells), _boxes(found)) >= IOU
    unsure = []
    for cell, near in zip(cells, overlaps.tolist(), strict=True):
        right = wrong = 0.0
        for other, overlapping in zip(found, near, strict=True):
            if overlapping and other.category == cell.category:
                right = max(right, other.score or 0.0)
            elif overlapping:
                wrong = max(wrong, other.score or 0.0)
        unsure.append(1 - max(right - wrong, 0.0))
    return unsure


class Known(BaseModel, strict=True):
    """A stored line: the mean uncertainty on the cells of an image."""

    image: str
    uncertainty: float = Field(ge=0, le=1)


def measure(
    candidates: Sequence[Candidate], finder: Finder, categories: Sequence[str], path: Path
) -> NDArray[np.float64]:
    """Return the mean uncertainty of `finder` on the cells of each candidate; `path` stores them, one line each.

    Another program's detector gets all images in one call, since it starts, or is trained, anew at every call.
    """
    known = kept(path)
    missing = [one for one in candidates if one.key not in known]
    together = TOGETHER if isinstance(finder, OwnDetector) else max(len(missing), 1)
    for start in range(0, len(missing), together):
        part = missing[start : start + together]
        images = ((one.key, image_files.read(one.path)) for one in part)
        found = finder.find_all(images, len(part), LEAST, "clean")
        for one, cells in zip(part, found, strict=True):
            known[one.key] = round(float(np.mean(of_cells(one.image.cells, cells, categories))), 6)
            append_line(path, {"image": one.key, "uncertainty": known[one.key]})
    return np.array([known[one.key] for one in candidates])


def kept(path: Path) -> dict[str, float]:
    """Return the values stored at `path`; other lines are dropped."""
    return {one.image: one.uncertainty for one in typed(Known, path)}


def _boxes(cells: Sequence[Cell]) -> torch.Tensor:
    return torch.tensor([cell.box for cell in cells], dtype=torch.float64).reshape(-1, 4)
