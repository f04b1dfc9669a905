"""The data types that all parts of the program share: a cell with its box, an image with its cells, a data set."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from .bethesda import NILM

Box = tuple[float, float, float, float]
"""x_min, y_min, x_max, y_max in pixels; the image spans 0..width and 0..height."""


@dataclass(frozen=True)
class Cell:
    """One annotated cell.

    Attributes:
        box: xyxy in pixels of its image.
        category: Bethesda name, or the data set's own.
        score: a detector's confidence in 0..1; None if an expert or the synthesizer set the box.
        extra: further fields of its format (nucleus point, area, iscrowd), kept when it is written again.
    """

    box: Box
    category: str
    score: float | None = None
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def centre(self) -> tuple[float, float]:
        """The centre of the box, x and y."""
        return (self.box[0] + self.box[2]) / 2, (self.box[1] + self.box[3]) / 2

    @property
    def size(self) -> tuple[float, float]:
        """Width and height of the box."""
        return self.box[2] - self.box[0], self.box[3] - self.box[1]

    @property
    def crowd(self) -> bool:
        """Whether the box is a COCO crowd (many cells in one box): ignored in training and scoring."""
        return bool(self.extra.get("iscrowd"))

    def scaled(self, factor: float) -> "Cell":
        """Return the cell in an image resized by `factor`."""
        extra = dict(self.extra)
        if "nucleus" in extra:
            extra["nucleus"] = [value * factor for value in extra["nucleus"]]
        for stale in ("area", "segmentation"):
            extra.pop(stale, None)
        return replace(self, box=tuple(value * factor for value in self.box), extra=extra)  # type: ignore[arg-type]

    def moved(self, dx: float, dy: float) -> "Cell":
        """Return the cell shifted by (dx, dy) pixels."""
        x0, y0, x1, y1 = self.box
        extra = dict(self.extra)
        if "nucleus" in extra:
            extra["nucleus"] = [extra["nucleus"][0] + dx, extra["nucleus"][1] + dy]
        return replace(self, box=(x0 + dx, y0 + dy, x1 + dx, y1 + dy), extra=extra)


@dataclass(frozen=True)
class Image:
    """One image file of a data set with its cells.

    Attributes:
        file_name: path below the data set's image folder, with forward slashes.
        width: pixels.
        height: pixels.
        cells: its annotated cells, in file order.
        extra: licence, source, image-level label and the like, kept when written again.
        id: of the image in its COCO file; None in other formats.
    """

    file_name: str
    width: int
    height: int
    cells: tuple[Cell, ...] = ()
    extra: dict[str, Any] = field(default_factory=dict)
    id: int | str | None = None

    @property
    def normal(self) -> bool:
        """Whether all its cells are NILM, or it has none."""
        return all(cell.category == NILM for cell in self.cells)


@dataclass(frozen=True)
class DataSet:
    """Images, the ordered categories of their cells, and information on the whole data set.

    Attributes:
        folder: where the image files are.
        images: in file order.
        categories: names in order; the first is YOLO's 0 and, unless `category_ids` differ, COCO's 1.
        licences: COCO's licence entries (`id`, `name`, `url`).
        info: COCO's info entry.
        parts: file names of the images of each part ('train', 'val', 'test'), if the data set has parts.
        category_ids: ids of the categories in their COCO file.
    """

    folder: Path
    images: tuple[Image, ...]
    categories: tuple[str, ...]
    licences: tuple[dict[str, Any], ...] = ()
    info: dict[str, Any] = field(default_factory=dict)
    parts: dict[str, tuple[str, ...]] = field(default_factory=dict)
    category_ids: dict[str, int | str] = field(default_factory=dict)

    def path(self, image: Image) -> Path:
        """Return the path of the file of `image`."""
        return self.folder / image.file_name
