"""Reading a data set of any format and layout: used by training, evaluation and conversion alike."""

import inspect
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..annotations import DataSet
from ..errors import UsageError, UserError
from ..io.plain import one_line
from ..io.progress import console
from . import split
from .formats import layouts, registration
from .formats.findings import Corrections, Note, Report, refuse

BY_SUFFIX = {".json": "coco", ".yaml": "yolo", ".yml": "yolo", ".csv": "cric"}


@dataclass(frozen=True)
class Place:
    """The places of the files of a data set, as far as they are not to be detected.

    Attributes:
        annotations: a COCO file, YOLO's YAML file or folder of labels, or VOC's folder.
        images: the folder of the images.
        recursive: plain images are taken from all folders in the folder.
    """

    annotations: Path | None = None
    images: Path | None = None
    recursive: bool = False


FOUND_OUT = Place()


def guess(root: Path, place: Place = FOUND_OUT) -> str:
    """Return the format of the data set at `root` by its files, or that of the annotations that `place` names.

    Where that is recursive, a folder without annotations is one of plain images, whatever folders are in it. Raises
    UserError that says what is there where none fits.
    """
    annotations = place.annotations
    if annotations is None:
        if not place.recursive:
            return layouts.detect(root)
        return "images" if root.is_dir() and layouts.bare(root) else layouts.detect(root)
    if annotations.is_dir():
        kinds = {path.suffix.lower() for path in annotations.iterdir()}
        if ".xml" in kinds or ".txt" in kinds:
            return "voc" if ".xml" in kinds else "yolo"
        return layouts.detect(annotations)
    if kind := BY_SUFFIX.get(annotations.suffix.lower()):
        return kind
    raise UserError(f"{annotations}: not annotations; give a COCO file (.json), YOLO's YAML or labels, or a VOC folder")


def annotated(root: Path) -> bool:
    """Return whether what lies at `root` is a data set with annotations in a known layout, rather than images alone."""
    try:
        return layouts.detect(root) not in ("images", "folders", "slides")
    except UserError:
        return False


def read(
    root: Path,
    kind: str | None = None,
    report: Report = refuse,
    note: Note | None = None,
    *,
    place: Place = FOUND_OUT,
    **options: Any,
) -> DataSet:
    """Read the data set at `root` as format `kind`, guessed where None; the parts that it says come with it.

    Args:
        root: folder, or file, of the data set.
        kind: one of `registry.FORMATS_IN`.
        report: called for problems; raises FormatProblem unless given. note: called for corrections; if none is given,
        the number of each kind is printed. place: the paths of annotations and images, if the layout is not a known
        one.
        options: of the reader.
    """
    kind = kind or guess(root, place)
    reader = registration.reader(kind)
    given = {"annotations": place.annotations, "images": place.images}
    options |= {name: path for name, path in given.items() if path}
    if kind == "images":
        options["recursive"] = place.recursive
    for name in options.keys() - inspect.signature(reader).parameters.keys():
        raise UsageError(f"{root}: {name} does not apply to the format {kind}")
    corrections = Corrections()
    data = reader(root, report=report, note=note or corrections, **options)
    for line in corrections.lines():
        console.print(one_line(f"{root}: {line}"), markup=False, soft_wrap=True)
    return split.with_parts(data, root)
