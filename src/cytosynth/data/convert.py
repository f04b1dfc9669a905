"""Reading and writing data sets by the name of their format."""

import math
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Any

from ..annotations import DataSet
from ..errors import UsageError, UserError
from ..io import atomic, lock, plain, wording
from ..io.progress import meter
from ..registry import FORMATS_IN, FORMATS_OUT
from . import image_files
from .formats import coco, comparison_database, cric, folders, riva, slides, voc, yolo
from .formats.coco import Report, refuse
from .preview import save_png
from .rename import renamed
from .slides import fields, reader

READERS: dict[str, Callable[..., DataSet]] = {
    "coco": coco.read,
    "yolo": yolo.read,
    "voc": voc.read,
    "cric": cric.read,
    "comparison-detector": comparison_database.read,
    "riva": riva.read,
    "folders": folders.read,
    "slides": slides.read,
}
OURS = ("split.json", "dataset.json")
"""Beside the annotations of any format."""
WRITERS: dict[str, tuple[Callable[[DataSet, Path], None], str]] = {
    "coco": (coco.write, "images"),
    "yolo": (yolo.write, "images"),
    "voc": (voc.write, "JPEGImages"),
}


def guess(root: Path) -> str:
    """Return the format of the data set at `root` by its files; raise UserError when none fits."""
    if reader.holds_slides(root):
        return "slides"
    if root.is_file() and root.suffix == ".json":
        return "coco"
    if (root / coco.FILE).exists():
        return "coco"
    if (root / yolo.FILE).exists():
        return "yolo"
    if (root / "Annotations").is_dir():
        return "voc"
    if (root / "classifications.json").exists() or (root / "classifications.csv").exists():
        return "cric"
    if root.is_dir() and riva.tables(root):
        return "riva"
    inside = sorted(root.iterdir()) if root.is_dir() else []
    other = [path.name for path in inside if path.suffix.lower() in (".json", ".xml", ".csv") and path.name not in OURS]
    if "images" not in {path.name.lower() for path in inside} and not other and any(path.is_dir() for path in inside):
        return "folders"
    hint = f"; {other[0][:80]} is none of their names, COCO's is {coco.FILE}" if other else ""
    raise UserError(f"{root}: no data set of a known format there ({', '.join(FORMATS_IN)}{hint})")


def read(root: Path, kind: str | None = None, report: Report = refuse, **options: Any) -> DataSet:
    """Read the data set at `root` as format `kind`, guessed where None."""
    kind = kind or guess(root)
    if kind not in READERS:
        raise UsageError(f"format {kind!r}: there are {', '.join(READERS)}")
    return READERS[kind](root, report=report, **options)


def convert(
    source: Path, out: Path, kind: str | None, target: str, names: Mapping[str, str] | None = None, **options: Any
) -> DataSet:
    """Write the data set at `source` to the new folder `out` in the format `target`, images with it.

    Categories get the new `names` that are given for them. Slides are cut into fields at x20, all that are not empty
    glass. Complete or absent: nothing is left at `out` when it fails.
    Raises UserError for what cannot be read.
    """
    if target not in WRITERS:
        raise UsageError(f"format {target!r}: {', '.join(FORMATS_OUT)} can be written")
    with lock.new(out):
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise UserError(f"{out}: exists already; give a new folder")
        kind = kind or guess(source)
        if kind == "folders" and out.resolve().is_relative_to(source.resolve()):
            raise UsageError(f"{out}: would be a class of {source}; give a folder beside it")
        if kind == "slides":
            return _cut(source, out, target, names or {})
        data = renamed(read(source, kind, **options), names or {})
        if not data.images:
            raise UserError(f"{source}: no image in it")
        _refuse_broken(data)
        _refuse_collisions(data, target, kind)
        return _write(data, source, out, kind, target)


def _cut(source: Path, out: Path, target: str, names: Mapping[str, str]) -> DataSet:
    """Cut the slides of `source` into fields, and write these."""
    every = fields.FieldSettings(min_nuclei=0, min_focus=0)
    with TemporaryDirectory(prefix=f".{out.name}.", dir=out.resolve().parent) as folder:
        cut = Path(folder) / "fields"
        data = fields.tiles(source, cut, every, names=names, strict=True)
        if not data.images:
            raise UserError(f"{source}: no field with anything on it")
        return _write(data, cut, out, "coco", target)


def _write(data: DataSet, source: Path, out: Path, kind: str, target: str) -> DataSet:
    write, folder = WRITERS[target]
    with atomic.folder(out, fresh=True) as part, meter("images", len(data.images)) as bar:
        images = []
        for image in data.images:
            path = image_files.inside(data.folder, image.file_name)
            if kind == "comparison-detector":
                image = replace(image, file_name=_as_png(image.file_name))
                save_png(comparison_database.prepare(image_files.read(path)), part / folder / image.file_name)
            else:
                height, width = image_files.read(path).shape[:2]  # whole: its header says nothing of a file cut short
                annotated = (image.width, image.height)
                if (width, height) != annotated:
                    raise UserError(
                        f"{image_files.other_size(path, (width, height), annotated)}; see `cytosynth check`"
                    )
                (part / folder / image.file_name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, part / folder / image.file_name)
            images.append(image)
            bar.advance()
        write(replace(data, images=tuple(images)), part)
        split = source / "split.json" if source.is_dir() else source.parent / "split.json"
        if split.exists():
            parts = plain.load(split)
            if kind == "comparison-detector":
                parts = {
                    name: [_as_png(file) for file in files if isinstance(file, str) and not image_files.unsafe(file)]
                    for name, files in parts.items()
                    if isinstance(files, list)
                }
            atomic.write_json(part / "split.json", _writable(parts, split))
        elif kind == "riva" and riva.parts(data):
            atomic.write_json(part / "split.json", riva.parts(data))
    return data


def _as_png(file_name: str) -> str:
    return str(PurePosixPath(file_name).with_suffix(".png"))


def _refuse_broken(data: DataSet) -> None:
    """Raise UserError for what no format can hold: boxes that are not finite, images without a size or a safe name."""
    _writable(data.info, data.folder)
    _writable(list(data.licences), data.folder)
    for image in data.images:
        reason = image_files.unsafe(image.file_name)
        if reason:
            raise UserError(f"{data.folder}: file name {wording.said(image.file_name)}: {reason}")
        if image.width <= 0 or image.height <= 0:
            raise UserError(f"{image.file_name}: size {image.width}x{image.height}; see `cytosynth check`")
        for cell in image.cells:
            if not all(map(math.isfinite, cell.box)):
                raise UserError(f"{image.file_name}: box {cell.box} is not finite; see `cytosynth check`")


def _writable(value: Any, where: Path) -> Any:
    """Return `value`; raise UserError naming `where` it comes from when it cannot be written as JSON."""
    try:
        return plain.checked(value)
    except ValueError as error:
        raise UserError(f"{where}: {str(error)[:120]}") from None


def _refuse_collisions(data: DataSet, target: str, kind: str) -> None:
    """Raise UserError when two images would share one file of the new data set."""
    by_stem = target != "coco" or kind == "comparison-detector"
    taken: dict[str, str] = {}
    for image in data.images:
        name = str(PurePosixPath(image.file_name).with_suffix("")) if by_stem else image.file_name
        if name in taken:
            raise UserError(f"{image.file_name}: would share a file with {taken[name]}; rename one of them")
        taken[name] = image.file_name
