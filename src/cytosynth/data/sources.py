"""Loading the annotated images that a recipe trains on, at its working scale."""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Protocol, overload

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from ..annotations import Cell, DataSet, Image
from ..errors import UserError
from ..io.progress import console, meter
from . import file_names, image_files, split, streaming
from .annotated_images import AnnotatedImages, Member
from .formats import findings
from .image_files import Pixels
from .read import Place, read
from .slides import reader, training_fields

KEPT = 4 * 2**30
"""Bytes of pixels that `load` keeps in memory, 1,365 images of 1024 x 1024; the others are read at each use."""


class Source(BaseModel):
    """One data set of a recipe: a folder in any format that is read, plain images and slides too, or a COCO file."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    root: str = Field(description="folder, relative to --data-root")
    scale: float = Field(default=1.0, gt=0, le=8, description="resize by this factor, to bring images to x20")
    split: str = Field(default="train", description="part of the data set to use, or 'all'")
    annotations: str = Field(default="", description="file or folder of annotations, relative to root; empty: detected")
    images: str = Field(default="", description="folder of images, relative to root; empty: detected")
    recursive: bool = Field(default=False, description="also read images in subfolders")

    def read(self, data_root: Path, note: findings.Note | None = None) -> DataSet:
        """Return the data set, of which `root` is below `data_root`; `note` receives corrections."""
        root = data_root / self.root
        annotations, images = (root / name if name else None for name in (self.annotations, self.images))
        return read(root, note=note, place=Place(annotations, images, self.recursive))

    def chosen(self, data: DataSet, data_root: Path) -> tuple[Image, ...]:
        """Return the images of its part of `data`, which was read from below `data_root`."""
        return split.part(data, self.split, data_root / self.root)


class Readable(Protocol):
    """An image that is read or made at each use."""

    @property
    def size(self) -> tuple[int, int]:
        """Its (width, height), pixels."""

    def read(self) -> Pixels:
        """Return its (height, width, 3) pixels."""


@dataclass(frozen=True)
class Stored:
    """An image that is read from its file at each use.

    Attributes:
        path: the file.
        scale: by which it is resized.
        size: (width, height) then, pixels.
        member: its position inside a larger file; `path` then only names it.
    """

    path: Path
    scale: float
    size: tuple[int, int]
    member: Member | None = None

    def read(self) -> Pixels:
        """Return its (height, width, 3) pixels; raise ImageProblem when it is not what it was."""
        pixels = image_files.read(self.path, self.scale, self.member.read() if self.member else None)
        if (pixels.shape[1], pixels.shape[0]) != self.size:
            raise image_files.ImageProblem(f"{self.path}: has changed since it was first read")
        return pixels


class Room:
    """The rest of `KEPT`."""

    def __init__(self) -> None:
        """Start with all of it."""
        self.left = KEPT

    def image(self, path: Path, scale: float = 1.0) -> "Pixels | Readable":
        """Return the pixels of the image at `path`, resized by `scale`, or where they are read from if no room is left.

        It is read in any case, so that an unreadable one is reported before anything starts.
        """
        pixels = image_files.read(path, scale)
        return self.kept(Stored(path, scale, (pixels.shape[1], pixels.shape[0])), pixels)

    def kept(self, stored: "Readable", pixels: Pixels) -> "Pixels | Readable":
        """Return `pixels`, or where they are `stored` if no room is left."""
        self.left -= pixels.nbytes
        return pixels if self.left >= 0 else stored


@dataclass(frozen=True)
class Sample:
    """One training image.

    Attributes:
        name: file name in its set.
        source: name of its set.
        image: (height, width, 3) RGB at the working scale, or where that is read from.
        cells: its cells at the same scale.
        label: the image-level label, where the set gives one.
    """

    name: str
    source: str
    image: Pixels | Readable
    cells: tuple[Cell, ...]
    label: str | None = None

    @property
    def pixels(self) -> Pixels:
        """Its (height, width, 3) RGB pixels at the working scale."""
        return self.image if isinstance(self.image, np.ndarray) else self.image.read()

    @property
    def size(self) -> tuple[int, int]:
        """Its (width, height), pixels at the working scale; nothing is read for it."""
        return (self.image.shape[1], self.image.shape[0]) if isinstance(self.image, np.ndarray) else self.image.size


def part(source: Source, data_root: Path) -> tuple[Image, ...]:
    """Return the images of the part of `source`, a set below `data_root`; corrections are not reported again."""
    return source.chosen(source.read(data_root, findings.ignore), data_root)


def say_lacking(samples: Sequence[Sample], categories: Sequence[str]) -> set[str]:
    """Return the categories of the cells of `samples`; print those of `categories` that have none."""
    there = {cell.category for sample in samples for cell in sample.cells if not cell.crowd}
    lacking = [name for name in categories if name not in there]
    if lacking and len(lacking) < len(categories):
        console.print(
            f"the training data have no cell of {', '.join(lacking)}, so this category will not be learnt",
            soft_wrap=True,
        )
    return there


def held_out(sources: Sequence[Source], data_root: Path) -> Sequence[Sample]:
    """Return the validation images of those of `sources` that are trained on by their part 'train'.

    A source that is used whole has none, since all its images are trained on; nor has one without this part in
    `split.json`.
    """
    trained = [s for s in sources if s.split == "train"]
    divided = [s for s in trained if "val" in _parts(s, data_root)]
    validation = [s.model_copy(update={"split": "val"}) for s in divided]
    return load(validation, data_root, "reading held-out images", required=False)


def _parts(source: Source, data_root: Path) -> list[str]:
    """Return the names of the parts of `source`."""
    root = data_root / source.root
    if streaming.kind(root) in streaming.PACKED:
        return split.names(DataSet(root, (), ()), root)
    return split.names(source.read(data_root, findings.ignore), root)


class Samples(Sequence[Sample]):
    """The images of a part of a packed data set; each is read, and made a sample, when it is asked for."""

    def __init__(self, entries: AnnotatedImages, indices: Sequence[int], source: Source) -> None:
        """Hold those of `entries` at `indices`, at the scale of their `source`."""
        self.entries, self.indices, self.source = entries, indices, source

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self.indices)

    @overload
    def __getitem__(self, index: int) -> Sample: ...
    @overload
    def __getitem__(self, index: slice) -> "Samples": ...
    def __getitem__(self, index: int | slice) -> "Sample | Samples":
        """Return the sample at `index`."""
        if isinstance(index, slice):
            return Samples(self.entries, self.indices[index], self.source)
        entry, scale = self.entries[self.indices[index]], self.source.scale
        image = entry.image
        width, height = (max(1, round(side * scale)) for side in (image.width, image.height))
        return Sample(
            image.file_name, Path(self.source.root).name, Stored(entry.path, scale, (width, height), entry.member),
            tuple(cell.scaled(scale) for cell in image.cells), image.extra.get("image_level_label"),
        )  # fmt: skip


class Joined(Sequence[Sample]):
    """Several sequences of samples, one after the other."""

    def __init__(self, parts: Sequence[Sequence[Sample]]) -> None:
        """Hold `parts`."""
        self.parts = [part for part in parts if len(part)]
        self.ends = [0, *accumulate(map(len, self.parts))]

    def __len__(self) -> int:
        """Return how many there are."""
        return self.ends[-1]

    @overload
    def __getitem__(self, index: int) -> Sample: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Sample]: ...
    def __getitem__(self, index: int | slice) -> "Sample | Sequence[Sample]":
        """Return the sample at `index`."""
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        index %= len(self)
        number = bisect_right(self.ends, index) - 1
        return self.parts[number][index - self.ends[number]]


def load(
    sources: Sequence[Source], data_root: Path, title: str = "reading images", required: bool = True
) -> Sequence[Sample]:
    """Return every image of `sources` (folders below `data_root`), read and scaled.

    Each is read once, so that a broken one is named before anything begins; up to `KEPT` bytes stay in memory. Data
    sets that are packed are read when their images are asked for. Raises UserError when a source is missing or, if that
    is `required`, has no image in the part asked for.
    """
    chosen = []
    packed: list[Sequence[Sample]] = []
    for source in sources:
        root = data_root / source.root
        if streaming.kind(root) in streaming.PACKED:
            packed.append(_packed(source, root, required))
            continue
        data = source.read(data_root)
        images = source.chosen(data, data_root)
        if required and not images:
            raise UserError(f"{data_root / source.root}: no image in part '{source.split}'")
        chosen += [(source, data, image) for image in images]
    samples: list[Sample] = []
    room = Room()
    with meter(title, len(chosen)) as bar:
        for source, data, image in chosen:
            if reader.is_slide(data.folder / image.file_name):
                samples += [
                    Sample(name, Path(source.root).name, room.kept(field, field.read()), cells)
                    for name, field, cells in training_fields.of_slide(data.folder / image.file_name)
                ]
                bar.advance()
                continue
            path = file_names.inside(data.folder, image.file_name)
            image_files.same_size(path, (image.width, image.height))
            pixels = room.image(path, source.scale)
            cells = tuple(cell.scaled(source.scale) for cell in image.cells)
            label = image.extra.get("image_level_label")
            samples.append(Sample(image.file_name, Path(source.root).name, pixels, cells, label))
            bar.advance()
    return Joined([samples, *packed]) if packed else samples


def _packed(source: Source, root: Path, required: bool) -> Samples:
    """Return the samples of the packed data set of `source` in the folder `root`; UserError as of `load`."""
    entries = streaming.opened(root)
    indices = streaming.part(entries, source.split, root)
    if required and not len(indices):
        raise UserError(f"{root}: no image in part '{source.split}'")
    return Samples(entries, indices, source)
