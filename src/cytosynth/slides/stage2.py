"""Which cells of a slide are edited: detected ones, assigned by count, or those of a plan."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..annotations import Cell
from ..bethesda import NILM
from ..cell.edit import PlannedEdit
from ..data.image_files import Pixels
from ..detection.tiled_search import Search, find, most_certain
from ..errors import UsageError
from ..io.progress import console
from ..provenance import RECORDS
from ..synthesis import plan as plans
from ..synthesis.fitting import fit
from ..synthesis.pipeline import Pipeline
from .edits import SlideEditing, Wanted, dealt
from .mapped import MappedArray
from .settings import SlideSettings
from .work import Work

FOUND = "found.jsonl"
SLIDE = "slide.png"
"""The name of the single image in a plan."""


class _Pixels:
    """Pixels on disk as something that is searched."""

    def __init__(self, pixels: MappedArray) -> None:
        self.pixels = pixels

    @property
    def size(self) -> tuple[int, int]:
        """Width and height."""
        height, width = self.pixels.array.shape[:2]
        return width, height

    def read(self, x: int, y: int, width: int, height: int) -> Pixels:
        """Return the (height, width, 3) pixels of a region."""
        region = self.pixels.array[y : y + height, x : x + width].copy()
        self.pixels.release()
        return region


def edited(
    out: Path,
    work: Work,
    pixels: MappedArray,
    settings: SlideSettings,
    pipeline: Pipeline,
    plan: tuple[plans.Plan, Path] | None,
) -> list[dict[str, Any]]:
    """Edit cells of the slide `pixels` in place; return the result for each, kept or rejected, by number."""
    both = settings.pipeline
    height, width = pixels.array.shape[:2]
    wanted: list[Wanted]
    spare: list[Wanted] = []
    if plan:
        wanted = _planned(*plan, (width, height), both.cell.box_scale or 1.0)
    else:
        wanted, spare = _found(work, pixels, settings, pipeline)
    folder = work.folder / "edits"
    folder.mkdir(exist_ok=True)
    records_file = out / RECORDS
    editing = SlideEditing(pipeline.editor, pipeline.gate, both.cell, pixels.array, records_file, folder, work.pause)
    records = editing.run(wanted, spare)
    editing.put_in(records)
    pixels.release()
    _say(records, both.counts)
    return records


def _found(
    work: Work, pixels: MappedArray, settings: SlideSettings, pipeline: Pipeline
) -> tuple[list[Wanted], list[Wanted]]:
    """Find the normal cells of the slide; return those to edit and their replacements.

    A nucleus that is found more certainly as an abnormal cell is none of them.
    """
    both = settings.pipeline
    if pipeline.detector is None:
        raise ValueError("a slide without a plan needs a detector")
    field = _Pixels(pixels)
    search = Search(pipeline.detector, both.threshold, pipeline.detector.digest)
    found = most_certain(find(field, None, search, work.folder / FOUND, "finding cells"))
    cells = [cell for cell in found if cell.category == NILM]
    return dealt(
        [_inside(cell, *field.size) for cell in cells], field.size, both.cell, both.counts, both.choice, both.seed
    )


def _planned(plan: plans.Plan, path: Path, size: tuple[int, int], scale: float) -> list[Wanted]:
    """Return the cells of a `plan` for a slide, read from `path`; raise PlanProblem for one that does not fit."""
    if len(plan.images) != 1:
        raise plans.PlanProblem(f"{path}: has {len(plan.images)} images; a plan for a slide has one, {SLIDE}")
    fit(plan, path, {plan.images[0].file_name: size}, scale)
    return [
        Wanted(
            number,
            Cell(cell.box, NILM),
            PlannedEdit.around(cell.box, scale, size, cell.category, cell.seed, cell.strength),
        )
        for number, cell in enumerate(plan.images[0].cells)
    ]


def check_counts(settings: SlideSettings, plan: Path | None) -> None:
    """Raise UsageError if a plan and counts are both given."""
    if plan and settings.pipeline.counts:
        raise UsageError("--counts: the plan sets the category of each cell; give --counts or --plan, not both")


def _inside(cell: Cell, width: int, height: int) -> Cell:
    x0, y0, x1, y1 = cell.box
    return Cell((max(x0, 0.0), max(y0, 0.0), min(x1, float(width)), min(y1, float(height))), cell.category, cell.score)


def _say(records: list[dict[str, Any]], counts: Mapping[str, int]) -> None:
    """Print which counts were not met."""
    for name, asked in counts.items():
        made = sum(record["kept"] and record["category"] == name for record in records)
        if made < asked:
            console.print(f"counts: {made} of {asked} {name} made; for the others no cell was found or accepted")
