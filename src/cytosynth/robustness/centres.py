"""Other centres: a detector that was trained on one centre, scored on fields of others, whose boxes follow other rules.

Cells are matched by their centres (`by_centre`), since one centre's squares around nuclei never overlap another's
outlines by half. If not all cells are annotated, other detections may be right: then only recall is reported.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from pydantic import Field

from ..annotations import Cell
from ..bethesda import NILM
from ..data import sources
from ..data.sources import Sample, Source
from ..detection.external import Finder
from ..errors import UserError
from ..evaluate.detection.recall import FreeResponse, by_centre
from ..evaluate.detection.scoring import LEAST
from ..evaluate.statistics import Estimate, interval, resamples
from ..io.report import Report, Value

ANY = "any abnormal"


class CentreData(Source):
    """Fields of one centre.

    Attributes:
        exhaustive: whether every abnormal cell is annotated.
        categories: that are scored by themselves; 'any abnormal' is always.
    """

    split: str = Field(default="all", description="part of split.json to use, or 'all'")
    exhaustive: bool = Field(default=True, description="whether every abnormal cell is annotated")


def compare(
    centres: Mapping[str, CentreData],
    detectors: Mapping[str, Sequence[Finder]],
    data_root: Path,
    false_positives: float = 1.0,
    threshold: float = 0.3,
    draws: int = 500,
) -> Report:
    """Return the recall of `detectors` on each of `centres`, with 95 % intervals over images.

    Where a centre is exhaustive at `false_positives` an image, else at score `threshold`.
    """
    rows: list[tuple[Value, ...]] = []
    for title, centre in centres.items():
        samples = annotated(centre, data_root)
        for name, finders in detectors.items():
            images = ((sample.name, sample.pixels) for sample in samples)
            found = finders[0].find_all(images, len(samples), LEAST, "clean")
            known = finders[0].categories
            rows += _scored(title, centre, name, samples, found, known, (false_positives, threshold), draws)
    columns = ("centre", "detector", "category", "images", "cells", "recall", "at", "detections an image")
    notes = (
        "a detection matches a cell when the centre of either box lies in the other; one detection per cell",
        f"at {false_positives:g} false positives an image where all abnormal cells are annotated, else at score "
        f"{threshold:g}; there a detection beside the annotated cells may be right and is not counted",
        f"95 % intervals from {draws} bootstrap resamples of the images",
    )
    facts = {name: f"{Path(one.root).name}, part {one.split}, scale {one.scale:g}" for name, one in centres.items()}
    return Report("Other centres", facts, columns, tuple(rows), notes)


def annotated(centre: CentreData, data_root: Path) -> list[Sample]:
    """Return the images of `centre` that are annotated cell by cell; raise UserError if there is none.

    An image that says `has_boxes: false` is labelled as a whole and left out.
    """
    root = data_root / centre.root
    images = sources.part(centre, data_root)
    without = {image.file_name for image in images if image.extra.get("has_boxes") is False}
    source = Source(root=centre.root, scale=centre.scale, split=centre.split)
    samples = [sample for sample in sources.load([source], data_root) if sample.name not in without]
    if not any(_abnormal(cell) for sample in samples for cell in sample.cells):
        raise UserError(f"{root}: no abnormal cell is annotated in part '{centre.split}'")
    return samples


def _scored(
    title: str, centre: CentreData, name: str, samples: Sequence[Sample], found: Sequence[Sequence[Cell]],
    known: Sequence[str], limits: tuple[float, float], draws: int,
) -> list[tuple[Value, ...]]:  # fmt: skip
    truth = [[replace(cell, category=ANY) for cell in sample.cells if _abnormal(cell)] for sample in samples]
    seen = [[replace(cell, category=ANY) for cell in cells if _abnormal(cell)] for cells in found]
    pairs = {ANY: (truth, seen)}
    there = dict.fromkeys(cell.category for sample in samples for cell in sample.cells if _abnormal(cell))
    for category in (name for name in there if name in known):
        own = [[cell for cell in sample.cells if cell.category == category] for sample in samples]
        pairs[category] = (own, [[cell for cell in cells if cell.category == category] for cells in found])
    rows: list[tuple[Value, ...]] = []
    for category, (wanted, got) in pairs.items():
        confident = [[cell for cell in cells if (cell.score or 0) >= limits[1]] for cells in got]
        response = FreeResponse(wanted, got if centre.exhaustive else confident, by_centre)
        allowed = limits[0] if centre.exhaustive else float("inf")
        estimate = _interval(response, allowed, draws)
        at = f"{limits[0]:g} false positives" if centre.exhaustive else f"score {limits[1]:g}"
        an_image = sum(map(len, confident)) / len(samples)
        rows.append((title, name, category, len(samples), int(response.cells.sum()), str(estimate), at, an_image))
    return rows


def _interval(response: FreeResponse, allowed: float, draws: int) -> Estimate:
    value, images = response.recall(allowed), len(response.cells)
    drawn = [response.recall(allowed, chosen) for (chosen,) in resamples([range(images)], draws)]
    return interval(value, drawn if images > 1 else [])


def _abnormal(cell: Cell) -> bool:
    return cell.category != NILM
