"""Editing the cells of several images in full batches, with further attempts at cells that the gate rejects."""

from collections import deque
from dataclasses import dataclass, field, replace

from ..annotations import Cell
from ..data.image_files import Pixels
from . import patch
from .edit import CellEditor, PlannedEdit
from .quality.gate import Gate, Verdict, retry_seed
from .settings import EditSettings


@dataclass
class Spot:
    """A cell to be edited.

    Attributes:
        cell: as the detector, or a plan, gave it; its box is annotated if the edit is kept.
        edit: what is planned for it, with the seed of the first attempt.
        verdicts: of the attempts so far; empty where there is no gate.
        painted: the decoded patch that is kept; None until there is one.
    """

    cell: Cell
    edit: PlannedEdit
    verdicts: list[tuple[int, Verdict]] = field(default_factory=list)
    painted: Pixels | None = None

    @property
    def attempt(self) -> PlannedEdit:
        """The edit with the seed of the next attempt."""
        return replace(self.edit, seed=retry_seed(self.edit.seed, len(self.verdicts)))


@dataclass
class Canvas:
    """An image whose cells are being edited.

    Attributes:
        name: tells it from the others of a run.
        normal: (height, width, 3) unedited image.
        spots: its cells, in order.
        spare: replacement cells for those that stay normal; the first is used next.
        candidates: number of detected cells that could have been chosen; None if a plan chose.
        waiting: number of its cells that are not finished.
        replaced: number of `rejected` cells for which a replacement was sought.
    """

    name: str
    normal: Pixels
    spots: list[Spot]
    spare: list[Spot] = field(default_factory=list)
    candidates: int | None = None
    waiting: int = 0
    replaced: int = 0

    @property
    def kept(self) -> list[Spot]:
        """The cells whose edit is kept."""
        return [spot for spot in self.spots if spot.painted is not None]

    @property
    def rejected(self) -> list[Spot]:
        """The cells that stay normal because no attempt passed the gate."""
        return [spot for spot in self.spots if spot.painted is None]

    def stand_ins(self) -> list[Spot]:
        """Take a spare cell for each one that was rejected since the last call, as long as there are any.

        Called only when all cells are finished, so that the replacements do not depend on the order in which cells
        finish.
        """
        missing = self.rejected[self.replaced :]
        taken, self.spare = self.spare[: len(missing)], self.spare[len(missing) :]
        for spot, stand_in in zip(missing, taken, strict=False):
            stand_in.edit = replace(stand_in.edit, category=spot.edit.category)
        self.spots += taken
        self.replaced += len(missing)
        self.waiting = len(taken)
        return taken

    def compose(self, settings: EditSettings) -> Pixels:
        """Return the finished image."""
        edits = [(spot.edit.box, spot.painted) for spot in self.spots if spot.painted is not None]
        return patch.compose(self.normal, edits, settings)


class EditQueue:
    """Collects the cells of images until a batch is full; an image is finished when all its cells are.

    The result for a cell depends only on its image, box, category and seed (see `CellEditor.paint`), not on the other
    images in the queue.
    """

    def __init__(self, editor: CellEditor, settings: EditSettings, gate: Gate | None = None) -> None:
        """Edit with `editor`; without `gate` every edit is kept."""
        self.editor, self.settings, self.gate = editor, settings, gate
        self.waiting: deque[tuple[Canvas, Spot]] = deque()

    def add(self, canvas: Canvas) -> list[Canvas]:
        """Add `canvas`; return the images that are finished now."""
        canvas.waiting = len(canvas.spots)
        self.waiting.extend((canvas, spot) for spot in canvas.spots)
        finished = [] if canvas.spots else [canvas]
        while len(self.waiting) >= self.settings.together:
            finished += self._batch()
        return finished

    def flush(self) -> list[Canvas]:
        """Edit all waiting cells; return the images that are finished now."""
        finished: list[Canvas] = []
        while self.waiting:
            finished += self._batch()
        return finished

    def _batch(self) -> list[Canvas]:
        chosen = [self.waiting.popleft() for _ in range(min(self.settings.together, len(self.waiting)))]
        painted = self.editor.paint([(canvas.normal, spot.attempt) for canvas, spot in chosen], self.settings)
        again: list[tuple[Canvas, Spot]] = []
        finished = []
        for (canvas, spot), decoded in zip(chosen, painted, strict=True):
            if not self._settle(canvas, spot, decoded):
                again.append((canvas, spot))
                continue
            canvas.waiting -= 1
            if not canvas.waiting:
                stand_ins = canvas.stand_ins()
                again += [(canvas, spot) for spot in stand_ins]
                finished += [] if stand_ins else [canvas]
        self.waiting.extendleft(reversed(again))
        return finished

    def _settle(self, canvas: Canvas, spot: Spot, decoded: Pixels) -> bool:
        """Accept or reject the edit; return whether the cell is finished, that is, accepted or out of attempts."""
        if self.gate is None:
            spot.painted = decoded
            return True
        alone = patch.compose(canvas.normal, [(spot.edit.box, decoded)], self.settings)
        height, width = alone.shape[:2]
        changed = patch.covered(spot.edit.box, width, height, self.settings)
        verdict = self.gate.verdict(canvas.normal, alone, spot.cell.box, changed, spot.edit.category)
        spot.verdicts.append((spot.attempt.seed, verdict))
        if not verdict.reasons:
            spot.painted = decoded
        return spot.painted is not None or len(spot.verdicts) >= self.gate.settings.tries
