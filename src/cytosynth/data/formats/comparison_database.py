"""The Comparison Detector database (Liang et al. 2021), prepared as in Section IV-C.3 of the paper.

Of its 11 classes ASC-US, ASC-H, LSIL and HSIL stay, and the images that hold one of them. The longest side
becomes 1024 pixels, the ratio is kept, and the shorter side is padded black to 1024 on the right or below; the
boxes follow.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from ...annotations import Cell, DataSet, Picture
from ...bethesda import ABNORMAL
from .. import images
from ..images import Pixels
from . import coco, voc
from .coco import Report, refuse

SIDE = 1024
NAMES = {name.lower().replace("-", ""): name for name in ABNORMAL}


def read(root: Path, report: Report = refuse) -> DataSet:
    """Read the database at `root` (COCO or VOC) with boxes as they lie after `prepare`."""
    data = voc.read(root, report) if (root / "Annotations").is_dir() else coco.read(root, report)
    pictures = tuple(new for picture in data.pictures if (new := _prepared(data, picture, report)).cells)
    return replace(data, pictures=pictures, categories=tuple(ABNORMAL))


def prepare(pixels: Pixels) -> Pixels:
    """Return (height, width, 3) `pixels` as (1024, 1024, 3): longest side 1024, padded black."""
    factor = SIDE / max(pixels.shape[:2])
    height, width = (min(SIDE, max(1, round(side * factor))) for side in pixels.shape[:2])
    canvas = np.zeros((SIDE, SIDE, 3), dtype=np.uint8)
    canvas[:height, :width] = Image.fromarray(pixels).resize((width, height), Image.Resampling.LANCZOS)
    return canvas


def category(name: str) -> str | None:
    """Return the Bethesda name for one of the database's class names, or None for those left out."""
    return NAMES.get(name.lower().replace("-", "").replace("_", "").replace(" ", ""))


def _prepared(data: DataSet, picture: Picture, report: Report) -> Picture:
    longest = max(picture.width, picture.height)
    if longest <= 0:
        report(f"{picture.file_name}: size {picture.width}x{picture.height}")
        longest = SIDE
    try:
        size = images.size(images.inside(data.images, picture.file_name))
        if size != (picture.width, picture.height):
            report(f"{picture.file_name}: is {size[0]}x{size[1]}, annotated as {picture.width}x{picture.height}")
    except images.ImageProblem as problem:
        report(str(problem))
    factor = SIDE / longest
    cells = []
    for cell in picture.cells:
        name = category(cell.category)
        if name:
            moved = Cell(cell.box, name, cell.score, cell.extra).scaled(factor)
            cells.append(moved)
    return replace(picture, width=SIDE, height=SIDE, cells=tuple(cells))
