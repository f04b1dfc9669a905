"""A folder for each class, each image one cell: the whole image is its box."""

from pathlib import Path

from ...annotations import DataSet, Image
from ...bethesda import CATEGORIES
from ...errors import FormatProblem
from .. import file_names, gather, image_files
from . import cells, findings
from .findings import Note, Report, refuse


def read(root: Path, report: Report = refuse, note: Note = findings.ignore) -> DataSet:
    """Read the folders below `root`: their names are the categories, Bethesda's first."""
    if not root.is_dir():
        raise FormatProblem(f"{root}: no such folder")
    found = sorted(path.name for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    if not found:
        raise FormatProblem(f"{root}: contains no class folders")
    categories = [
        *(name for name in CATEGORIES if name in found),
        *(name for name in found if name not in CATEGORIES),
    ]
    images, named = [], []
    for category in categories:
        try:
            named.append(cells.category(category))
        except ValueError as error:
            report(f"{root}: {error}")
            continue
        for path in sorted((root / category).iterdir()):
            if path.suffix.lower() not in image_files.SUFFIXES or gather.litter(path):
                continue
            try:
                width, height = image_files.size(file_names.inside(root, f"{category}/{path.name}"))
            except image_files.ImageProblem as problem:
                report(str(problem))
                continue
            cell = cells.make(
                (0.0, 0.0, float(width), float(height)), category, size=(width, height), where=str(path), note=note
            )
            images.append(Image(f"{category}/{path.name}", width, height, (cell,)))
    return DataSet(root, tuple(images), tuple(named))
