"""`detect`: the cells of all images of a folder, as COCO, as GeoJSON for QuPath, and drawn on the images."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import AfterValidator, BaseModel, Field, ValidationError

from ..annotations import Cell, DataSet, Image
from ..config import pin
from ..data import file_names, image_files, split
from ..data import shard as shards
from ..data.formats import coco, qupath
from ..data.gather import beside
from ..data.preview import save_png, with_boxes
from ..data.pseudonyms import Pseudonyms
from ..data.read import FOUND_OUT, Place, annotated, read
from ..data.shard import Shard
from ..data.slides import reader
from ..errors import UsageError, UserError
from ..io import atomic, lock, plain, wording
from ..io.plain import last, one_line
from ..io.progress import console, meter
from ..io.records import append_line, line
from ..provenance import Box
from . import slide
from .finder import Finder, Here, Search
from .model import Detector

RUN = "detect.json"
FOUND = "found.jsonl"
RESULTS = "results.json"
PICTURES = "pictures"
QUPATH = "qupath"
NOTICE = "Cells found by CytoSynth's detector. Not for diagnosis."


@dataclass(frozen=True)
class Images:
    """The images to search: name and path of each, facts on the whole set, and lines on names that cannot be used."""

    files: tuple[tuple[str, Path], ...]
    source: str
    licences: tuple[dict[str, Any], ...] = ()
    refused: tuple[str, ...] = ()
    ids: dict[str, int | str] = field(default_factory=dict)
    category_ids: dict[str, int | str] = field(default_factory=dict)
    pseudonyms: Pseudonyms | None = None

    def under(self, pseudonyms: Pseudonyms | None) -> "Images":
        """Return them under the names from `pseudonyms`, if given."""
        if pseudonyms is None:
            return self
        return replace(
            self, files=tuple((pseudonyms.name(name), path) for name, path in self.files), pseudonyms=pseudonyms,
            source=pseudonyms.hashed(self.source), refused=tuple(map(pseudonyms.line, self.refused)),
            ids={pseudonyms.name(name): key for name, key in self.ids.items() if isinstance(key, int)},
        )  # fmt: skip


def gather(source: Path, part: str | None = None, place: Place = FOUND_OUT) -> Images:
    """Return the images and slides of `source`: a file, a folder, or a data set in any format (or a `part` of it).

    `place` gives the paths of annotations and images, and whether subfolders are searched too. Raises UserError if
    there is none.
    """
    if not source.exists():
        raise UserError(f"{source}: no such file or folder")
    if place.annotations or annotated(source):
        data = read(source, place=place)
        chosen = split.part(data, part, source) if part else data.images
        if not chosen:
            raise UserError(f"{source}: no image in part '{part or 'all'}'")
        files, refused = file_names.usable([(p.file_name, data.folder / p.file_name) for p in chosen], data.folder)
        ids = {image.file_name: image.id for image in chosen if image.id is not None}
        return Images(tuple(files), last(source.resolve()), data.licences, tuple(refused), ids, dict(data.category_ids))
    if part:
        raise UsageError(f"{source}: --split needs a data set with annotations ({coco.FILE} and others)")
    if not source.is_dir():
        known = image_files.SUFFIXES | reader.SLIDES
        if source.suffix.lower() not in known:
            raise UserError(f"{source}: not an image or slide ({', '.join(sorted(known))})")
        files, refused = file_names.usable([(source.name, source)], source.parent)
    else:
        files, refused = beside(source, place.recursive, slides=True)
    return Images(tuple(files), last(source.resolve()), refused=tuple(refused))


def detect(
    found: Images,
    out: Path,
    detector: "Detector | Finder",
    *,
    threshold: float = 0.5,
    scale: float = 1.0,
    mpp: float | None = None,
    strict: bool = False,
    shard: Shard | None = None,
) -> DataSet:
    """Find the cells of the images `found` and write them into `out`, or continue with the images missing there.

    Args:
        found: what `gather` returns.
        out: folder; gets `annotations.json` (COCO, with scores), `results.json` (COCO's results format, same ids),
            `pictures/NAME.png`, `qupath/NAME.geojson`, and `found.jsonl`, a line for each finished image. Of a slide,
            the picture is a thumbnail, and `tiles/NAME.jsonl` has a line for each finished tile.
        detector: finds them, in this process or elsewhere.
        threshold: score threshold, 0–1.
        scale: factor that brings the images to the detector's scale; boxes are in pixels of the images as they are.
            Slides are brought to it by their micrometres per pixel.
        mpp: micrometres per pixel of slides, where their files do not say.
        strict: stop at an image that cannot be used, rather than skip, name and count it.
        shard: which of the images; None: all.

    Returns what was found. Raises UsageError when `out` was started with another detector or settings, or as another
    shard.
    """
    finder = Here(detector) if isinstance(detector, Detector) else detector
    with lock.run(out, RUN):
        names = found.pseudonyms.hashed("") if found.pseudonyms else None
        wanted = {"detector": finder.digest, "threshold": threshold, "scale": scale, "mpp": mpp, "pseudonyms": names}
        pin(wanted, out / RUN)
        done = finished_records(out, finder.categories)
        shards.begin(out, shard, (name for name, _ in found.files), torch.get_num_threads(), bool(done))
        refused = list(map(one_line, found.refused))
        if strict and refused:
            raise image_files.ImageProblem(refused[0])
        for problem in refused:
            console.print(f"skipped {problem}", soft_wrap=True)
        files = shard.take(found.files) if shard else found.files
        images, skipped = _search(files, out, finder, (threshold, scale, mpp), strict, done)
        problems = [*refused, *(problem for _, problem in sorted(skipped.items()))]
        info = {"description": NOTICE, "images": found.source, "detector": finder.digest, "skipped": problems}
        known = tuple(replace(image, id=found.ids.get(image.file_name)) for image in images)
        data = DataSet(out, known, finder.categories, found.licences, info, category_ids=found.category_ids)
        publish(data, out)
        records = [done[image.file_name] for image in images if image.file_name in done]
        atomic.write_text(out / FOUND, "".join(map(line, records)))
        if shard:
            shards.finish(out, refused, {shard.place(index): problem for index, problem in skipped.items()})
        cells = sum(len(image.cells) for image in images)
        seen = f"{wording.amount(len(images), 'image')}, {wording.amount(cells, 'cell')}"
        console.print(f"{seen}, {wording.amount(len(problems), 'image')} skipped")
        return data


def _search(
    files: Sequence[tuple[str, Path]],
    out: Path,
    finder: Finder,
    asked: tuple[float, float, float | None],
    strict: bool,
    done: dict[str, dict[str, Any]],
) -> tuple[list[Image], dict[int, str]]:
    """Return the images of `files` with their cells, and lines on what was skipped, by its index.

    What is `asked` for is the threshold, the scale, and the micrometres per pixel of slides.
    """
    threshold, scale, mpp = asked
    found: dict[int, Image] = {}
    skipped: dict[int, str] = {}
    with meter("images", len(files)) as bar:

        def todo() -> Iterator[Search]:
            for index, (name, path) in enumerate(files):
                try:
                    if reader.is_slide(path):
                        found[index] = _slide(name, path, finder, threshold, mpp, out)
                        bar.advance()
                        continue
                    digest = image_files.fingerprint(path)
                    before = done.get(name)
                    if before and before["sha256"] == digest:
                        found[index] = _before(before)
                        bar.advance()
                        continue
                    pixels = image_files.read(path)
                    seen = pixels if scale == 1.0 else image_files.read(path, scale)
                except image_files.ImageProblem as problem:
                    if strict:
                        raise
                    skipped[index] = one_line(f"{name}: {str(problem).removeprefix(f'{path}: ')}")
                    bar.note(f"skipped {skipped[index]}")
                    bar.advance()
                    continue
                yield Search(index, name, digest, pixels, seen)

        for search, cells in finder.each(todo(), threshold):
            found[search.index], done[search.name] = _write(search, cells, scale, out)
            bar.advance()
    return [image for _, image in sorted(found.items())], skipped


def _slide(name: str, path: Path, finder: Finder, threshold: float, mpp: float | None, out: Path) -> Image:
    """Return the slide at `path` with its cells; raise UsageError if the detector is elsewhere."""
    if not isinstance(finder, Here):
        raise UsageError(f"{path}: --ray does not distribute slides; use --shard")
    files = (out / PICTURES / f"{name}.png", out / QUPATH / f"{name}.geojson")
    return slide.detect(name, path, finder.detector, threshold, mpp, out / slide.TILES, files)


def _before(record: dict[str, Any]) -> Image:
    """Return the image with its cells that was found before, as its `record` says."""
    cells = tuple(Cell(tuple(cell["box"]), cell["category"], cell["score"]) for cell in record["cells"])
    return Image(record["file_name"], record["width"], record["height"], cells)


def _write(search: Search, found: Sequence[Cell], scale: float, out: Path) -> tuple[Image, dict[str, Any]]:
    """Write what was `found` on an image, at `scale`, into `out`; return the image with its cells, and its record."""
    cells = tuple(_placed(cell, scale) for cell in found)
    save_png(with_boxes(search.pixels, cells, width=2), out / PICTURES / f"{search.name}.png")
    qupath.write(cells, search.name, out / QUPATH / f"{search.name}.geojson")
    image = Image(search.name, search.pixels.shape[1], search.pixels.shape[0], cells)
    said = [{"box": list(cell.box), "category": cell.category, "score": cell.score} for cell in cells]
    record = {
        "file_name": search.name, "sha256": search.digest, "width": image.width, "height": image.height, "cells": said
    }  # fmt: skip
    append_line(out / FOUND, record)
    return image, record


def _placed(cell: Cell, scale: float) -> Cell:
    x0, y0, x1, y1 = (round(value / scale, 2) for value in cell.box)
    return replace(cell, box=(x0, y0, x1, y1))


def publish(data: DataSet, out: Path) -> None:
    """Write both COCO files of `data`."""
    content = coco.encode(data)
    keys = ("image_id", "category_id", "bbox", "score")
    atomic.write_json(out / coco.FILE, content)
    atomic.write_json(out / RESULTS, [{key: entry[key] for key in keys} for entry in content["annotations"]])


def finished_records(out: Path, categories: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return the records of finished images by name; a line that is not `_one`'s is dropped."""
    records: dict[str, dict[str, Any]] = {}
    for record in plain.lines(out / FOUND):
        if not _whole(record, categories):
            continue
        name = record["file_name"]
        if (out / PICTURES / f"{name}.png").exists() and (out / QUPATH / f"{name}.geojson").exists():
            records[name] = record
    return records


def _safe(name: str) -> str:
    if reason := file_names.unsafe(name):
        raise ValueError(reason)
    return name


class _FoundCell(BaseModel, strict=True):
    """A found cell in a line of `found.jsonl`."""

    box: Box
    category: str
    score: float = Field(ge=0, le=1)


class _Found(BaseModel, strict=True):
    """A line of `found.jsonl`: an image in which cells were searched."""

    file_name: Annotated[str, AfterValidator(_safe)]
    sha256: str = Field(min_length=1)
    width: int = Field(gt=0)
    height: int = Field(gt=0)
    cells: list[_FoundCell]


def _whole(record: Any, categories: Sequence[str]) -> bool:
    """Return whether `record` is one of an image in which cells of `categories` were searched."""
    try:
        return all(cell.category in categories for cell in _Found.model_validate(record).cells)
    except ValidationError:
        return False
