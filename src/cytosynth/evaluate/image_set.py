"""The images of a measurement: a folder of images or a COCO data set, whole or in windows, read when needed."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import overload

import numpy as np

from ..data import file_names, image_files, split, streaming
from ..data.annotated_images import Member
from ..data.gather import beside
from ..data.image_files import Pixels
from ..data.read import annotated, read
from ..errors import UsageError, UserError
from ..io import atomic, plain
from ..io.progress import console
from .statistics import members

LOSSY = frozenset({".jpg", ".jpeg", ".webp"})


@dataclass(frozen=True)
class Window:
    """One image: an image file, or a window of it.

    Attributes:
        path: the file.
        name: of the file in its set.
        group: slide, or file; windows of one group are not independent.
        size: width and height, pixels, after scaling.
        corner: x and y of the window in the scaled image.
        member: where the file is inside a larger one; `path` then only names it.
    """

    path: Path
    name: str
    group: str
    size: tuple[int, int]
    corner: tuple[int, int] = (0, 0)
    member: Member | None = None

    def holds(self, point: tuple[float, float]) -> bool:
        """Return whether (x, y) of the scaled image lies in the window."""
        return all(low <= value <= low + side for value, low, side in zip(point, self.corner, self.size, strict=True))


class ImageSet(Sequence[Pixels]):
    """Images in the order of their set; each is read from its file when it is asked for."""

    def __init__(self, source: str, windows: Sequence[Window], scale: float) -> None:
        """Hold `windows` of the set named `source`, whose images are resized by `scale`."""
        self.source, self.windows, self.scale = source, tuple(windows), scale
        self._last: tuple[Path, Pixels] | None = None

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self.windows)

    @overload
    def __getitem__(self, index: int) -> Pixels: ...
    @overload
    def __getitem__(self, index: slice) -> "ImageSet": ...
    def __getitem__(self, index: int | slice) -> "Pixels | ImageSet":
        """Return the pixels of image `index`."""
        if isinstance(index, slice):
            return self.chosen(range(*index.indices(len(self))))
        window = self.windows[index]
        if self._last is None or self._last[0] != window.path:
            content = window.member.read() if window.member else None
            self._last = (window.path, image_files.read(window.path, self.scale, content))
        (x, y), (width, height) = window.corner, window.size
        return self._last[1][y : y + height, x : x + width]

    def chosen(self, indices: Sequence[int]) -> "ImageSet":
        """Return the images of `indices`, in that order."""
        return ImageSet(self.source, [self.windows[index] for index in indices], self.scale)

    def sample(self, count: int, rng: np.random.Generator) -> "ImageSet":
        """Return `count` of them, sampled without replacement, in their order."""
        return self.chosen(sorted(rng.choice(len(self), count, replace=False).tolist()))

    def halves(self, rng: np.random.Generator) -> tuple["ImageSet", "ImageSet"]:
        """Return two halves that share no group, as equal in number as whole groups allow."""
        groups = members(self.groups)
        halves: tuple[list[int], list[int]] = ([], [])
        for number in rng.permutation(len(groups)):
            min(halves, key=len).extend(groups[number])
        return self.chosen(sorted(halves[0])), self.chosen(sorted(halves[1]))

    def whole(self) -> "ImageSet":
        """Return the whole images that they are windows of, each once."""
        files = {window.path: window for window in self.windows}
        return ImageSet(
            self.source,
            [
                Window(path, w.name, w.group, _size(path, self.scale, w.member), member=w.member)
                for path, w in files.items()
            ],
            self.scale,
        )

    def keys(self) -> list[str]:
        """Return a key of the content of each: the bytes of its file, the scale and the window."""
        scale = self.scale
        texts = (f"{_content(w)} {scale} {w.corner} {w.size}" for w in self.windows)
        return [sha256(text.encode()).hexdigest()[:32] for text in texts]

    @property
    def groups(self) -> list[str]:
        """The group of each."""
        return [window.group for window in self.windows]

    @property
    def lossy(self) -> int:
        """How many of the files are JPEG or WebP."""
        return sum(path.suffix.lower() in LOSSY for path in {window.path for window in self.windows})

    @property
    def files(self) -> int:
        """How many files they are read from."""
        return len({window.path for window in self.windows})

    @property
    def sizes(self) -> set[tuple[int, int]]:
        """The sizes that occur, (width, height)."""
        return {window.size for window in self.windows}


def gather(source: Path, part: str | None = None, scale: float = 1.0, window: int | None = None) -> ImageSet:
    """Return the images of `source`.

    Args:
        source: a COCO data set, or a folder of images.
        part: of a data set, the part of its split ('train', 'val', 'test', or 'all'); of a folder, None.
        scale: factor on the images.
        window: side of the windows they are cut into, which do not overlap, centred on each image; None: whole.

    Raises UserError for a set without images and for an image smaller than the window.
    """
    files = _files(source, part)
    windows = []
    for path, name, group, member in files:
        width, height = _size(path, scale, member)
        if window is None:
            windows.append(Window(path, name, group, (width, height), member=member))
            continue
        if min(width, height) < window:
            raise UserError(f"{path}: {width}x{height} pixels after scaling, smaller than a window of {window}")
        left, top = (width % window) // 2, (height % window) // 2
        windows += [
            Window(path, name, group, (window, window), (x, y), member)
            for y in range(top, height - window + 1, window)
            for x in range(left, width - window + 1, window)
        ]
    return ImageSet(plain.last(source.resolve()), windows, scale)


def _files(source: Path, part: str | None) -> list[tuple[Path, str, str, Member | None]]:
    """Return path, name and group of the images of `source`, and where they are inside larger files."""
    if streaming.kind(source) in streaming.PACKED:
        entries = streaming.opened(source)
        packed = (entries[index] for index in streaming.part(entries, part or "all", source))
        inside = [(one.path, one.image.file_name, split.group(one.image), one.member) for one in packed]
        if not inside:
            raise UserError(f"{source}: no image in part '{part}'")
        return inside
    if source.suffix == ".json" or annotated(source):
        data = read(source)
        chosen = split.part(data, part or "all", source)
        if not chosen:
            raise UserError(f"{source}: no image in part '{part}'")
        return [(file_names.inside(data.folder, p.file_name), p.file_name, split.group(p), None) for p in chosen]
    if not source.is_dir():
        raise UserError(f"{source}: no such folder")
    if part is not None:
        raise UsageError(f"{source}: part '{part}' needs a data set with annotations; this is a folder of images")
    found, refused = beside(source)
    for line in refused:
        console.print(f"{source}: {line}", markup=False, soft_wrap=True)
    return [(path, name, name, None) for name, path in found]


def _size(path: Path, scale: float, member: Member | None) -> tuple[int, int]:
    width, height = image_files.size(path, member.read() if member else None)
    return max(1, round(width * scale)), max(1, round(height * scale))


def _content(window: Window) -> str:
    if window.member:
        return atomic.digest(window.member.read())
    state = window.path.stat()
    return _hash(window.path, state.st_mtime_ns, state.st_size)


@lru_cache(maxsize=100_000)
def _hash(path: Path, _changed: int, _size: int) -> str:
    return atomic.sha256(path)
