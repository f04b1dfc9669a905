"""WebDataset: tar files of 1,000 images, each image file followed by its annotations as JSON under the same key.

Plain tar (ustar); any reader of WebDataset reads them. Each image can be read by its place in the file, so a set of any
size is gone through, or sampled from, with 40 bytes of memory an image.
"""

import io
import tarfile
from array import array
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from ...annotations import DataSet, Image
from ...errors import FormatProblem
from ..annotated_images import AnnotatedImage, AnnotatedImages
from ..image_files import MAX_FILE, SUFFIXES
from . import packed

SUFFIX = "tar"


class Writer:
    """Writes images into the tar files of a folder, one after the other."""

    def __init__(self, about: DataSet, root: Path) -> None:
        """Write the set that `about` describes into the folder `root`."""
        self.about, self.root, self.encoder = about, root, packed.Encoder(about)
        self.tar: tarfile.TarFile | None = None

    def add(self, image: Image, content: bytes) -> None:
        """Add `image`, whose file is `content`."""
        number = self.encoder.count
        if number % packed.IMAGES == 0:
            self._end()
            path = self.root / f"{number // packed.IMAGES:06d}.{SUFFIX}"
            self.tar = tarfile.open(path, "w", format=tarfile.USTAR_FORMAT)  # noqa: SIM115
        key = f"{number + 1:09d}"
        self._member(key + packed.suffix(image.file_name), content)
        self._member(f"{key}.json", packed.to_json(self.encoder.encode(image)))

    def close(self) -> None:
        """Finish the last file, and write the description of the whole set."""
        self._end()
        packed.write_about(self.about, self.root)

    def _member(self, name: str, content: bytes) -> None:
        assert self.tar is not None
        info = tarfile.TarInfo(name)  # its times and owners are 0, so that the bytes are the same every time
        info.size, info.mode = len(content), 0o644
        self.tar.addfile(info, io.BytesIO(content))

    def _end(self) -> None:
        if self.tar:
            self.tar.close()


@dataclass(frozen=True)
class Member:
    """An image file in a tar file: where it begins, and how long it is."""

    path: Path
    start: int
    size: int

    def read(self) -> bytes:
        """Return its bytes; raise FormatProblem if the tar file has changed."""
        return _read(self.path, self.start, self.size)


class WebDataset(AnnotatedImages):
    """A data set in tar files. In memory are only the places of its images."""

    def __init__(self, root: Path) -> None:
        """Find the images of the tar files in `root`; raise FormatProblem for what this format does not have."""
        self.about, self.categories = packed.read_about(root)
        self.files = list(packed.numbered(root, SUFFIX))
        self.places = array("Q")
        """Number of the file; start and size of the image; start and size of its annotations."""
        for number, path in enumerate(self.files):
            self._index(number, path)

    def __len__(self) -> int:
        """Return how many images there are."""
        return len(self.places) // 5

    def entry(self, index: int) -> AnnotatedImage:
        """Return the image at `index`; raise FormatProblem if its annotations cannot be read."""
        number, start, size, json_start, json_size = self.places[5 * index : 5 * index + 5]
        path = self.files[number]
        image = packed.decode(_read(path, json_start, json_size), self.categories, path / f"{index + 1:09d}.json")
        return AnnotatedImage(image, path / image.file_name, Member(path, start, size))

    def _index(self, number: int, path: Path) -> None:
        image: tuple[str, int, int] | None = None
        try:
            with tarfile.open(path, "r:") as tar:
                while member := tar.next():
                    tar.members = []  # type: ignore[attr-defined]  # or it would keep them all
                    name = PurePosixPath(member.name)
                    if not member.isreg():
                        raise FormatProblem(f"{path}: {member.name[:80]!r} is not a file")
                    if name.suffix.lower() in SUFFIXES and image is None and member.size <= MAX_FILE:
                        image = (name.stem, member.offset_data, member.size)
                    elif name.suffix == ".json" and image and name.stem == image[0]:
                        self.places.extend([number, *image[1:], member.offset_data, member.size])
                        image = None
                    else:
                        raise FormatProblem(f"{path}: {member.name[:80]!r}: expected an image, followed by its .json")
        except (tarfile.TarError, OSError, ValueError, EOFError) as error:
            raise FormatProblem(f"{path}: not a readable tar file ({str(error)[:120]})") from None
        if image:
            raise FormatProblem(f"{path}: {image[0][:80]}.json is missing")


def _read(path: Path, start: int, size: int) -> bytes:
    with path.open("rb") as file:
        found = _exactly(file, start, size)
    if found is None:
        raise FormatProblem(f"{path}: is cut short")
    return found


def _exactly(file: BinaryIO, start: int, size: int) -> bytes | None:
    if start + size > file.seek(0, 2):
        return None
    file.seek(start)
    return file.read(size)
