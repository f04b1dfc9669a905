"""Loading the annotated pictures that a recipe trains on, at its working scale."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import UserError
from ..field import Cell
from ..training.progress import meter
from ..training.recipe import Source
from . import coco, images, split
from .images import Pixels


@dataclass(frozen=True)
class Sample:
    """One training picture.

    Attributes:
        name: file name in its set.
        source: name of its set.
        pixels: (height, width, 3) RGB at the working scale.
        cells: its cells at the same scale.
        label: the image-level label, where the set gives one.
    """

    name: str
    source: str
    pixels: Pixels
    cells: tuple[Cell, ...]
    label: str | None = None


def held_out(sources: Sequence[Source], data_root: Path) -> list[Sample]:
    """Return the validation pictures of those of `sources` that are trained on by their part 'train'.

    A source that is used whole has none: it would be measured on what it was trained on.
    """
    validation = [s.model_copy(update={"split": "val"}) for s in sources if s.split == "train"]
    return load(validation, data_root, "reading held-out images", required=False)


def load(
    sources: Sequence[Source], data_root: Path, title: str = "reading images", required: bool = True
) -> list[Sample]:
    """Return every picture of `sources` (folders below `data_root`), read and scaled.

    Raises UserError when a source is missing or, if that is `required`, has no picture in the part asked for.
    """
    chosen = []
    for source in sources:
        root = data_root / source.root
        data = coco.read(root)
        pictures = split.part(data, source.split, root)
        if required and not pictures:
            raise UserError(f"{root}: no picture in part '{source.split}'")
        chosen += [(source, data, picture) for picture in pictures]
    samples = []
    with meter(title, len(chosen)) as bar:
        for source, data, picture in chosen:
            pixels = images.read(images.inside(data.images, picture.file_name), source.scale)
            cells = tuple(cell.scaled(source.scale) for cell in picture.cells)
            label = picture.extra.get("image_level_label")
            samples.append(Sample(picture.file_name, Path(source.root).name, pixels, cells, label))
            bar.advance()
    return samples
