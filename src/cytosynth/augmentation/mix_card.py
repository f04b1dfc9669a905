"""The data card of a mix: the real and synthetic images and cells of each part, and limits."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from ..annotations import DataSet
from ..provenance import MIXED, NOTICES
from ..synthesis import card

KINDS = (False, True)
"""Of `synthetic`: real, synthetic."""


def silent(categories: Sequence[str], kept: bool) -> str:
    """Return the line on `categories` of normal cells, which synthetic images hardly annotate: are they `kept`?"""
    named = ", ".join(categories)
    if kept:
        return f"{named}: annotated on real images; on synthetic ones such cells have no box unless they were edited"
    return (
        f"{named}: boxes left out, because synthetic images have none on most such cells; keep them with --keep-normal"
    )


def text(data: DataSet, records: Sequence[Mapping[str, Any]], note: str = "") -> str:
    """Return the data card of the mix `data` as Markdown.

    Args:
        data: real and synthetic images.
        records: how each synthetic image was made.
        note: a line on normal cells.
    """
    part_of = {member: name for name, members in data.parts.items() for member in members}
    images: Counter[tuple[str, bool]] = Counter()
    cells: Counter[tuple[str, bool]] = Counter()
    named: Counter[tuple[str, bool]] = Counter()
    for image in data.images:
        key = (part_of[image.file_name], image.extra["synthetic"])
        images[key] += 1
        for cell in image.cells:
            made = key[1] and cell.extra.get("synthetic") is not False
            cells[key[0], made] += 1
            if key[0] == "train":
                named[cell.category, made] += 1
    models = card.models_of(records)
    lines = [
        "# Real and synthetic cervical cytology", "", f"**{NOTICES[MIXED]}**", "",
        "`synthetic` of each image entry is the flag (COCO; for YOLO and VOC it is in `dataset.json`); parts are in "
        "`split.json`. Synthetic images are only in `train`, and `provenance.jsonl` says how each was made. Test on "
        "real images only.", "",
        "| part | real images | synthetic images | real cells | synthetic cells |", "|---|---|---|---|---|",
        *(
            f"| {name} | {' | '.join(str(found[name, kind]) for found in (images, cells) for kind in KINDS)} |"
            for name in data.parts
        ),
        "", "| category, in `train` | real cells | synthetic cells |", "|---|---|---|",
        *(f"| {name} | {' | '.join(str(named[name, kind]) for kind in KINDS)} |" for name in data.categories), "",
    ]  # fmt: skip
    if note:
        lines += [f"{note}.", ""]
    if models:
        lines += ["## Models", "", "| role | model | weights |", "|---|---|---|"]
        lines += [*(f"| {role} | {name} |" for role, name in models.items()), ""]
    if data.licences or "derived_from" in data.info:
        lines += ["## The real images", ""]
        lines += [f"- licence: {entry.get('name')} {entry.get('url', '')}".rstrip() for entry in data.licences]
        lines += [f"- {key}: {value}" for key, value in data.info.get("derived_from", {}).items()]
        lines += [""]
    if any(model.startswith("bundled ") for model in models.values()):
        lines += ["## Sources and licences", "", card.ATTRIBUTION.rstrip(), ""]
    return "\n".join(lines)
