"""YOLO: `data.yaml` with the class names from 0, `images/`, and `labels/` with normalised centre boxes."""

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from ...annotations import Cell, DataSet, Image
from ...errors import FormatProblem
from ...io import atomic, plain, wording
from .. import image_files
from . import coco, sidecar
from .coco import Report, refuse

FILE = "data.yaml"


def read(root: Path, report: Report = refuse) -> DataSet:
    """Read the YOLO data set in the folder `root`; entries that cannot be understood go to `report`."""
    names = _names(root / FILE)
    folder = root / "images"
    if not folder.is_dir():
        raise FormatProblem(f"{folder}: no such folder; a YOLO data set has images/, labels/ and {FILE}")
    images, there = [], wording.listed(names)
    labels = set((root / "labels").rglob("*.txt"))
    for path in _image_files(folder):
        name = path.relative_to(folder).as_posix()
        try:
            width, height = image_files.size(image_files.inside(folder, name))
        except image_files.ImageProblem as problem:
            report(str(problem))
            continue
        label = (root / "labels" / name).with_suffix(".txt")
        labels.discard(label)
        cells = tuple(_cells(root / "labels", label, names, there, width, height, report)) if label.exists() else ()
        images.append(Image(name, width, height, cells))
    for label in sorted(labels):
        report(f"{label}: a label without its image")
    data = DataSet(folder, tuple(images), tuple(names.values()), info=_said(root / FILE))
    return sidecar.restore(data, root)


def write(data: DataSet, root: Path) -> None:
    """Write the annotations of `data` under `root`; the images are the caller's."""
    for image in data.images:
        lines = []
        for cell in image.cells:
            x0, y0, x1, y1 = cell.box
            values = (
                (x0 + x1) / 2 / image.width, (y0 + y1) / 2 / image.height,
                (x1 - x0) / image.width, (y1 - y0) / image.height,
            )  # fmt: skip
            lines.append(" ".join([str(data.categories.index(cell.category)), *(f"{value:.9f}" for value in values)]))
        path = (root / "labels" / image.file_name).with_suffix(".txt")
        atomic.write_text(path, "".join(line + "\n" for line in lines))
    content = {"path": ".", "train": "images", "val": "images", "names": dict(enumerate(data.categories))}
    atomic.write_text(root / FILE, yaml.safe_dump(content, sort_keys=False, allow_unicode=True))
    sidecar.write(data, root)


def _said(file: Path) -> dict[str, Any]:
    """Return what `data.yaml` says beyond paths and names: licence, source, version."""
    content = plain.from_yaml(plain.text(file))
    layout = {"path", "train", "val", "test", "names", "nc"}
    return {str(key): value for key, value in content.items() if key not in layout}


def _names(file: Path) -> dict[int, str]:
    """Return class names by index, in the order of the indices."""
    try:
        content: Any = plain.from_yaml(plain.text(file))
        names = content["names"]
        pairs = names.items() if isinstance(names, dict) else enumerate(names)
        return dict(sorted((int(index), coco.category(name)) for index, name in pairs))
    except OSError:
        raise FormatProblem(f"{file}: no such file; it names the classes of a YOLO data set") from None
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        why = "" if isinstance(error, KeyError) else f" ({str(error)[:120]})"
        raise FormatProblem(f"{file}: no 'names' in it, a list or a map of the classes from 0{why}") from None


def _cells(
    root: Path, label: Path, names: dict[int, str], there: str, width: int, height: int, report: Report
) -> Iterable[Cell]:
    """Yield the cells in the file `label` in the folder `root` of labels."""
    try:
        lines = plain.text(image_files.inside(root, label.relative_to(root).as_posix())).splitlines()
    except image_files.ImageProblem as problem:
        report(str(problem))
        return
    except (OSError, ValueError) as error:
        report(f"{label}: not readable ({str(error)[:120]})")
        return
    for number, line in enumerate(lines, 1):
        parts = line.split()
        if not parts:
            continue
        try:
            index, x, y, w, h, *score = (int(parts[0]), *map(coco.number, parts[1:]))
            if len(score) > 1 or not all(map(math.isfinite, score)):
                raise ValueError
        except ValueError:
            report(f"{label}:{number}: expected 'class x y width height', got {line[:80]!r}")
            continue
        if index not in names:
            report(f"{label}:{number}: unknown category {wording.said(index)}; there are {there}")
            continue
        box = ((x - w / 2) * width, (y - h / 2) * height, (x + w / 2) * width, (y + h / 2) * height)
        yield Cell(box, names[int(index)], score[0] if score else None)


def _image_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in image_files.SUFFIXES)
