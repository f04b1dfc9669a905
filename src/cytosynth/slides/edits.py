"""Stage 2 over a slide: cells are edited one region at a time, whatever the size of the slide."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..annotations import Box, Cell
from ..cell import choose, patch
from ..cell.edit import CellEditor, PlannedEdit
from ..cell.quality.gate import Gate
from ..cell.quality.seam import seam
from ..cell.queue import Canvas, EditQueue, Spot
from ..cell.settings import Choice, EditSettings
from ..data import image_files
from ..data.preview import save_png
from ..io import plain
from ..io.progress import meter
from ..io.records import append_line
from ..provenance import as_read
from ..synthesis.pipeline import said_of

AROUND = 2 * patch.SIZE
"""Side of the region of the slide that an edit sees, pixels: its patch lies well inside."""
SPARE = 3
"""Candidate cells per requested cell, as replacements for those that the gate rejects."""
STREAM = 6
"""Of the choice of cells in a run."""


@dataclass(frozen=True)
class Wanted:
    """A cell of the slide to be edited: its number in the run, the cell, its region and its new category."""

    number: int
    cell: Cell
    edit: PlannedEdit


def dealt(
    cells: Sequence[Cell],
    size: tuple[int, int],
    settings: EditSettings,
    counts: Mapping[str, int],
    choice: Choice,
    seed: int,
) -> tuple[list[Wanted], list[Wanted]]:
    """Return the cells to edit so that `counts` are met, and further ones as replacements for rejected ones.

    Args:
        cells: normal ones of the slide, best first.
        size: width and height of the slide.
        settings: of the edits, whose regions never overlap.
        counts: cells of each category; where there are too few cells, rare categories come first.
        choice: which cells first.
        seed: of the run.
    """
    rng = np.random.default_rng([seed, STREAM])
    names = [name for name in sorted(counts, key=lambda name: (counts[name], name)) for _ in range(counts[name])]
    most = len(names) * (1 + SPARE)
    found = choose.apart(choose.ranked(cells, choice, rng), size, settings, most)
    names = names[: len(found)]
    order = [names[index] for index in rng.permutation(len(names))]
    wanted = [
        Wanted(
            number, cell, PlannedEdit(region, order[number] if number < len(order) else "", int(rng.integers(2**32)))
        )
        for number, (cell, region) in enumerate(found)
    ]
    return wanted[: len(order)], wanted[len(order) :]


@dataclass
class SlideEditing:
    """Edits cells of a slide.

    Attributes:
        editor: the Abnormal Cell Synthesizer.
        gate: keeps or rejects; None keeps all.
        settings: of the edits.
        pixels: (height, width, 3) of the unedited slide; every patch is taken from it.
        records: file of the results, one line per cell, in the order in which they were finished. folder: holds the
        pixels of each kept region until all are put in. settled: is called after each batch of cells, when their
        results are on disk.
    """

    editor: CellEditor
    gate: Gate | None
    settings: EditSettings
    pixels: NDArray[np.uint8]
    records: Path
    folder: Path
    settled: Callable[[], None]

    def run(self, wanted: Sequence[Wanted], spare: Sequence[Wanted]) -> list[dict[str, Any]]:
        """Edit all `wanted` cells, and for each rejected one the next `spare` one; return the result for each.

        A cell that an earlier, stopped call has finished is not edited again.
        """
        done = self._before()
        left = list(spare)
        turn = list(wanted)
        order: list[int] = []
        with meter("editing cells", len(turn), sum(one.number in done for one in turn)) as bar:
            while turn:
                order += [one.number for one in turn]
                queue = EditQueue(self.editor, self.settings, self.gate)
                by_name = {str(one.number): one for one in turn}
                finished: list[Canvas] = []
                for one in turn:
                    if one.number not in done:
                        finished += queue.add(self._canvas(one))
                        finished = self._keep(finished, by_name, done, bar.advance)
                self._keep(finished + queue.flush(), by_name, done, bar.advance)
                rejected = [one for one in turn if not done[one.number]["kept"]]
                turn = [
                    replace(stand_in, edit=replace(stand_in.edit, category=one.edit.category))
                    for one, stand_in in zip(rejected, left, strict=False)
                ]
                left = left[len(turn) :]
        return [done[number] for number in sorted(order)]

    def put_in(self, records: Sequence[Mapping[str, Any]]) -> None:
        """Put the regions of all kept cells into the slide; repeating this changes nothing."""
        for record in records:
            if record["kept"]:
                x0, y0, x1, y1 = (int(value) for value in record["edited_xyxy"])
                self.pixels[y0:y1, x0:x1] = image_files.read(self._file(record["number"]))

    def _keep(
        self, finished: Sequence[Canvas], by_name: Mapping[str, Wanted], done: dict[int, dict[str, Any]], advance: Any
    ) -> list[Canvas]:
        """Write the regions and records of `finished` cells; return the empty list of those that are left."""
        for canvas in finished:
            one = by_name[canvas.name]
            record = self._record(one, canvas)
            append_line(self.records, record)
            done[one.number] = record
            advance(one.edit.category)
        if finished:
            self.settled()
        return []

    def _canvas(self, one: Wanted) -> Canvas:
        """Return the region of the slide around a cell, in which it is edited."""
        x, y, width, height = self._around(one.edit.box)
        normal = np.array(self.pixels[y : y + height, x : x + width])
        edit = replace(one.edit, box=patch.inner(one.edit.box, (x, y)))
        return Canvas(str(one.number), normal, [Spot(one.cell.moved(-x, -y), edit)])

    def _record(self, one: Wanted, canvas: Canvas) -> dict[str, Any]:
        """Return what became of a cell, in pixels of the slide; write its region where it is kept."""
        spot, box = canvas.spots[0], canvas.spots[0].edit.box
        record = said_of(spot, self.gate) | {
            "number": one.number, "kept": spot.painted is not None,
            "bbox_xyxy": list(one.cell.box), "edited_xyxy": list(one.edit.box),
        }  # fmt: skip
        if spot.painted is not None:
            edited = canvas.compose(self.settings)
            record["seam"] = round(seam(edited, canvas.normal, box), 4)
            x0, y0, x1, y1 = (int(value) for value in box)
            save_png(edited[y0:y1, x0:x1], self._file(one.number))
        return as_read(record)

    def _around(self, box: Box) -> tuple[int, int, int, int]:
        """Return x, y, width and height of what an edit of `box` sees, inside the slide."""
        height, width = self.pixels.shape[:2]
        across, down = min(AROUND, width), min(AROUND, height)
        x, y = patch.corner(box, width, height)
        margin = (AROUND - patch.SIZE) // 2
        return min(max(x - margin, 0), width - across), min(max(y - margin, 0), height - down), across, down

    def _file(self, number: int) -> Path:
        return self.folder / f"{number:07d}.png"

    def _before(self) -> dict[int, dict[str, Any]]:
        """Return what is recorded of cells by number; of a kept one its region must be there."""
        known: dict[int, dict[str, Any]] = {}
        for line in plain.lines(self.records):
            if isinstance(line, dict) and isinstance(line.get("number"), int) and isinstance(line.get("kept"), bool):
                known[line["number"]] = line
        return {number: line for number, line in known.items() if not line["kept"] or self._file(number).exists()}
