"""Whole slides as a data set: a folder of them, or one, with their annotations next to them in pixels of level 0."""

from pathlib import Path

from ...annotations import Cell, DataSet, Image
from ...errors import UsageError
from ..slides import annotations, reader
from ..slides.slide import SlideProblem
from . import cells, findings
from .findings import Note, Report, refuse


def read(root: Path, report: Report = refuse, note: Note = findings.ignore) -> DataSet:
    """Return the slides of the folder `root`, or the one at `root`, each as an image with its cells.

    A slide that cannot be read goes to `report`.
    """
    images: list[Image] = []
    for path in reader.gather(root):
        try:
            with reader.opened(path) as slide:
                found = annotations.find(path, None, slide.mpp)
                extra = {"slide": path.stem, "mpp": round(slide.mpp, 6)}
                own = _checked(path, found.cells if found else (), slide.size, report, note)
                images.append(Image(path.name, *slide.size, own, extra))
        except (SlideProblem, UsageError) as problem:
            report(str(problem))
    categories = dict.fromkeys(cell.category for image in images for cell in image.cells)
    return DataSet(root if root.is_dir() else root.parent, tuple(images), tuple(categories))


def _checked(
    path: Path, found: tuple[Cell, ...], size: tuple[int, int], report: Report, note: Note
) -> tuple[Cell, ...]:
    """Return those of the cells `found` on the slide at `path` of `size` whose boxes are ones."""
    checked = []
    for number, cell in enumerate(found):
        where = f"{path.name}: cell {number}"
        try:
            made = cells.make(cell.box, cell.category, cell.score, cell.extra, size=size, where=where, note=note)
        except ValueError as error:
            report(f"{where}: {error}")
            continue
        checked.append(made)
    return tuple(checked)
