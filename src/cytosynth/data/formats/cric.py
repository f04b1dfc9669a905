"""The CRIC Cervix release: nucleus points in a JSON or CSV file next to the images, made into square boxes."""

import csv
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ... import boxes
from ...annotations import Cell, DataSet, Image
from ...errors import FormatProblem
from ...io import plain, wording
from .. import file_names, image_files
from . import cells, findings
from .findings import Note, Report, refuse

SIDE = 90.0
"""Side of the usual boxes at the release's 1376x1020, pixels."""
MAX_TABLE = 16 * 1024**2
"""Bytes of a CSV file; the release's has 11,534 rows in about one million."""
MAX_ROWS, MAX_COLUMNS = 200_000, 100
CATEGORIES = ("NILM", "ASC-US", "ASC-H", "LSIL", "HSIL", "SCC")
NAMES = {"negative for intraepithelial lesion": "NILM", "nilm": "NILM"} | {n.lower(): n for n in CATEGORIES[1:]}
LICENCE = {"id": 1, "name": "CC BY 4.0", "url": "https://creativecommons.org/licenses/by/4.0/"}
INFO = {
    "description": "CRIC Cervix Cell Classification",
    "source": "Rezende et al., Scientific Data 8:151 (2021), doi 10.1038/s41597-021-00933-8",
}


def read(root: Path, report: Report = refuse, note: Note = findings.ignore, side: float = SIDE) -> DataSet:
    """Read the release at `root`, its folder or its annotation file, with boxes of `side` pixels.

    A box is centred on the nucleus point and cut at the image's border; the point is kept as `nucleus`.
    """
    file = _annotation_file(root) if root.is_dir() else root
    folder = file.parent / "images" if (file.parent / "images").is_dir() else file.parent
    points: dict[str, list[tuple[Any, ...]]] = {}
    sources: dict[str, dict[str, Any]] = {}
    for where, name, doi, category, x, y, cell_id in _rows(file, report):
        points.setdefault(name, [])
        sources.setdefault(name, {"license": 1} | ({"source": doi} if doi else {}))
        if category is not None:
            points[name].append((where, category, x, y, cell_id))
    images = []
    for name, rows in points.items():
        try:
            width, height = image_files.size(file_names.inside(folder, name))
        except image_files.ImageProblem as problem:
            report(str(problem))
            continue
        found = []
        for where, category, x, y, cell_id in rows:
            known = NAMES.get(str(category).strip().lower())
            if known is None:
                report(f"{where}: unknown category {wording.said(category)}; expected one of {', '.join(CATEGORIES)}")
            elif not (0 <= x <= width and 0 <= y <= height):
                report(f"{where}: nucleus ({x}, {y}) outside {name} ({width}x{height})")
            else:
                found.append(_cell(x, y, side, (width, height), known, cell_id, where, note))
        images.append(Image(name, width, height, tuple(found), sources[name]))
    return DataSet(folder, tuple(images), CATEGORIES, (LICENCE,), INFO)


def _cell(
    x: float, y: float, side: float, size: tuple[int, int], category: str, cell_id: Any, where: str, note: Note
) -> Cell:
    half = side / 2
    box = boxes.clip((x - half, y - half, x + half, y + half), *size)
    extra = {"nucleus": [x, y]} | ({"cell_id": cell_id} if cell_id is not None else {})
    return cells.make(box, category, extra=extra, size=size, where=where, note=note)


def _annotation_file(root: Path) -> Path:
    for pattern in ("classifications.json", "classifications.csv", "*.json", "*.csv"):
        found = sorted(root.glob(pattern))
        if found:
            return found[0]
    raise FormatProblem(f"{root}: classifications.json or .csv of the CRIC release is missing")


def _rows(file: Path, report: Report) -> Iterator[tuple[str, str, str, Any, float, float, Any]]:
    """Yield (place, image, doi, category, x, y, cell id); the category is None for an image without cells."""
    try:
        entries = plain.from_json(plain.text(file, plain.MAX_BYTES)) if file.suffix == ".json" else _table(file)
    except (OSError, ValueError) as error:
        raise FormatProblem(f"{file}: unreadable ({str(error)[:120]})") from None
    if not isinstance(entries, list | Iterator):
        raise FormatProblem(f"{file}: a list of images is expected")
    for index, entry in enumerate(entries):
        where = f"{file}: entry {index}"
        try:
            name = cells.name(entry.get("image_name") or entry.get("image_filename") or _missing("image_name"))
            doi = cells.name(entry["image_doi"]) if entry.get("image_doi") else ""
            points = entry.get("classifications", [entry] if "nucleus_x" in entry else [])
            if not points:
                yield where, name, doi, None, 0.0, 0.0, None
            for cell in points:
                x, y = float(cell["nucleus_x"]), float(cell["nucleus_y"])
                yield where, name, doi, cells.name(cell["bethesda_system"]), x, y, plain.checked(cell.get("cell_id"))
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            report(f"{where}: {'no ' if isinstance(error, KeyError) else ''}{str(error)[:160]}")


def _table(file: Path) -> Iterator[dict[str, Any]]:
    """Yield the rows of the CSV `file`, one at a time."""
    try:
        rows = csv.DictReader(io.StringIO(plain.text(file, MAX_TABLE), newline=""))
        if len(rows.fieldnames or ()) > MAX_COLUMNS:
            raise ValueError(f"more than {MAX_COLUMNS} columns")
        for number, row in enumerate(rows):
            if number == MAX_ROWS:
                raise ValueError(f"more than {MAX_ROWS:,} rows")
            yield row
    except (OSError, ValueError, csv.Error) as error:
        raise FormatProblem(f"{file}: unreadable ({str(error)[:120]})") from None


def _missing(name: str) -> str:
    raise KeyError(name)
