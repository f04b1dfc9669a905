"""The cells that a quiz may show: their places, and the square around each."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..annotations import Cell, DataSet, Image
from ..augmentation import inputs
from ..data import file_names, image_files, split
from ..data.image_files import Pixels
from ..data.read import read
from ..errors import UserError
from ..io.progress import meter
from ..io.wording import listed
from .settings import REAL, Origin, QuizSettings

POOL = 8
"""Candidates looked at for each cell that is shown, where cells are matched."""


@dataclass(frozen=True)
class Candidate:
    """A cell that may be shown.

    Attributes:
        image: file name in its set.
        path: of the image file.
        cell: at the working scale.
        origin: `real` or `synthetic`.
        pixels: (side, side, 3) square around it; None until it is cut.
    """

    image: str
    path: Path
    cell: Cell
    origin: Origin
    pixels: Pixels | None = None

    @property
    def votes(self) -> dict[str, int]:
        """The votes of the set's panel by category (`votes` of the annotation), if the set has them."""
        said = self.cell.extra.get("votes")
        counts = said.items() if isinstance(said, dict) else ()
        return {str(name): count for name, count in counts if type(count) is int and count > 0}


@dataclass(frozen=True)
class Source:
    """A data set of which cells are shown: its name, the digest of its annotations, its licences, its candidates."""

    origin: Origin
    name: str
    digest: str
    licences: tuple[dict[str, Any], ...]
    cells: tuple[Candidate, ...]


def source(root: Path, origin: Origin, settings: QuizSettings) -> Source:
    """Return the cells of the data set at `root` that lie far enough from the border to be shown whole.

    Raises UserError for a set of the other origin: one with synthetic cells given as real, or the reverse.
    """
    data = read(root)
    part, scale = ("all", settings.synthetic_scale)
    if origin == REAL:
        part, scale = settings.real_split, settings.real_scale
    cells = []
    for image in split.part(data, part, root):
        path = file_names.inside(data.folder, image.file_name)
        for cell in image.cells:
            made = bool(cell.extra.get("synthetic"))
            if origin == REAL and (made or image.extra.get("synthetic") or data.info.get("synthetic")):
                raise UserError(f"{root}: {image.file_name} is synthetic, but the data set is given as --real")
            if (made or origin == REAL) and cell.category in settings.categories and not cell.crowd:
                scaled = cell.scaled(scale)
                if _fits(scaled, image, scale, settings.side):
                    cells.append(Candidate(image.file_name, path, scaled, origin))
    if not cells:
        marked = "" if origin == REAL else " that is marked as synthetic"
        raise UserError(
            f"{root}: no cell{marked} of {', '.join(settings.categories)} with {settings.side // 2} pixels around it; "
            f"the data set has {listed(_categories(data))}"
        )
    return Source(origin, root.resolve().name, inputs.annotations(root), data.licences, tuple(cells))


def pool(
    candidates: Sequence[Candidate], category: str, wanted: int, side: int, rng: np.random.Generator
) -> list[Candidate]:
    """Return up to `wanted` of the `candidates` of `category`, from as many images as possible, squares apart.

    The middles of two squares in one image are at least half a side from each other, so that none is shown twice.
    """
    mine = [one for one in candidates if one.cell.category == category]
    order = [mine[index] for index in rng.permutation(len(mine))]
    taken: dict[str, list[Candidate]] = defaultdict(list)
    for one in order:
        x, y = one.cell.centre
        near = (abs(x - o.cell.centre[0]) < side / 2 and abs(y - o.cell.centre[1]) < side / 2 for o in taken[one.image])
        if not any(near):
            taken[one.image].append(one)
    turns = [(turn, one) for several in taken.values() for turn, one in enumerate(several)]
    return [one for _, one in sorted(turns, key=lambda pair: pair[0])][:wanted]


def cut(candidates: Sequence[Candidate], settings: QuizSettings) -> list[Candidate]:
    """Return `candidates` with the (side, side, 3) pixels around each; each image is read once."""
    by_image: dict[Path, list[int]] = defaultdict(list)
    for index, one in enumerate(candidates):
        by_image[one.path].append(index)
    done = list(candidates)
    with meter("cutting out cells", len(by_image)) as bar:
        for path, indices in by_image.items():
            scale = settings.real_scale if candidates[indices[0]].origin == REAL else settings.synthetic_scale
            pixels = image_files.read(path, scale)
            for index in indices:
                x, y = corner(candidates[index].cell, settings.side)
                square = pixels[y : y + settings.side, x : x + settings.side]
                if square.shape != (settings.side, settings.side, 3):
                    raise UserError(f"{path}: smaller than its annotations say; see `cytosynth check`")
                done[index] = replace(candidates[index], pixels=np.ascontiguousarray(square))
            bar.advance()
    return done


def corner(cell: Cell, side: int) -> tuple[int, int]:
    """Return the (x, y) corner of the square of `side` pixels around the middle of `cell`."""
    x, y = cell.centre
    return round(x - side / 2), round(y - side / 2)


def _fits(cell: Cell, image: Image, scale: float, side: int) -> bool:
    x, y = corner(cell, side)
    width, height = (max(1, round(value * scale)) for value in (image.width, image.height))
    return x >= 0 and y >= 0 and x + side <= width and y + side <= height


def _categories(data: DataSet) -> set[str]:
    return {cell.category for image in data.images for cell in image.cells}
