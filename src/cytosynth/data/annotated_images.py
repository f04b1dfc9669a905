"""A data set image by image: its annotations and where its file is, in memory, in parts, or packed in larger files.

A set of a million images does not fit into memory, even without its pixels; its entries are read when they are asked
for.
"""

from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol, overload

from ..annotations import DataSet, Image
from . import file_names, image_files
from .formats import coco, coco_parts
from .image_files import Pixels


class Member(Protocol):
    """The position of an image file inside a larger file."""

    def read(self) -> bytes:
        """Return the bytes of the image file; raise FormatProblem if they cannot be read."""
        ...


@dataclass(frozen=True)
class AnnotatedImage:
    """An image of a data set.

    Attributes:
        image: its annotations.
        path: its file, or its name in messages if it is inside a larger one. member: its position inside that; None: it
        is a file.
    """

    image: Image
    path: Path
    member: Member | None = None

    def pixels(self, scale: float = 1.0) -> Pixels:
        """Return its pixels, resized by `scale`; raise ImageProblem, or FormatProblem of the file that it is in."""
        return image_files.read(self.path, scale, self.member.read() if self.member else None)

    def content(self) -> bytes:
        """Return the bytes of its file."""
        return self.member.read() if self.member else self.path.read_bytes()


class AnnotatedImages(Sequence[AnnotatedImage], ABC):
    """The images of a data set, in its order.

    Attributes:
        about: categories, licences and info; no images.
    """

    about: DataSet

    @abstractmethod
    def entry(self, index: int) -> AnnotatedImage:
        """Return the image at `index`, from 0."""

    @overload
    def __getitem__(self, index: int) -> AnnotatedImage: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[AnnotatedImage]: ...
    def __getitem__(self, index: int | slice) -> "AnnotatedImage | Sequence[AnnotatedImage]":
        """Return the image at `index`, or those of a slice."""
        if isinstance(index, slice):
            return [self.entry(number) for number in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        return self.entry(index % len(self))


class InParts(AnnotatedImages):
    """A COCO data set in parts, of which one at a time is in memory."""

    def __init__(self, root: Path) -> None:
        """Count the images of the parts in the folder `root`; raise FormatProblem for one that cannot be read."""
        self.root, self.ends = root, [0]
        for part in coco_parts.read(root):
            self.about = replace(part, images=())
            self.ends.append(self.ends[-1] + len(part.images))
        self._open: tuple[int, DataSet] | None = None

    def __len__(self) -> int:
        """Return how many images there are."""
        return self.ends[-1]

    def entry(self, index: int) -> AnnotatedImage:
        """Return the image at `index`; its part stays open until one of another is asked for."""
        number = bisect_right(self.ends, index) - 1
        if self._open is None or self._open[0] != number:
            part = coco.read(coco.parts(self.root)[number])
            self._open = (number, replace(part, folder=self.root / "images"))
        data = self._open[1]
        image = data.images[index - self.ends[number]]
        return AnnotatedImage(image, file_names.inside(data.folder, image.file_name))
