"""Writing a data set in another format, with images and parts."""

import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Any

from ..annotations import DataSet
from ..errors import UsageError, UserError
from ..io import atomic, lock, plain, wording
from ..io.progress import meter
from . import file_names, image_files, patients, split
from .formats import comparison_database, registration
from .preview import save_png
from .pseudonyms import Pseudonyms
from .read import FOUND_OUT, Place, guess, read
from .rename import renamed
from .slides import fields

__all__ = ["convert", "guess", "read"]

LABELS_BY_STEM = ("yolo", "voc")
"""Formats whose annotation files have the names of the images, without their suffix."""


def convert(
    source: Path,
    out: Path,
    kind: str | None,
    target: str,
    names: Mapping[str, str] | None = None,
    *,
    place: Place = FOUND_OUT,
    pseudonyms: Pseudonyms | None = None,
    whose: Path | None = None,
    **options: Any,
) -> DataSet:
    """Write the data set at `source` to the new folder `out` in the format `target`, images and parts with it.

    Categories get the new `names` that are given for them; with `pseudonyms`, images other file names, and their files
    are rewritten without their metadata. A table `whose`, of images and patients, gives parts by patient. Slides are
    cut into fields at x20, all that are not empty glass.
    Complete or absent: nothing is left at `out` when it fails.
    Raises UserError for what cannot be read.
    """
    registration.writer(target)
    with lock.new(out):
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise UserError(f"{out}: already exists; give a new folder")
        kind = kind or guess(source, place)
        if kind in ("folders", "images") and out.resolve().is_relative_to(source.resolve()):
            what = "a class" if kind == "folders" else "among the images"
            raise UsageError(f"{out}: would be {what} of {source}; give another folder")
        if kind == "slides":
            if whose:
                raise UsageError(f"{whose}: {source} has slides; use `cytosynth tiles --patients` for parts by patient")
            return _cut(source, out, target, names or {}, pseudonyms)
        data = renamed(read(source, kind, place=place, **options), names or {})
        data = patients.divided(data, whose) if whose else data
        if not data.images:
            raise UserError(f"{source}: contains no image")
        refuse_broken(data)
        refuse_collisions(data, target, kind)
        return write(data, out, kind, target, pseudonyms)


def _cut(source: Path, out: Path, target: str, names: Mapping[str, str], pseudonyms: Pseudonyms | None) -> DataSet:
    """Cut the slides of `source` into fields, and write these."""
    every = fields.FieldSettings(min_nuclei=0, min_focus=0)
    with TemporaryDirectory(prefix=f".{out.name}.", dir=out.resolve().parent) as folder:
        cut = Path(folder) / "fields"
        data = split.with_parts(fields.tiles(source, cut, every, names=names, strict=True), cut)
        if not data.images:
            raise UserError(f"{source}: no field shows any cells")
        return write(data, out, "coco", target, pseudonyms)


def write(data: DataSet, out: Path, kind: str, target: str, pseudonyms: Pseudonyms | None = None) -> DataSet:
    """Write `data`, read from the format `kind`, to the new folder `out` as `target`, images with it."""
    write_annotations, folder = registration.writer(target)
    new = _as_pngs(data) if kind == "comparison-detector" else data
    if pseudonyms:
        new = pseudonyms.of(new)
    with atomic.folder(out, fresh=True) as part, meter("images", len(data.images)) as bar:
        for image, named in zip(data.images, new.images, strict=True):
            path = file_names.inside(data.folder, image.file_name)
            place = part / folder / named.file_name
            pixels = image_files.read(path)  # whole: its header says nothing of a file cut short
            if kind == "comparison-detector":
                save_png(comparison_database.prepare(pixels), place)
            else:
                image_files.same_size(path, (image.width, image.height), said="; see `cytosynth check`")
                place.parent.mkdir(parents=True, exist_ok=True)
                if pseudonyms:
                    save_png(pixels, place)
                else:
                    shutil.copyfile(path, place)
            bar.advance()
        write_annotations(new, part)
        if new.parts:
            atomic.write_json(part / split.FILE, {name: list(members) for name, members in new.parts.items()})
    return new


def _as_pngs(data: DataSet) -> DataSet:
    """Return `data` with file names that end in .png."""
    images = tuple(replace(image, file_name=_as_png(image.file_name)) for image in data.images)
    there = {image.file_name for image in images}
    parts = {name: tuple(png for file in members if (png := _as_png(file)) in there)
             for name, members in data.parts.items()}  # fmt: skip
    return replace(data, images=images, parts=parts)


def _as_png(file_name: str) -> str:
    return str(PurePosixPath(file_name).with_suffix(".png"))


def refuse_broken(data: DataSet) -> None:
    """Raise UserError for what no format can store: images without a size or a safe name, invalid values."""
    _writable(data.info, data.folder)
    _writable(list(data.licences), data.folder)
    for image in data.images:
        reason = file_names.unsafe(image.file_name)
        if reason:
            raise UserError(f"{data.folder}: file name {wording.said(image.file_name)}: {reason}")
        if image.width <= 0 or image.height <= 0:
            raise UserError(f"{image.file_name}: size {image.width}x{image.height}; see `cytosynth check`")


def _writable(value: Any, where: Path) -> Any:
    """Return `value`; raise UserError naming `where` it comes from when it cannot be written as JSON."""
    try:
        return plain.checked(value)
    except ValueError as error:
        raise UserError(f"{where}: {str(error)[:120]}") from None


def refuse_collisions(data: DataSet, target: str, kind: str) -> None:
    """Raise UserError when two images would share one file of the new data set."""
    by_stem = target in LABELS_BY_STEM or kind == "comparison-detector"
    taken: dict[str, str] = {}
    for image in data.images:
        name = str(PurePosixPath(image.file_name).with_suffix("")) if by_stem else image.file_name
        if name in taken:
            raise UserError(f"{image.file_name}: its output file would be that of {taken[name]}; rename one of them")
        taken[name] = image.file_name
