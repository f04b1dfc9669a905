"""Inspecting data: the cells of a set with their measurements, nearest training cells, training runs."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..annotations import Cell, DataSet
from ..cell.quality import morphology
from ..classifier.crop import square
from ..data import file_names
from ..data.image_files import Pixels
from ..data.read import guess, read
from ..errors import UserError
from ..evaluate.networks import features
from ..io import records
from ..provenance import said
from .models import Models
from .queue import Task

SIDE = 96
"""Of the squares that are shown and compared, pixels at least."""
NEAREST = 6
MOST_TRAINING = 20_000
"""Training cells that are compared."""
POINTS = 600
"""Of a curve that is drawn."""
NETWORK = "efficientnet-lite0"
"""In whose features nearest cells are sought: it works without a model hub."""


@dataclass(frozen=True)
class Training:
    """Features of the cells of a training set, and where each is: image and number."""

    features: NDArray[np.float64]
    where: list[tuple[str, int]]


class Browsing:
    """The inspected data sets; slow results are cached."""

    def __init__(self, models: Models) -> None:
        """Use the images that `models` keeps."""
        self.models = models
        self._sets: dict[Path, tuple[int, DataSet]] = {}
        self._diameters: dict[tuple[Path, str, int], float] = {}
        self._training: dict[Path, Training] = {}

    def data(self, root: Path) -> DataSet:
        """Return the data set at `root`, read again when its annotations have changed."""
        kind = guess(root)
        file = root / {"coco": "annotations.json", "yolo": "data.yaml", "voc": "Annotations"}.get(kind, "")
        stamp = file.stat().st_mtime_ns
        known = self._sets.get(root)
        if known is None or known[0] != stamp:
            self._sets[root] = (stamp, read(root, kind))
        return self._sets[root][1]

    def cells(self, root: Path) -> dict[str, Any]:
        """Return images and cells of the set, each cell with its class, the gate's scores, and its nucleus if known."""
        data, recorded = self.data(root), said(root)
        listed = []
        for image in data.images:
            scores = _scores(recorded.get(image.file_name, {}))
            for number, cell in enumerate(image.cells):
                listed.append({
                    "image": image.file_name, "number": number, "category": cell.category, "box": cell.box,
                    "synthetic": bool(cell.extra.get("synthetic")), "score": cell.score,
                    "gate": scores.get(_rounded(cell.box), {}),
                    "nucleus": self._diameters.get((root, image.file_name, number)),
                })  # fmt: skip
        images = [{"name": one.file_name, "width": one.width, "height": one.height} for one in data.images]
        return {"images": images, "cells": listed, "categories": data.categories,
                "synthetic": bool(data.info.get("synthetic"))}  # fmt: skip

    def crop(self, root: Path, image: str, number: int) -> tuple[Pixels, Cell]:
        """Return the square around a cell, and the cell; raise UserError if there is none."""
        cell = self._cell(root, image, number)
        return square(self._pixels(root, image), cell.box, 1.5, SIDE), cell

    def measure(self, root: Path, task: Task) -> dict[str, Any]:
        """Measure the nucleus of each cell of the set; None if none is found."""
        data = self.data(root)
        for image in data.images:
            task.check()
            pixels = self._pixels(root, image.file_name)
            for number, cell in enumerate(image.cells):
                found = morphology.measure(*_window(pixels, cell))
                self._diameters[root, image.file_name, number] = round(found.diameter, 2) if found else 0.0
        return {"measured": sum(len(image.cells) for image in data.images)}

    def nearest(self, root: Path, image: str, number: int, training: Path, task: Task) -> list[dict[str, Any]]:
        """Return the nearest cells of the set `training` to a cell, by the cosine of EfficientNet-Lite0's features."""
        extractor = features.load(NETWORK)
        if training not in self._training:
            where: list[tuple[str, int]] = []
            rows: list[NDArray[np.float32]] = []
            for one in self.data(training).images:
                task.check()
                for index in range(len(one.cells)):
                    if len(where) < MOST_TRAINING:
                        where.append((one.file_name, index))
                        rows.append(extractor([self.crop(training, one.file_name, index)[0]])[0])
            if not rows:
                raise UserError(f"{training.name}: no cell to compare with")
            self._training[training] = Training(_unit(np.stack(rows)), where)
        known = self._training[training]
        likeness = known.features @ _unit(extractor([self.crop(root, image, number)[0]]))[0]
        best = np.argsort(-likeness, kind="stable")[:NEAREST]
        return [{"image": known.where[i][0], "number": known.where[i][1], "likeness": round(float(likeness[i]), 3),
                 "category": self._cell(training, *known.where[i]).category} for i in best]  # fmt: skip

    def _cell(self, root: Path, image: str, number: int) -> Cell:
        for one in self.data(root).images:
            if one.file_name == image and 0 <= number < len(one.cells):
                return one.cells[number]
        raise UserError(f"{image[:80]}: no cell number {number}")

    def _pixels(self, root: Path, image: str) -> Pixels:
        return self.models.pixels(file_names.inside(self.data(root).folder, image), 1.0)


def run(folder: Path) -> dict[str, Any]:
    """Return curves and previews of the training run in `folder`."""
    curves: dict[str, list[tuple[float, float]]] = {}
    for entry in records.with_number(folder / records.STATS, "step"):
        for name, value in entry.items():
            if name != "step" and isinstance(value, int | float) and np.isfinite(value):
                curves.setdefault(name, []).append((entry["step"], value))
    previews = folder / "previews"
    images = sorted(path.name for path in previews.iterdir() if path.suffix == ".png") if previews.is_dir() else []
    return {"curves": {name: _thinned(points) for name, points in curves.items()}, "previews": images}


def _thinned(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    step = max(1, -(-len(points) // POINTS))
    return [*points[::step], *(points[-1:] if (len(points) - 1) % step else [])]


def _scores(record: dict[str, Any]) -> dict[tuple[float, ...], dict[str, float]]:
    """Return what the gate found of each kept cell of a record of provenance, by the cell's box."""
    found = {}
    for cell in record.get("cells", []):
        attempts = cell.get("attempts") or [{}]
        if isinstance(cell.get("bbox_xyxy"), list) and isinstance(attempts[-1], dict):
            found[_rounded(cell["bbox_xyxy"])] = attempts[-1].get("scores", {}) | {"seam": cell.get("seam")}
    return found


def _rounded(box: Sequence[float]) -> tuple[float, ...]:
    return tuple(round(float(value), 2) for value in box)


def _window(pixels: Pixels, cell: Cell) -> tuple[Pixels, tuple[float, float, float, float]]:
    """Return a window of twice the box around a cell, inside the image, and the box in it."""
    (x, y), (width, height) = cell.centre, cell.size
    left, top = max(0, round(x - width)), max(0, round(y - height))
    window = pixels[top : round(y + height), left : round(x + width)]
    box = cell.box
    return window, (box[0] - left, box[1] - top, box[2] - left, box[3] - top)


def _unit(rows: NDArray[Any]) -> NDArray[np.float64]:
    scaled = rows.astype(np.float64)
    return np.asarray(scaled / np.maximum(np.linalg.norm(scaled, axis=1, keepdims=True), 1e-12))
