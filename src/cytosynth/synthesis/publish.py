"""The files written with the images of a finished run: annotations, plan, records, contact sheet, data card."""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image as PILImage

from .. import __version__
from ..annotations import Cell, DataSet, Image
from ..bethesda import ABNORMAL, NILM
from ..cell import training_images
from ..cell.quality import gate
from ..data import image_files
from ..data.formats import coco_parts
from ..data.image_files import Pixels
from ..data.preview import grid, with_boxes
from ..data.shard import Shard
from ..io import atomic, wording
from ..io.plain import portable
from ..io.progress import console
from ..provenance import png, write_records
from . import card, plan
from .centre import annotated, boxes_shown
from .settings import PipelineSettings

SHOWN = 12
"""Images on the contact sheet."""


@dataclass(frozen=True)
class About:
    """Facts on a run as a whole.

    Attributes:
        origin: 'synthetic', or 'real-to-synthetic' where the user's images were edited.
        models: name and weights' hash of each model by role, with a space between.
        categories: those of the synthesizer.
        licences: COCO's licence entries of the images that were edited.
        derived_from: COCO's info entry of those.
        problems: lines on what was skipped.
        missing: requested cells that no image had room for, by category. shard: which shard of the run it is, if the
        run is divided.
    """

    origin: str
    models: Mapping[str, str]
    categories: Sequence[str] = ABNORMAL
    licences: Sequence[dict[str, Any]] = ()
    derived_from: Mapping[str, Any] = field(default_factory=dict)
    problems: Sequence[str] = ()
    missing: Mapping[str, int] = field(default_factory=dict)
    shard: Shard | None = None


def publish(out: Path, records: Collection[dict[str, Any]], settings: PipelineSettings, about: About) -> DataSet:
    """Write all files of the data set `out` except the images and return it; print how many cells were accepted.

    `records` are iterated several times. With more than `coco_parts.LARGEST` images, annotations and records are in
    parts, there is no plan (the records contain the same), and the returned data set does not contain the images.
    """
    info = {
        "description": "Synthetic cervical cytology (not for diagnosis)",
        "software": f"CytoSynth {__version__}",
        "synthetic": True,
    }
    if about.problems:
        info["skipped"] = list(about.problems)
    if about.derived_from:
        info["derived_from"] = dict(about.derived_from)
    large = len(records) > coco_parts.LARGEST
    kept, edited = census(records)
    named = listed(about.categories, edited)
    categories = (*named, *sorted({name for name, _ in kept} - set(named)))
    data = DataSet(out / "images", (), categories, tuple(about.licences), info)
    write_records(out, records)
    coco_parts.write(data, map(image_of, records), len(records), out)
    if records and not large:
        plan.write(records, settings, about.models, out)
    if records:
        preview(replace(data, images=tuple(map(image_of, islice(records, SHOWN)))), out, about.origin)
    models = {role: " | ".join(name.rsplit(" ", 1)) for role, name in about.models.items()}
    uses_bundled = "bundled" in {name.rsplit(" ", 1)[0] for name in about.models.values()}
    sections = [
        *_part(about.shard),
        *kept_section(kept),
        *_outside(records),
        *_counts(records, settings, about.missing),
    ]
    sections += _acceptance(records, "gate" in about.models)
    shown = portable(settings.model_dump(mode="json", exclude={"style": {"fields"}}))
    said = card.text(data, models, shown, about.problems, uses_bundled, about.origin, sections, map(image_of, records))
    atomic.write_text(out / "README.md", said)
    return data if large else replace(data, images=tuple(map(image_of, records)))


def preview(data: DataSet, out: Path, origin: str) -> None:
    """Write `preview.png`: the first images with their boxes, marked by their `origin`."""
    shown = [with_boxes(image_files.read(data.path(p)), p.cells) for p in data.images[:SHOWN]]
    sheet = {"origin": origin, "contact_sheet_of": [p.file_name for p in data.images[:SHOWN]]}
    atomic.write_bytes(out / "preview.png", png(contact_sheet(shown), sheet))


def contact_sheet(shown: Sequence[Pixels], side: int = 640) -> Pixels:
    """Return images with their boxes, each shrunk to at most `side` pixels, in rows of up to four."""
    small = []
    for pixels in shown:
        image = PILImage.fromarray(pixels)
        image.thumbnail((side, side), PILImage.Resampling.LANCZOS)
        small.append(np.asarray(image))
    return grid(small, columns=min(4, len(small)))


def image_of(record: dict[str, Any]) -> Image:
    """Return the annotated image of a `record`."""
    width, height, boxes = boxes_shown(record)
    edited = len(record["cells"])
    cells = tuple(
        Cell((x0, y0, x1, y1), cell["category"], extra={"synthetic": True} if number < edited else _kept_flags(cell))
        for number, (cell, (x0, y0, x1, y1)) in enumerate(zip(annotated(record), boxes, strict=True))
    )
    extra = {"synthetic": True, **record.get("picture", {})}
    return Image(record["file_name"], width, height, cells, extra)


def _kept_flags(cell: dict[str, Any]) -> dict[str, Any]:
    """Return the further fields of a `cell` that was kept."""
    return {"synthetic": bool(cell.get("synthetic"))} | ({"iscrowd": 1} if cell.get("iscrowd") else {})


def _part(shard: Shard | None) -> list[str]:
    """Return the card's section on the run of which this is a `shard`."""
    if shard is None:
        return []
    return ["## Part of a run", "", f"Shard {shard}; merge the shards with `cytosynth merge`.", ""]


def listed(categories: Sequence[str], edited: Collection[str]) -> tuple[str, ...]:
    """Return the `categories` of a data set: NILM only if cells were `edited` into it."""
    return tuple(name for name in categories if name != NILM or NILM in edited)


def kept_of(records: Iterable[dict[str, Any]]) -> Counter[tuple[str, bool]]:
    """Return the number of cells kept in the images of `records`, by category and whether they were synthetic."""
    return census(records)[0]


def census(records: Iterable[dict[str, Any]]) -> tuple[Counter[tuple[str, bool]], set[str]]:
    """Return what `kept_of` does, and the categories of the edited cells, reading the `records` once."""
    kept, edited = Counter[tuple[str, bool]](), set[str]()
    for record in records:
        kept.update((cell["category"], bool(cell.get("synthetic"))) for cell in record.get("kept", []))
        edited.update(cell["category"] for cell in record["cells"])
    return kept, edited


def kept_section(kept: Counter[tuple[str, bool]]) -> list[str]:
    """Return the card's section on annotated cells that were `kept` (`kept_of`)."""
    if not kept:
        return []
    before = sum(number for (_, synthetic), number in kept.items() if synthetic)
    lines = [
        "## Cells that were kept", "",
        f"{wording.amount(kept.total() - before, 'annotated cell')} of these are real abnormal cells of the original "
        "images, with their boxes, scaled as the images are: `synthetic` is false in `annotations.json`.", "",
    ]  # fmt: skip
    if before:
        lines += [f"{wording.amount(before, 'cell')} of these were synthetic or pasted before, and are marked so.", ""]
    return lines


def _counts(records: Collection[dict[str, Any]], settings: PipelineSettings, missing: Mapping[str, int]) -> list[str]:
    """Return the card's section on requested and made cells; print what is missing."""
    if not settings.counts:
        return []
    made = Counter(cell["category"] for record in records for cell in record["cells"])
    lines = ["## Counts", "", "| category | requested | made | no cell to edit | rejected |", "|---|---|---|---|---|"]
    for name, asked in settings.counts.items():
        full = missing.get(name, 0)
        rejected = asked - made[name] - full
        lines.append(f"| {name} | {asked} | {made[name]} | {full} | {rejected} |")
        if made[name] < asked:
            console.print(
                f"counts: {made[name]} of {asked} {name} made ({full} without a cell to edit, {rejected} rejected)",
                soft_wrap=True,
            )
    return [*lines, ""]


def _outside(records: Collection[dict[str, Any]]) -> list[str]:
    """Return the card's section on images that differ from the training images, and print the same."""
    outside = [record["outside_training"] for record in records if record.get("outside_training")]
    if not outside:
        return []
    said = training_images.line(outside, len(records))
    console.print(said, markup=False, soft_wrap=True)
    return ["## Images that differ from the training images", "", f"{said}.", ""]


def _acceptance(records: Collection[dict[str, Any]], gated: bool) -> list[str]:
    """Return the card's section on the gate, and print the same."""
    if not gated:
        return []
    table = gate.table(gate.acceptance(records))
    for line in table:
        console.print(line, markup=False, soft_wrap=True)
    return [
        "## The quality gate", "",
        "Every edited cell was checked separately. `provenance.jsonl` says why each attempt failed; cells that were "
        "not accepted stayed normal and are not annotated.", "",
        *table, "",
    ]  # fmt: skip
