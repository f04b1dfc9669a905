"""Data sets that are read image by image: COCO in parts, WebDataset, Parquet."""

import shutil
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from ..annotations import DataSet, Image
from ..errors import FormatProblem, UsageError, UserError
from ..io import atomic, lock, plain, wording
from ..io.progress import meter
from ..io.seen import Seen, seen
from . import check as checking
from . import file_names, image_files, split
from .annotated_images import AnnotatedImage, AnnotatedImages, InParts
from .formats import coco, coco_parts, packed, parquet, webdataset
from .read import FOUND_OUT, Place, read

PACKED: dict[str, Callable[[Path], AnnotatedImages]] = {
    "webdataset": webdataset.WebDataset,
    "parquet": parquet.ParquetSet,
}
FIRST = {"webdataset": f"000000.{webdataset.SUFFIX}", "parquet": f"000000.{parquet.SUFFIX}"}
"""The file that every set of the format has."""


class Writer(Protocol):
    """Writes the images of a set into a folder, one after the other."""

    def add(self, image: Image, content: bytes) -> None:
        """Add `image`, whose file is `content`."""
        ...

    def close(self) -> None:
        """Write what is said of the whole."""
        ...


WRITERS: dict[str, Callable[[DataSet, Path], Writer]] = {"webdataset": webdataset.Writer, "parquet": parquet.Writer}


@dataclass(frozen=True)
class Written:
    """A written data set: its description, the numbers of images and cells, and the sizes of its parts."""

    about: DataSet
    images: int
    cells: int
    sizes: split.Sizes


def kind(root: Path) -> str | None:
    """Return the format of the data set at `root`, None if it is none of those that are gone through."""
    if (root / packed.ABOUT).is_file():
        for name, first in FIRST.items():
            if (root / first).is_file():
                return name
    return "coco" if root.is_dir() and coco.parts(root) else None


def opened(root: Path) -> AnnotatedImages:
    """Return the data set at `root`, which has a `kind`; raise FormatProblem if it cannot be read."""
    found = kind(root)
    if found is None:
        raise UserError(f"{root}: not a packed data set or one in parts")
    return InParts(root) if found == "coco" else PACKED[found](root)


def part(found: AnnotatedImages, name: str, root: Path) -> Sequence[int]:
    """Return the places of the images of `found`, the data set at `root`, in the part `name` of its split.

    As `split.part`, but that an image in two parts is not noticed. Eight bytes of memory an image.
    """
    if name == "all":
        return range(len(found))
    file = root / split.FILE
    if file.exists():
        parts = {key: values for key, values in plain.load(file).items() if isinstance(values, list)}
        if name not in parts:
            raise UserError(f"{file}: no part '{name}'; the parts are {', '.join(sorted(parts))}")
        members = {value for value in parts[name] if isinstance(value, str)}
    elif name not in split.FRACTIONS:
        raise UserError(f"{root}: no part '{name}'; without {split.FILE} the parts are {', '.join(split.FRACTIONS)}")
    indices = array("Q")
    with meter("reading annotations", len(found)) as bar:
        for index, entry in enumerate(found):
            image = entry.image
            if image.file_name in members if file.exists() else split.assigned(split.group(image)) == name:
                indices.append(index)
            bar.advance()
    return indices


def entries(root: Path, of: str | None, place: Place = FOUND_OUT) -> tuple[DataSet, int, Iterator[AnnotatedImage]]:
    """Return the description of the data set at `root`, in any format, its number of images, and the images."""
    if kind(root):
        found = opened(root)
        return found.about, len(found), iter(found)
    data = read(root, of, place=place)
    listed = (AnnotatedImage(image, file_names.inside(data.folder, image.file_name)) for image in data.images)
    return replace(data, images=()), len(data.images), listed


def convert(
    source: Path,
    out: Path,
    of: str | None,
    target: str,
    names: Mapping[str, str] | None = None,
    place: Place = FOUND_OUT,
) -> Written:
    """Write the data set at `source` to the new folder `out` in the format `target`, one image after the other.

    Args:
        source: data set of any format.
        out: complete or absent; nothing is left there when it fails.
        of: format of the source; None: guessed.
        target: 'webdataset', 'parquet', or 'coco', in parts where it is large.
        names: new names of categories.
        place: where the files of the source lie, where that is not to be found out.

    Raises UserError for what cannot be read or written.
    """
    if target not in WRITERS and target != "coco":
        raise UsageError(f"{source}: a packed data set cannot be converted to {target}; convert it to coco first")
    with lock.new(out):
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise UserError(f"{out}: already exists; give a new folder")
        about, count, found = entries(source, of, place)
        if not count:
            raise UserError(f"{source}: contains no image")
        new = _renamed(about, names or {}, source)
        with atomic.folder(out, fresh=True) as folder, meter("images", count) as bar, seen() as taken:
            divided = split.stated(source) or about.parts
            tally = _Tally(split.Sizes(divided))

            def sound() -> Iterator[tuple[Image, bytes]]:
                for entry in found:
                    yield tally.counted(_sound(entry, names or {}, taken)), entry.content()
                    bar.advance()

            if target == "coco":
                coco_parts.write(new, _copied(sound(), folder), count, folder)
            else:
                writer = WRITERS[target](new, folder)
                for image, content in sound():
                    writer.add(image, content)
                writer.close()
            file = (source if source.is_dir() else source.parent) / split.FILE
            if file.exists():
                atomic.write_json(folder / split.FILE, plain.load(file))
            elif about.parts:
                atomic.write_json(folder / split.FILE, {name: list(files) for name, files in about.parts.items()})
    return Written(new, tally.images, tally.cells, tally.sizes)


def pack(root: Path, target: str | None) -> None:
    """Write the finished COCO data set `root` to its folder `target` in that format too, where it is not there yet.

    Images are there twice then. Nothing is done where `target` is None; one of fewer images is made again.
    """
    if target is None:
        return
    out = root / target
    _, count, _ = entries(root, "coco")
    if out.exists() and kind(out) == target:
        if len(opened(out)) == count:
            return
        shutil.rmtree(out)
    convert(root, out, "coco", target)


class _Tally:
    """Counts images and cells, and the images of parts."""

    images = cells = 0

    def __init__(self, sizes: split.Sizes) -> None:
        """Start with none; `sizes` are those of parts."""
        self.sizes = sizes

    def counted(self, image: Image) -> Image:
        """Return `image`, counted."""
        self.sizes.add(image)
        self.images += 1
        self.cells += len(image.cells)
        return image


def _copied(images: Iterator[tuple[Image, bytes]], root: Path) -> Iterator[Image]:
    for image, content in images:
        path = root / "images" / image.file_name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)  # the folder as a whole is complete or absent
        yield image


def _renamed(about: DataSet, names: Mapping[str, str], source: Path) -> DataSet:
    """Return `about` with the new `names` of its categories; raise UsageError for one that it does not have."""
    unknown = sorted(set(names) - set(about.categories))
    if unknown:
        raise UsageError(f"--rename {unknown[0]}: unknown category; {source} has {wording.listed(about.categories)}")
    categories = tuple(dict.fromkeys(names.get(name, name) for name in about.categories))
    return replace(about, categories=categories, category_ids={} if names else about.category_ids)


def _sound(entry: AnnotatedImage, names: Mapping[str, str], taken: Seen) -> Image:
    """Return the image of `entry` under the new `names`; raise UserError if it cannot be written anywhere."""
    image = entry.image
    height, width = entry.pixels().shape[:2]
    if (width, height) != (image.width, image.height):
        annotated = (image.width, image.height)
        raise UserError(f"{image_files.other_size(entry.path, (width, height), annotated)}; see `cytosynth check`")
    if taken.first(image.file_name, image.file_name):
        raise UserError(f"{entry.path}: {image.file_name} is listed twice")
    cells = tuple(replace(cell, category=names.get(cell.category, cell.category)) for cell in image.cells)
    return replace(image, cells=cells)


def check(root: Path, note: Callable[[str], None] = lambda _: None) -> Iterator[str]:
    """Yield a line for each problem of the data set at `root`, which has a `kind`; `note` what is there at the end."""
    found = opened(root)
    cells, sizes = 0, split.Sizes(split.stated(root))
    with meter("checking", len(found)) as bar, seen() as names, seen() as contents:
        for index in range(len(found)):
            bar.advance()
            try:
                entry = found[index]
            except (FormatProblem, image_files.ImageProblem) as problem:
                yield str(problem)
                continue
            image = entry.image
            cells += len(image.cells)
            sizes.add(image)
            if names.first(image.file_name, image.file_name):
                yield f"{image.file_name}: listed twice"
            yield from checking.of_image(image, entry.path, entry.pixels, contents)
            yield from checking.of_cells(image)
    note(f"{kind(root)}, {wording.amount(len(found), 'image')}, {wording.amount(cells, 'cell')}")
    for line in sizes.lines(found.about):
        note(line)
