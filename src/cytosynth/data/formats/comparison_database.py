"""The Comparison Detector database (Liang et al. 2021), prepared as in Section IV-C.3 of the paper.

Of its 11 classes ASC-US, ASC-H, LSIL and HSIL stay, and the images that hold one of them. The longest side
becomes 1024 pixels, the ratio is kept, and the shorter side is padded black to 1024 on the right or below; the
boxes follow.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image as PILImage

from ...annotations import DataSet, Image
from ...bethesda import ABNORMAL
from .. import file_names, image_files
from ..image_files import Pixels
from . import cells, coco, findings, voc
from .findings import Note, Report, refuse

SIDE = 1024
NAMES = {name.lower().replace("-", ""): name for name in ABNORMAL}


def read(root: Path, report: Report = refuse, note: Note = findings.ignore) -> DataSet:
    """Read the database at `root` (COCO or VOC) with boxes as they lie after `prepare`."""
    data = voc.read(root, report, note) if (root / "Annotations").is_dir() else coco.read(root, report, note)
    images = tuple(new for image in data.images if (new := _prepared(data, image, report)).cells)
    return replace(data, images=images, categories=tuple(ABNORMAL))


def prepare(pixels: Pixels) -> Pixels:
    """Return (height, width, 3) `pixels` as (1024, 1024, 3): longest side 1024, padded black."""
    factor = SIDE / max(pixels.shape[:2])
    height, width = (min(SIDE, max(1, round(side * factor))) for side in pixels.shape[:2])
    canvas = np.zeros((SIDE, SIDE, 3), dtype=np.uint8)
    canvas[:height, :width] = PILImage.fromarray(pixels).resize((width, height), PILImage.Resampling.LANCZOS)
    return canvas


def category(name: str) -> str | None:
    """Return the Bethesda name for one of the database's class names, or None for those left out."""
    return NAMES.get(name.lower().replace("-", "").replace("_", "").replace(" ", ""))


def _prepared(data: DataSet, image: Image, report: Report) -> Image:
    longest = max(image.width, image.height)
    if longest <= 0:
        report(f"{image.file_name}: size {image.width}x{image.height}")
        longest = SIDE
    try:
        size = image_files.size(file_names.inside(data.folder, image.file_name))
        if size != (image.width, image.height):
            report(f"{image.file_name}: is {size[0]}x{size[1]}, annotated as {image.width}x{image.height}")
    except image_files.ImageProblem as problem:
        report(str(problem))
    factor = SIDE / longest
    found = []
    for number, cell in enumerate(image.cells):
        name = category(cell.category)
        if name:
            moved = cell.scaled(factor)
            where = f"{image.file_name}: box {number}"
            try:
                made = cells.make(moved.box, name, cell.score, moved.extra, size=(SIDE, SIDE), where=where)
            except ValueError as error:
                report(f"{where}: {error}")
                continue
            found.append(made)
    return replace(image, width=SIDE, height=SIDE, cells=tuple(found))
