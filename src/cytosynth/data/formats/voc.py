"""Pascal VOC: one XML file per image in `Annotations/`, images in `JPEGImages/`.

Corners are written and read as plain pixel coordinates (0 at the left edge, fractions kept), but for files of
supervision, which counts from 1. Read as CVAT, FiftyOne, Label Studio, LabelImg and Roboflow lay it out.
"""

import xml.etree.ElementTree as ET
from pathlib import Path, PurePosixPath
from typing import Any

from defusedxml import DefusedXmlException

from ...annotations import Cell, DataSet, Image
from ...errors import FormatProblem
from ...io import atomic, plain
from .. import file_names, image_files
from . import findings, names, sidecar, voc_files, yolo_files
from .cells import category, make, number
from .findings import Note, Report, refuse
from .registration import Writer

CORNERS = ("xmin", "ymin", "xmax", "ymax")
FLAGS = ("truncated", "difficult", "occluded")
"""0 or 1 of an object, kept where they are 1."""


def read(
    root: Path,
    report: Report = refuse,
    note: Note = findings.ignore,
    annotations: Path | None = None,
    images: Path | None = None,
) -> DataSet:
    """Read the VOC data set in the folder `root`; entries that cannot be understood go to `report`.

    `annotations` and `images` are the folders of the XML files and of the images, where they are not to be found out.
    """
    place = annotations or voc_files.annotations(root)
    if not place.is_dir():
        raise FormatProblem(f"{place}: no such folder; a VOC data set has Annotations/ and JPEGImages/")
    folder = images or voc_files.images(root, place)
    found, refused = file_names.usable(((p.relative_to(place).as_posix(), p) for p in voc_files.files(place)), place)
    for problem in refused:
        report(f"{place}: {problem}")
    there = names.Folder(folder)
    by_stem = {
        PurePosixPath(name).with_suffix("").as_posix(): image
        for name, file in found
        if (image := _image(name, file, there, report, note))
    }
    named = dict.fromkeys(cell.category for image in by_stem.values() for cell in image.cells)
    order = list(named)
    if (root / sidecar.FILE).exists():
        order = sidecar.categories(root) or order
    parts = voc_files.parts(root, {stem: image.file_name for stem, image in by_stem.items()})
    categories = tuple(dict.fromkeys([*order, *named]))
    data = DataSet(folder, tuple(by_stem.values()), categories, yolo_files.noted_licence(root), parts=parts)
    return sidecar.restore(data, root)


def write(data: DataSet, root: Path) -> None:
    """Write the annotations of `data` under `root`, its parts as `ImageSets/Main`; the images are the caller's."""
    for image in data.images:
        tree = ET.Element("annotation")
        ET.SubElement(tree, "folder").text = "JPEGImages"
        ET.SubElement(tree, "filename").text = image.file_name
        source = ET.SubElement(tree, "source")
        ET.SubElement(source, "database").text = plain.one_line(data.info.get("description", "unknown"))
        size = ET.SubElement(tree, "size")
        for name, value in (("width", image.width), ("height", image.height), ("depth", 3)):
            ET.SubElement(size, name).text = str(value)
        for cell in image.cells:
            _write_object(ET.SubElement(tree, "object"), cell)
        ET.indent(tree)
        path = root / "Annotations" / PurePosixPath(image.file_name).with_suffix(".xml")
        atomic.write_text(path, ET.tostring(tree, encoding="unicode") + "\n")
    for part, members in data.parts.items():
        if not file_names.unsafe(part) and "/" not in part:
            stems = (PurePosixPath(name).with_suffix("").as_posix() for name in members)
            atomic.write_text(root / "ImageSets/Main" / f"{part}.txt", "".join(f"{stem}\n" for stem in stems))
    sidecar.write(data, root)


def _write_object(entry: ET.Element, cell: Cell) -> None:
    ET.SubElement(entry, "name").text = cell.category
    ET.SubElement(entry, "pose").text = "Unspecified"
    for name in ("truncated", "difficult"):
        ET.SubElement(entry, name).text = "1" if cell.extra.get(name) == 1 else "0"
    corners = ET.SubElement(entry, "bndbox")
    for name, value in zip(CORNERS, cell.box, strict=True):
        ET.SubElement(corners, name).text = f"{value:.4f}"


def _image(xml: str, file: Path, there: names.Folder, report: Report, note: Note) -> Image | None:
    """Return the image that the XML `file`, called `xml` below its folder, annotates; None after a `report`."""
    try:
        tree = voc_files.parse(file)
        name = voc_files.image_name(tree.findtext("filename"), xml, there)
        size = _size(tree, there, name)
    except image_files.ImageProblem as problem:
        report(f"{file}: has no size, and {problem}")
        return None
    except (ET.ParseError, DefusedXmlException, ValueError, LookupError, OverflowError, OSError) as error:
        report(f"{file}: not a VOC annotation ({str(error)[:120]})")
        return None
    cells = []
    for index, entry in enumerate(tree.findall("object")):
        where = f"{file}: object {index}"
        try:
            cells.append(_cell(entry, voc_files.first_pixel(tree), size, where, note))
        except ValueError as error:
            report(f"{where}: {error}")
    said = {key: text for key in ("database", "license", "url") if (text := tree.findtext(f"source/{key}"))}
    return Image(name, *size, tuple(cells), {"source": said} if said else {})


def _size(tree: ET.Element, there: names.Folder, name: str) -> tuple[int, int]:
    """Return width and height as the XML `tree` says or, where it does not, as the image called `name` has them."""
    try:
        width, height = (int(number(_text(tree, f"size/{side}"))) for side in ("width", "height"))
    except (ValueError, OverflowError):
        width = height = 0
    if width <= 0 or height <= 0:
        width, height = image_files.size(file_names.inside(there.root, name))
    return width, height


def _cell(entry: ET.Element, first: int, size: tuple[int, int], where: str, note: Note) -> Cell:
    x0, y0, x1, y1 = (number(_text(entry, f"bndbox/{corner}")) for corner in CORNERS)
    x0, y0 = x0 - first, y0 - first
    extra: dict[str, Any] = {flag: 1 for flag in FLAGS if (entry.findtext(flag) or "").strip() in ("1", "True", "true")}
    return make((x0, y0, x1, y1), category(_text(entry, "name")), extra=extra, size=size, where=where, note=note)


def _text(tree: ET.Element, path: str) -> str:
    text = tree.findtext(path)
    if text is None or not text.strip():
        raise ValueError(f"no {path}")
    return text.strip()


WRITER = Writer(write, images="JPEGImages")
