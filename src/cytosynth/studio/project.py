"""A project: images that are being edited, the edits of their cells, and the undo history. Stored on disk."""

import secrets
import threading
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from .. import boxes
from ..annotations import Box
from ..bethesda import ABNORMAL
from ..cell import patch
from ..cell.edit import PlannedEdit
from ..errors import UserError
from ..io import atomic, plain

STEPS = 500
"""Steps that can be undone."""
MOST_CELLS = 1000
MOST_IMAGES = 10_000


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Found(_Strict):
    """A cell that the detector found."""

    box: tuple[float, float, float, float]
    score: float


class ProjectImage(_Strict):
    """An image of a project: a file of its folder, or generated field number `index`; and the cells found on it."""

    name: str
    index: int | None = None
    cells: list[Found] | None = None


class Edit(_Strict):
    """An edit of a cell; `box` is annotated, the region around it repainted."""

    id: str
    image: str
    box: tuple[float, float, float, float]
    category: str
    seed: int = Field(ge=0, lt=2**63)
    strength: float | None = Field(default=None, gt=0, le=1)

    def planned(self, box_scale: float, size: tuple[int, int]) -> PlannedEdit:
        """Return the edit for the synthesizer, in an image of that (width, height)."""
        return PlannedEdit.around(self.box, box_scale, size, self.category, self.seed, self.strength)


class Project(_Strict):
    """One tab's work.

    Attributes:
        id: what the page calls it.
        kind: `own` images of a folder, `uploads`, `fields` of a slide, or `generated` ones.
        folder: of the images, as the page names it (see `places`); empty where the project has its own.
        images: in order.
        history: what all cells were to become, after each step.
        step: where in the history the project is.
    """

    id: str
    kind: Literal["own", "uploads", "fields", "generated"]
    folder: str = ""
    seed: int = 0
    images: list[ProjectImage] = []
    history: list[list[Edit]] = [[]]
    step: int = 0

    @property
    def edits(self) -> list[Edit]:
        """What the cells are to become now."""
        return self.history[self.step]

    def image(self, name: str) -> ProjectImage:
        """Return the image of that name; raise UserError if there is none."""
        for image in self.images:
            if image.name == name:
                return image
        raise UserError(f"{name[:80]!r}: no image of this project")

    def put(self, edit: Edit, box_scale: float, size: tuple[int, int], categories: Sequence[str] = ABNORMAL) -> Edit:
        """Add `edit`, or change the one of its id; return it as it is kept.

        Raises UserError for an unknown category, and for a box that leaves the image, is too large for a patch, or
        comes too near to another cell's: a plan of them could not be followed.
        """
        if edit.category not in categories:
            raise UserError(f"unknown category {edit.category[:40]!r}; choose one of {', '.join(categories)}")
        others = [one for one in self.edits if one.id != edit.id]
        if sum(one.image == edit.image for one in others) >= MOST_CELLS:
            raise UserError(f"{edit.image}: at most {MOST_CELLS} cells of an image can be edited")
        _check(edit.box, size)
        region = edit.planned(box_scale, size).box
        for other in others:
            if other.image == edit.image and (
                boxes.overlap(region, other.planned(box_scale, size).box) or boxes.overlap(edit.box, other.box)
            ):
                raise UserError(f"too close to a cell that is edited into {other.category}; move or delete one of them")
        self._step([edit if one.id == edit.id else one for one in self.edits], edit)
        return edit

    def delete(self, names: list[str]) -> None:
        """Delete the edits of those ids."""
        self._step([one for one in self.edits if one.id not in names])

    def undo(self) -> None:
        """Go one step back, where there is one."""
        self.step = max(0, self.step - 1)

    def redo(self) -> None:
        """Go one step forward again, where there is one."""
        self.step = min(len(self.history) - 1, self.step + 1)

    def _step(self, edits: list[Edit], new: Edit | None = None) -> None:
        if new and new.id not in {one.id for one in edits}:
            edits = [*edits, new]
        self.history = [*self.history[: self.step + 1], edits][-STEPS:]
        self.step = len(self.history) - 1


def first_seed(image: str, box: Box) -> int:
    """Return the seed with which a cell is first edited: another for each cell, the same each time."""
    return zlib.crc32(f"{image}|{'|'.join(f'{value:.1f}' for value in box)}".encode())


def _check(box: Box, size: tuple[int, int]) -> None:
    x0, y0, x1, y1 = box
    if not (0 <= x0 < x1 <= size[0] and 0 <= y0 < y1 <= size[1]):  # NaN fails too
        raise UserError(f"a box from ({x0:g}, {y0:g}) to ({x1:g}, {y1:g}) is not inside the image")
    if min(x1 - x0, y1 - y0) < 4:
        raise UserError("the box is smaller than 4 pixels")
    if max(x1 - x0, y1 - y0) > patch.MOST:
        raise UserError(f"the box is too large; at most {patch.MOST:g} pixels a side fit a patch")


class Projects:
    """All projects of a studio, each in a file, so that closing the page or the program loses none."""

    def __init__(self, folder: Path) -> None:
        """Keep them in `folder`."""
        self.folder = folder
        self.lock = threading.RLock()

    def new(self, kind: Literal["own", "uploads", "fields", "generated"], folder: str = "", seed: int = 0) -> Project:
        """Return a new project."""
        project = Project(id=secrets.token_hex(8), kind=kind, folder=folder, seed=seed)
        self.keep(project)
        return project

    def read(self, name: str) -> Project:
        """Return the project of that id; raise UserError if there is none."""
        try:
            return Project.model_validate(plain.from_json(plain.text(self._file(name), plain.MAX_BYTES)))
        except (OSError, ValueError, ValidationError):
            raise UserError(f"no project {name[:40]!r}") from None

    def keep(self, project: Project) -> None:
        """Write `project`."""
        atomic.write_text(self._file(project.id), project.model_dump_json())

    def forget(self, name: str) -> None:
        """Remove the project of that id."""
        self._file(name).unlink(missing_ok=True)

    def listed(self) -> list[Project]:
        """Return all projects that hold something, the last changed first."""
        files = sorted(self.folder.glob("*.json"), key=lambda path: path.stat().st_mtime, reverse=True)
        return [self.read(path.stem) for path in files if len(path.stem) == 16]

    def _file(self, name: str) -> Path:
        if len(name) != 16 or not set(name) <= set("0123456789abcdef"):
            raise UserError(f"no project {name[:40]!r}")
        return self.folder / f"{name}.json"
