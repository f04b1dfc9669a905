"""Correcting a finished data set: cells accepted or rejected, boxes moved; written as a new data set."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from .. import boxes
from ..annotations import Cell, DataSet, Image
from ..data import convert
from ..data.formats import qupath
from ..data.read import guess
from ..errors import UserError
from ..io import atomic, lock, plain
from ..io.wording import amount
from ..provenance import NOTICE, RECORDS, problem, said
from ..synthesis import plan as plans
from ..synthesis.centre import boxes_shown

FILE = "corrections.json"
GEOJSON = "geojson"
FORMATS = ("coco", "yolo", "voc", GEOJSON)


class Decision(BaseModel):
    """What was decided of a cell: `number` in its image; another box or category where that was changed."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    image: str
    number: int = Field(ge=0)
    state: Literal["accepted", "rejected", "open"] = "open"
    box: tuple[float, float, float, float] | None = None
    category: str | None = None


class Corrections(BaseModel):
    """All decisions on a data set, named as the page names it, whose annotations had that digest."""

    model_config = ConfigDict(extra="forbid")
    digest: str
    decisions: list[Decision] = []


@dataclass(frozen=True)
class Planned:
    """The plan of a corrected data set, and the rejected cells that could not be found in the plan before.

    Attributes:
        plan: without the rejected cells.
        unknown: how many were moved or added since the data set was made.
        unread: of each image whose record cannot be read, how many, and what is wrong with the record.
    """

    plan: plans.Plan
    unknown: int
    unread: Mapping[str, tuple[int, str]]


def read(file: Path, digest: str) -> Corrections:
    """Return the corrections in `file`, none if there is none; raise UserError if the set has changed since."""
    if not file.exists():
        return Corrections(digest=digest)
    try:
        found = Corrections.model_validate(plain.load(file))
    except ValidationError as error:
        raise UserError(f"{file.name}: not readable ({error.error_count()} problems); delete it") from None
    if found.digest != digest:
        raise UserError(f"{file.name}: the data set has changed since it was corrected; delete the file to start over")
    return found


def decide(corrections: Corrections, data: DataSet, decision: Decision) -> None:
    """Add `decision`; raise UserError if there is no such cell or category, or the box is not in the image."""
    image, _ = _cell(data, decision)
    if decision.category is not None and decision.category not in data.categories:
        raise UserError(f"unknown category {decision.category[:40]!r}; choose one of {', '.join(data.categories)}")
    if decision.box is not None:
        x0, y0, x1, y1 = decision.box
        if not (0 <= x0 < x1 <= image.width and 0 <= y0 < y1 <= image.height):
            raise UserError("the box is not inside the image")
    key = (decision.image, decision.number)
    corrections.decisions = [one for one in corrections.decisions if (one.image, one.number) != key] + [decision]


def corrected(data: DataSet, corrections: Corrections) -> DataSet:
    """Return `data` with the decisions carried out: rejected cells are left out, boxes and categories changed."""
    by_cell = {(one.image, one.number): one for one in corrections.decisions}
    images = []
    for image in data.images:
        cells = []
        for number, cell in enumerate(image.cells):
            decision = by_cell.get((image.file_name, number))
            if decision is None:
                cells.append(cell)
            elif decision.state != "rejected":
                cells.append(_changed(cell, decision))
        images.append(replace(image, cells=tuple(cells)))
    return replace(data, images=tuple(images))


def export(data: DataSet, source: Path, corrections: Corrections, out: Path, target: str) -> dict[str, Any]:
    """Write the corrected `data`, read from `source`, to the new folder `out` in the format `target`.

    It also has `corrections.json`, provenance and, if the set has a plan, the plan without the rejected cells: images
    made again from it do not have them, while they can still be seen in the copies.
    """
    if target not in FORMATS:
        raise UserError(f"unknown format {target[:40]!r}; choose one of {', '.join(FORMATS)}")
    done = corrected(data, corrections)
    planned = _planned(source, corrections, data)
    states = [one.state for one in corrections.decisions]
    with lock.new(out):
        if target == GEOJSON:
            with atomic.folder(out, fresh=True) as part:
                for image in done.images:
                    mark = NOTICE if image.extra.get("synthetic") else ""
                    qupath.write(image.cells, image.file_name, part / f"{image.file_name}.geojson", mark)
        else:
            convert.write(done, out, guess(source), target)
        _beside(source, corrections, out, data, states, planned)
    return {"images": len(done.images), "cells": sum(len(image.cells) for image in done.images),
            "rejected": states.count("rejected"), "accepted": states.count("accepted")}  # fmt: skip


def _beside(
    source: Path,
    corrections: Corrections,
    out: Path,
    data: DataSet,
    states: Sequence[str],
    planned: Planned | None,
) -> None:
    atomic.write_json(out / FILE, corrections.model_dump(mode="json"))
    if (source / RECORDS).is_file():
        atomic.write_bytes(out / RECORDS, (source / RECORDS).read_bytes())
    again = ""
    unread: list[str] = []
    if planned and planned.plan.images:
        atomic.write_json(out / plans.FILE, planned.plan.model_dump(mode="json", exclude_none=True))
        again = f" `{plans.FILE}` makes the images again without them, with the boxes and categories as they were."
        if planned.unknown:
            again += f" {amount(planned.unknown, 'rejected cell')}, moved or added before, could not be found in it."
        unread = [
            f"- `{RECORDS}`: {name}: {reason}; {amount(count, 'rejected cell')} of this image could not be found in "
            f"`{plans.FILE}`"
            for name, (count, reason) in planned.unread.items()
        ]
    changed = sum(one.box is not None or one.category is not None for one in corrections.decisions)
    lines = [
        f"# Corrected copy of {source.name}", "", *([f"**{NOTICE}**", ""] if data.info.get("synthetic") else []),
        f"{amount(states.count('accepted'), 'cell')} accepted, {states.count('rejected')} rejected, {changed} changed; "
        f"the others were not reviewed. The decisions are in `{FILE}`.", "",
        f"Rejected cells are not annotated but can still be seen in these images.{again}", "",
        *([*unread, ""] if unread else []),
    ]  # fmt: skip
    atomic.write_text(out / "README.md", "\n".join(lines))


def _planned(source: Path, corrections: Corrections, data: DataSet) -> Planned | None:
    """Return the plan of the data set at `source` without the cells that were rejected; None if it has none.

    Images that have no edit left are not in it; rejected cells that were in the original are listed as left out.
    """
    if not (source / plans.FILE).is_file():
        return None
    plan, records = plans.read(source / plans.FILE, None), said(source)
    rejected: dict[str, list[Cell]] = {}
    for one in corrections.decisions:
        if one.state == "rejected":
            rejected.setdefault(one.image, []).append(_cell(data, one)[1])
    images, unknown, unread = [], 0, dict[str, tuple[int, str]]()
    for image in plan.images:
        edits, left = list(image.cells), list(image.left_out or ())
        record = records.get(image.file_name)
        reason = "no record of it" if record is None else problem(record)
        known = _known(image, None if reason else record)
        for cell in rejected.get(image.file_name, ()):
            same = [one for one in known if one[1].category == cell.category] or known
            index = boxes.nearest(cell.box, [shown for shown, _ in same])
            if index is None:
                if reason:
                    unread[image.file_name] = (unread.get(image.file_name, (0, ""))[0] + 1, reason)
                unknown += not reason
                continue
            known.remove(same[index])
            planned = same[index][1]
            if isinstance(planned, plans.PlannedCell):
                edits.remove(planned)
            else:
                left.append(planned)
        if edits:
            images.append(image.model_copy(update={"cells": edits, "left_out": left or None}))
    return Planned(plan.model_copy(update={"images": images}), unknown, unread)


def _known(image: plans.PlannedImage, record: dict[str, Any] | None) -> list[tuple[Sequence[float], plans.NamedBox]]:
    """Return each edit of the planned `image`, and each cell that its `record` kept, after its box in the data set."""
    if record is None:
        return [(cell.box, cell) for cell in image.cells]
    edits = {tuple(cell.bbox_xyxy): cell for cell in image.cells}
    shown, count = boxes_shown(record)[2], len(record["cells"])
    made = [(box, edits[key]) for box, cell in zip(shown, record["cells"], strict=False)
            if (key := tuple(cell["bbox_xyxy"])) in edits]  # fmt: skip
    kept = [plans.NamedBox(bbox_xyxy=cell["bbox_xyxy"], category=cell["category"]) for cell in record.get("kept", [])]
    return [*made, *zip(shown[count:], kept, strict=True)]


def _cell(data: DataSet, decision: Decision) -> tuple[Image, Cell]:
    for image in data.images:
        if image.file_name == decision.image and decision.number < len(image.cells):
            return image, image.cells[decision.number]
    raise UserError(f"{decision.image[:80]}: no cell number {decision.number}")


def _changed(cell: Cell, decision: Decision) -> Cell:
    extra = {key: value for key, value in cell.extra.items()
             if decision.box is None or key not in ("area", "segmentation", "nucleus")}  # fmt: skip
    return replace(cell, box=decision.box or cell.box, category=decision.category or cell.category, extra=extra)
