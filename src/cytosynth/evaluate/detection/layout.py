"""Layout fidelity: does a detector that was trained on real images find the annotated cells of synthetic ones?

As in papers on layout-to-image synthesis: AP.5 of that detector on synthetic images with their boxes, by class,
compared with its AP.5 on real images. Much lower on synthetic ones: boxes without such a cell; higher: cells that are
easier to find than real ones.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from ...annotations import Cell
from ...bethesda import NILM, ONE_CLASS
from ...data.sources import Sample
from ...detection.external import Finder
from ...errors import UserError
from ...io.report import Report, Value
from ..statistics import Estimate, interval, resamples
from .average_precision import Matches
from .scoring import LEAST, MOST, most_confident, one_class

SIDES = ("synthetic", "real")


def layout(finder: Finder, sides: Mapping[str, Sequence[Sample]], draws: int, facts: Mapping[str, Any]) -> Report:
    """Return AP.5 of `finder` on the `synthetic` and on the `real` images of `sides`, by class and as one class.

    Args:
        finder: trained on real images, none of which is among those of `sides`.
        sides: the images with their boxes, by the names of `SIDES`.
        draws: bootstrap resamples of images for the 95 % intervals.
        facts: of the report.

    Raises UserError if the detector knows no abnormal category, or no image of a side has one that it knows.
    """
    classes = [name for name in finder.categories if name != NILM]
    if not classes:
        raise UserError(
            "this detector knows no abnormal category; give one of `train detector --set 'categories=[...]'`"
        )
    found = {name: _found(finder, samples) for name, samples in sides.items()}
    rows: list[tuple[Value, ...]] = []
    for name in [ONE_CLASS, *(one for one in classes if one != ONE_CLASS)]:
        row: list[Value] = [name]
        values = []
        for side in SIDES:
            truth = [_of(_judged(sample) if side == SIDES[0] else sample.cells, name) for sample in sides[side]]
            scored = [most_confident(cells) if name == ONE_CLASS else _of(cells, name) for cells in found[side]]
            free = [sum(not cell.crowd for cell in cells) for cells in truth]
            cells = sum(free)
            value = average_precision(truth, scored, name, draws) if cells else None
            values.append(value)
            row += [None if value is None else _points(value), cells, sum(map(bool, free))]
        both = [value.value for value in values if value is not None]
        row.append(round(both[0] / both[1], 3) if len(both) == 2 and both[1] > 0 else None)
        rows.append(tuple(row))
    if not rows[0][2] or not rows[0][5]:
        raise UserError("no abnormal cell on one side; synthetic images with boxes and real annotated ones are needed")
    columns = ("class", *(f"{side}: {what}" for side in SIDES for what in ("AP.5 x 100", "boxes", "images")),
               "synthetic / real")  # fmt: skip
    notes = (
        f"in brackets the 95 % interval from {draws} bootstrap resamples of images",
        f"{ONE_CLASS}: all cells that are not {NILM}, as one class",
        "a ratio near 1: boxes hold what a detector takes for such a cell; far below: label noise among synthetic "
        "boxes; far above: cells easier to find than real ones",
    )
    return Report(
        "Layout fidelity: a detector trained on real images, on synthetic ones",
        dict(facts),
        columns,
        tuple(rows),
        notes,
    )


def average_precision(
    truth: Sequence[Sequence[Cell]], found: Sequence[Sequence[Cell]], name: str, draws: int, seed: int = 0
) -> Estimate:
    """Return COCO's AP at IoU 0.5 of the class `name`, 0..1, with its interval under resampling of whole images."""
    matches = Matches(truth, found, (name,), MOST)
    drawn = [matches.scores(images).map_50 for (images,) in resamples([range(len(truth))], draws, seed)]
    return interval(matches.scores().map_50, drawn if len(truth) > 1 else [])


def _points(value: Estimate) -> str:
    """Return `value` in points of AP (x 100), as a cell of a table."""
    if value.low is None or value.high is None:
        return str(Estimate(100 * value.value))
    return str(Estimate(100 * value.value, 100 * value.low, 100 * value.high))


def _found(finder: Finder, samples: Sequence[Sample]) -> list[list[Cell]]:
    named = ((sample.name, sample.pixels) for sample in samples)
    return finder.find_all(named, len(samples), LEAST, "clean")


def _judged(sample: Sample) -> list[Cell]:
    """Return the cells of `sample`; real ones that were kept in an edited image as crowds, which are ignored."""
    return [
        replace(cell, extra=cell.extra | {"iscrowd": 1}) if cell.extra.get("synthetic") is False else cell
        for cell in sample.cells
    ]


def _of(cells: Sequence[Cell], name: str) -> list[Cell]:
    """Return the `cells` of the class `name`."""
    return one_class(cells) if name == ONE_CLASS else [cell for cell in cells if cell.category == name]
