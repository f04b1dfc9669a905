"""The RIVA cervical cytology benchmark: CSV files of boxes by centre, width and height; eight classes."""

import csv
import io
import math
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

COLUMNS = frozenset({"image_filename", "x", "y", "width", "height", "class_name"})
PLACES = ("", "annotations", "annotations/annotations")
"""Where the release keeps its CSV files."""
FOLDERS = ("images/images/{part}", "images/{part}", "{part}", "images/images", "images", "")
"""Where it keeps the images of `{part}.csv`, first match."""
PATIENT = ("patient", "patient_id")
"""Optional columns: whose cells these are."""
CATEGORIES = ("NILM", "ENDO", "INFL", "ASC-US", "LSIL", "HSIL", "ASC-H", "SCC")
NAMES = {name: name for name in CATEGORIES} | {"ASCUS": "ASC-US", "ASCH": "ASC-H"}
MAX_TABLE, MAX_ROWS = 64 * 1024**2, 1_000_000
INFO = {"description": "RIVA cervical cytology benchmark: conventional Papanicolaou smears, boxes on nuclei"}


def read(root: Path, report: Report = refuse, note: Note = findings.ignore) -> DataSet:
    """Read the release at `root`: its folder, or one of its CSV files.

    x and y are the middle of a box; it is cut at the image's border. A column `patient` or `patient_id` goes to the
    image, and patients are never divided between parts; each image remembers of which file (`part`) it is.
    """
    files = tables(root) if root.is_dir() else [root]
    if not files:
        raise FormatProblem(f"{root}: no CSV file of the RIVA benchmark (columns {', '.join(sorted(COLUMNS))})")
    base = root if root.is_dir() else root.parent
    images = tuple(image for file in files for image in _images(file, base, report))
    return DataSet(base, images, CATEGORIES, (), INFO, _parts(images))


def tables(root: Path) -> list[Path]:
    """Return the CSV files of the release at the folder `root`, those with COLUMNS in their first line."""
    found = [file for place in PLACES for file in sorted((root / place).glob("*.csv"))]
    return [file for file in found if _header(file) >= COLUMNS]


def _parts(images: tuple[Image, ...]) -> dict[str, tuple[str, ...]]:
    """Return the names of `images` by the CSV file that named them; none where there is one part."""
    found: dict[str, list[str]] = {}
    for image in images:
        found.setdefault(str(image.extra.get("part")), []).append(image.file_name)
    return {part: tuple(members) for part, members in found.items()} if len(found) > 1 else {}


def _header(file: Path) -> set[str]:
    try:
        with file.open(encoding="utf-8-sig") as text:
            return {name.strip() for name in text.readline(4096).split(",")}
    except (OSError, UnicodeDecodeError):
        return set()


def _images(file: Path, base: Path, report: Report) -> Iterator[Image]:
    """Yield the images that the CSV `file` names, with their cells."""
    rows: dict[str, list[tuple[str, dict[str, Any]]]] = {}
    for number, row in enumerate(_rows(file), 2):
        rows.setdefault(str(row.get("image_filename") or "").strip(), []).append((f"{file}: line {number}", row))
    folder = _folder(file, base, next(iter(rows), ""))
    for name, found in rows.items():
        relative = (folder / name).relative_to(base).as_posix()
        try:
            width, height = image_files.size(file_names.inside(base, relative))
        except image_files.ImageProblem as problem:
            report(str(problem))
            continue
        own = [cell for where, row in found if (cell := _cell(row, width, height, where, report)) is not None]
        extra = {"part": file.stem}
        patients = {str(row[key]).strip() for _, row in found for key in PATIENT if row.get(key)}
        if len(patients) > 1:
            report(f"{found[0][0]}: {wording.said(name)} has {len(patients)} patients; expected one")
        yield Image(relative, width, height, tuple(own), extra | ({"patient": min(patients)} if patients else {}))


def _folder(file: Path, base: Path, first: str) -> Path:
    """Return the folder that holds the image called `first`, or `base`, where its absence is reported."""
    if first and not file_names.unsafe(first):
        for pattern in FOLDERS:
            folder = base / pattern.format(part=file.stem)
            if (folder / first).is_file():
                return folder
    return base


def _rows(file: Path) -> Iterator[dict[str, Any]]:
    try:
        for number, row in enumerate(csv.DictReader(io.StringIO(plain.text(file, MAX_TABLE), newline=""))):
            if number == MAX_ROWS:
                raise ValueError(f"more than {MAX_ROWS:,} rows")
            yield row
    except (OSError, ValueError, csv.Error) as error:
        raise FormatProblem(f"{file}: unreadable ({str(error)[:120]})") from None


def _cell(row: dict[str, Any], width: int, height: int, where: str, report: Report) -> Cell | None:
    """Return the cell of a `row`; None after a report."""
    category = NAMES.get(str(row.get("class_name")).strip().upper())
    if category is None:
        report(f"{where}: unknown class {wording.said(row.get('class_name'))}; expected one of {', '.join(CATEGORIES)}")
        return None
    try:
        x, y, w, h = (float(row[key]) for key in ("x", "y", "width", "height"))
    except (TypeError, ValueError):
        report(f"{where}: x, y, width and height must be numbers")
        return None
    if not all(map(math.isfinite, (x, y, w, h))) or w <= 0 or h <= 0 or not (0 <= x <= width and 0 <= y <= height):
        report(f"{where}: box of centre ({x}, {y}), {w} x {h}, is not one of an image of {width}x{height}")
        return None
    box = boxes.clip((x - w / 2, y - h / 2, x + w / 2, y + h / 2), width, height)
    try:
        return cells.make(box, category, extra={"nucleus": [x, y]}, size=(width, height), where=where)
    except ValueError as error:
        report(f"{where}: {error}")
        return None
