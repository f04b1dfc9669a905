"""Pascal VOC: one XML file an image in `Annotations/`, images in `JPEGImages/`.

Corners are written and read as plain pixel coordinates (0 at the left edge, fractions kept).
"""

import xml.etree.ElementTree as ET
from pathlib import Path, PurePosixPath

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import fromstring

from ...annotations import Cell, DataSet, Image
from ...errors import FormatProblem
from ...io import atomic, plain
from .. import image_files
from . import coco, sidecar
from .coco import Report, refuse

CORNERS = ("xmin", "ymin", "xmax", "ymax")


def read(root: Path, report: Report = refuse) -> DataSet:
    """Read the VOC data set in the folder `root`; entries that cannot be understood go to `report`."""
    folder = root / "Annotations"
    if not folder.is_dir():
        raise FormatProblem(f"{folder}: no such folder; a VOC data set has Annotations/ and JPEGImages/")
    found, refused = image_files.usable(
        ((p.relative_to(folder).as_posix(), p) for p in sorted(folder.rglob("*.xml"))), folder
    )
    for problem in refused:
        report(f"{folder}: {problem}")
    images = [image for _, file in found if (image := _image(file, report))]
    named = dict.fromkeys(cell.category for image in images for cell in image.cells)
    order = list(named)
    if (root / sidecar.FILE).exists():
        order = sidecar.categories(root) or order
    categories = tuple(dict.fromkeys([*order, *named]))
    usual = root / "JPEGImages"
    data = DataSet(usual if usual.is_dir() else root / "images", tuple(images), categories)
    return sidecar.restore(data, root)


def write(data: DataSet, root: Path) -> None:
    """Write the annotations of `data` under `root`; the images are the caller's."""
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
            entry = ET.SubElement(tree, "object")
            ET.SubElement(entry, "name").text = cell.category
            for name, text in (("pose", "Unspecified"), ("truncated", "0"), ("difficult", "0")):
                ET.SubElement(entry, name).text = text
            corners = ET.SubElement(entry, "bndbox")
            for name, number in zip(CORNERS, cell.box, strict=True):
                ET.SubElement(corners, name).text = f"{number:.4f}"
        ET.indent(tree)
        path = root / "Annotations" / PurePosixPath(image.file_name).with_suffix(".xml")
        atomic.write_text(path, ET.tostring(tree, encoding="unicode") + "\n")
    sidecar.write(data, root)


def _image(file: Path, report: Report) -> Image | None:
    try:
        tree = _root(file)
        width, height = (int(coco.number(_text(tree, f"size/{name}"))) for name in ("width", "height"))
        name = coco.file_name(_text(tree, "filename"))
    except (ET.ParseError, DefusedXmlException, ValueError, LookupError, OverflowError, OSError) as error:
        report(f"{file}: not a VOC annotation ({str(error)[:120]})")
        return None
    cells = []
    for number, entry in enumerate(tree.findall("object")):
        try:
            x0, y0, x1, y1 = (coco.number(_text(entry, f"bndbox/{corner}")) for corner in CORNERS)
            cells.append(Cell((x0, y0, x1, y1), coco.name(_text(entry, "name"))))
        except ValueError as error:
            report(f"{file}: object {number}: {error}")
    said = {key: text for key in ("database", "license", "url") if (text := tree.findtext(f"source/{key}"))}
    return Image(name, width, height, tuple(cells), {"source": said} if said else {})


def _root(file: Path) -> ET.Element:
    root: ET.Element = fromstring(plain.text(file).encode())
    return root


def _text(tree: ET.Element, path: str) -> str:
    text = tree.findtext(path)
    if text is None or not text.strip():
        raise ValueError(f"no {path}")
    return text.strip()
