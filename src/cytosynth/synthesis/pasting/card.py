"""The data card of a set of pasted cells, and what it lacks of the edited set that it is like."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from ...annotations import DataSet
from ...io import wording
from ...provenance import NOTICES, PASTED
from .exemplars import Exemplar
from .settings import PasteSettings


def missing(asked: Sequence[int], records: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return a line on images into which nothing was to be pasted, and one on cells that could not be.

    `asked` are the cells that were to be pasted into the image of each of the `records`.
    """
    lines, empty = [], list(asked).count(0)
    if empty:
        lines.append(
            f"{wording.amount(empty, 'image')} of {len(asked)} without a pasted cell: the edited images that they are "
            "like have no abnormal cell (edits into NILM have no counterpart)"
        )
    short = sum(asked) - sum(len(record["cells"]) for record in records)
    if short:
        lines.append(
            f"{wording.amount(short, 'cell')} of {sum(asked)} not pasted: no free place, or no cell of another image"
        )
    return lines


def text(data: DataSet, cells: Sequence[Exemplar], settings: PasteSettings, sections: Sequence[str]) -> str:
    """Return the data card as Markdown, with the lines of further `sections`."""
    shown = [cell for image in data.images for cell in image.cells]
    counts, pasted = Counter(cell.category for cell in shown), sum(bool(cell.extra["synthetic"]) for cell in shown)
    lines = [
        "# Cervical cytology with pasted cells", "", f"**{NOTICES[PASTED]}**", "",
        f"{wording.amount(len(data.images), 'image')} with {wording.amount(pasted, 'pasted cell')}, from "
        f"{wording.amount(len(cells), 'real cell')} of {len({cell.digest for cell in cells})} images. Boxes: "
        "`annotations.json` (COCO); which cell is from where: `provenance.jsonl`. Nothing is generated: it is what a "
        "generator has to beat. Test only on real images.", "",
        "| category | cells |", "|---|---|", *(f"| {name} | {counts.get(name, 0)} |" for name in data.categories), "",
        *sections,
        "## Settings", "", "```", *(f"{key}: {value}" for key, value in settings.model_dump().items()), "```", "",
    ]  # fmt: skip
    if data.licences:
        lines += ["## The images that were used", ""]
        lines += [f"- licence: {entry.get('name')} {entry.get('url', '')}".rstrip() for entry in data.licences]
    return "\n".join(lines).rstrip() + "\n"
