"""YOLO: class names from 0, and a text file for each image with normalised centre boxes; here with `data.yaml`.

Read as Ultralytics, Roboflow, CVAT (YOLO 1.1 and Ultralytics), FiftyOne, Label Studio and LabelImg lay it out.
"""

from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import yaml

from ...annotations import Cell, DataSet, Image
from ...errors import FormatProblem
from ...io import atomic, plain, wording
from .. import file_names, gather, image_files
from . import findings, sidecar, yolo_files, yolo_lines
from .cells import category
from .findings import Note, Report, refuse
from .registration import Writer

FILE = "data.yaml"
LAYOUT = frozenset({"path", "train", "val", "test", "names", "nc"})
"""Keys of `data.yaml` that do not describe the data."""


class Labels(NamedTuple):
    """How the lines of a data set are read: class names, whether they are poses, and callbacks for findings."""

    names: Mapping[int, str]
    poses: bool
    report: Report
    note: Note


def read(
    root: Path,
    report: Report = refuse,
    note: Note = findings.ignore,
    annotations: Path | None = None,
    images: Path | None = None,
) -> DataSet:
    """Read the YOLO data set in the folder `root`; entries that cannot be understood go to `report`.

    `annotations` is the folder of the label files or the YAML file, `images` the folder of the images, where they are
    not to be found out. Boxes of polygons and of oriented boxes are what encloses them.
    """
    if root.is_file():
        root, annotations = root.parent, annotations or root
    classes = yolo_files.classes(root, annotations)
    content = _yaml(classes) if classes.suffix.lower() in yolo_files.YAML else {}
    labels = Labels(_names(classes, content), "kpt_shape" in content, report, note)
    folder = images or yolo_files.image_folder(root)
    found = []
    texts = yolo_files.texts(root, annotations if annotations and annotations.is_dir() else None)
    used: set[Path] = set()
    for name in gather.images(folder):
        try:
            size = image_files.size(file_names.inside(folder, name))
        except image_files.ImageProblem as problem:
            report(str(problem))
            if label := yolo_files.label(folder, name, texts):
                used.add(label)
            continue
        label = yolo_files.label(folder, name, texts)
        cells = _cells(root, label, labels, size) if label else ()
        used |= {label} if label else set()
        found.append(Image(name, *size, tuple(cells)))
    for left in sorted(set(texts.values()) - used):
        report(f"{left}: a label without its image")
    data = DataSet(
        folder,
        tuple(found),
        tuple(dict.fromkeys(labels.names.values())),
        yolo_files.licences(content, root),
        {str(key): value for key, value in content.items() if key not in LAYOUT},
        yolo_files.parts(root, content, folder, [image.file_name for image in found], note),
    )
    return sidecar.restore(data, root)


def write(data: DataSet, root: Path) -> None:
    """Write the annotations of `data` under `root`; the images are the caller's.

    Each part of `data` becomes a list of images (`train.txt`) that `data.yaml` names. It names no `path`: Ultralytics
    takes the folder of the file if there is none, and the working folder, or one of its own, for `path: .`.
    """
    for image in data.images:
        lines = (yolo_lines.write(cell, data.categories, image.width, image.height) for cell in image.cells)
        path = (root / "labels" / image.file_name).with_suffix(".txt")
        atomic.write_text(path, "".join(line + "\n" for line in lines))
    places = {"train": "images", "val": "images"}
    if lists := {name: members for name, members in data.parts.items() if name in yolo_files.PARTS}:
        places = {name: f"{name}.txt" for name in lists}
    for name, members in lists.items():
        atomic.write_text(root / places[name], "".join(f"./images/{member}\n" for member in members))
    content = {**places, "names": dict(enumerate(data.categories))}
    atomic.write_text(root / FILE, yaml.safe_dump(content, sort_keys=False, allow_unicode=True))
    sidecar.write(data, root)


def _yaml(file: Path) -> dict[str, Any]:
    try:
        content = plain.from_yaml(plain.text(file))
    except OSError:
        raise FormatProblem(f"{file}: no such file; it lists the classes of a YOLO data set") from None
    except ValueError as error:
        raise FormatProblem(f"{file}: no 'names' in it, a list or a map of the classes from 0 ({error})") from None
    if not isinstance(content, dict):
        raise FormatProblem(f"{file}: no 'names' in it, a list or a map of the classes from 0")
    return content


def _names(file: Path, content: Mapping[str, Any]) -> dict[int, str]:
    """Return class names by index, in the order of the indices, of a YAML file's `content` or of a list's lines."""
    if not content and file.suffix.lower() not in yolo_files.YAML:
        try:
            lines = [line.strip() for line in plain.text(file).splitlines()]
            return {index: category(line) for index, line in enumerate(lines) if line}
        except (OSError, ValueError) as error:
            raise FormatProblem(f"{file}: not a list of class names, one per line ({str(error)[:120]})") from None
    try:
        found: Any = content["names"]
        if isinstance(found, str):
            if "," in found:
                raise ValueError("expected one name, or a list as [NILM, HSIL]; found a text with a comma")
            found = [found]
        pairs = found.items() if isinstance(found, dict) else enumerate(found)
        return dict(sorted((int(index), category(name)) for index, name in pairs))
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        why = "" if isinstance(error, KeyError) else f" ({str(error)[:120]})"
        raise FormatProblem(f"{file}: no 'names' in it, a list or a map of the classes from 0{why}") from None


def _cells(root: Path, label: Path, labels: Labels, size: tuple[int, int]) -> list[Cell]:
    """Return the cells in the file `label` of the data set at `root`, of an image of `size`."""
    try:
        within = root if label.is_relative_to(root) else label.parent
        if within == root and PurePosixPath(label.relative_to(root).as_posix()).parts[0] == "labels":
            within = root / "labels"
        lines = plain.text(file_names.inside(within, label.relative_to(within).as_posix())).splitlines()
    except image_files.ImageProblem as problem:
        labels.report(str(problem))
        return []
    except (OSError, ValueError) as error:
        labels.report(f"{label}: not readable ({str(error)[:120]})")
        return []
    cells, there = [], wording.listed(labels.names)
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        where = f"{label}:{number}"
        try:
            cells.append(yolo_lines.read(line, labels.names, there, size, where, labels.note, labels.poses))
        except ValueError as error:
            labels.report(f"{where}: {error}")
    return cells


WRITER = Writer(write, images="images")
