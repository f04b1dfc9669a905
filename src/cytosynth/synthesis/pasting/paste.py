"""A data set of pasted cells: real abnormal cells of a data set put into its normal images, each with its box."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from ... import __version__, boxes
from ...annotations import Box, Cell, DataSet, Image
from ...bethesda import ABNORMAL, NILM
from ...data import file_names, image_files
from ...data.formats import coco
from ...data.image_files import Pixels
from ...data.sources import Source
from ...errors import UsageError, UserError
from ...io import atomic
from ...io.progress import console, meter
from ...provenance import PASTED, RECORDS, descent, inside, pasted, png, problem, said, write_records
from .. import publish
from ..centre import kept_cells, without
from . import card
from .exemplars import Exemplar, cut, put
from .settings import PasteSettings

TRIES = 50
"""Number of places tried for a cell whose own place would cover another."""
APART = 2
"""Pixels between a pasted cell and earlier boxes."""
KEPT = 4096
"""Records of images kept in memory."""
Spot = tuple[tuple[float, float], str]
"""Where a cell is to be pasted (x, y), and its category; an empty one: any."""


@dataclass(frozen=True)
class Host:
    """An image to paste into.

    Attributes:
        path: of its file.
        scale: by which it is resized.
        original: its name in its set.
        spots: what is to be pasted where.
        extra: licence, source and the like of the image.
        kept: its own abnormal cells, scaled; empty for a normal image.
    """

    path: Path
    scale: float
    original: str
    spots: Sequence[Spot]
    extra: Mapping[str, Any]
    kept: Sequence[Cell] = ()


def paste(
    source: Source,
    out: Path,
    data_root: Path,
    *,
    count: int = 0,
    like: Sequence[Path] = (),
    settings: PasteSettings = PasteSettings(),  # noqa: B008
    categories: Sequence[str] = ABNORMAL,
    keep_abnormal: bool = False,
) -> DataSet:
    """Write the data set `out`: cells of `categories` of `source` pasted into its images without abnormal cells.

    Args:
        source: real annotated images; those whose cells are all NILM are pasted into.
        out: folder; written whole or not at all.
        data_root: folder that `source` is below.
        count: images to make, the normal ones over and over.
        like: data sets of edited images instead of `count`: for each of their images that was made from a normal image
            of `source` one of the same image, with as many cells at the same places, of the same categories where
            `source` has them. Edits into NILM have no counterpart; a line and the data card count images without any.
        settings: of the pasting; `min_cells` and `max_cells` count without `like` alone.
        categories: what is pasted.
        keep_abnormal: paste also into images with abnormal cells, which stay, with their boxes.

    Raises UserError if there is no image to paste into, no cell that can be cut out, or a set in `like` whose records
    cannot be read; UsageError where `out` holds something, or neither `count` nor `like` is given.
    """
    if count < 1 and not like:
        raise UsageError(f"count ({count}) must be at least 1; or give edited data sets in 'like'")
    if out.is_dir() and any(out.iterdir()):
        raise UsageError(f"{out}: not empty; use another folder")
    data = source.read(data_root)
    chosen = source.chosen(data, data_root)
    normal = [image for image in chosen if keep_abnormal or image.normal]
    where = f"{data_root / source.root}"
    if not normal:
        raise UserError(f"{where}: no image without an abnormal cell in part '{source.split}' to paste into")
    cells = _exemplars(data, chosen, source.scale, categories, settings)
    if not cells:
        raise UserError(f"{where}: no cell of {', '.join(categories)} in part '{source.split}' can be cut out whole")
    if like:
        hosts = _like(like, data, normal, source.scale)
    else:
        hosts = _around(count, data, normal, source.scale, settings)
    pool = _Pool(cells, np.random.default_rng([settings.seed, 2]))
    images, records, taken = [], [], set[str]()
    recorded = lru_cache(maxsize=KEPT)(inside)
    with atomic.folder(out, fresh=True) as part:
        (part / "images").mkdir()
        with meter("pasting", len(hosts)) as bar:
            for number, host in enumerate(hosts):
                name = file_names.flat(f"{number:06d}", ".png", taken)
                pixels, record = _pasted(host, name, number, pool, settings)
                sources = [file_names.inside(data.folder, one["original"]) for one in pasted(record)]
                record |= descent(map(recorded, [host.path, *sources]))
                atomic.write_bytes(part / "images" / name, png(pixels, record))
                records.append(record)
                images.append(publish.image_of(record))
                bar.advance(f"{len(record['cells'])} cells")
        info: dict[str, Any] = {
            "description": "Real cervical cytology with pasted cells (not for diagnosis)",
            "software": f"CytoSynth {__version__}", "synthetic": True, "origin": PASTED,
        }  # fmt: skip
        if data.info:
            info["derived_from"] = dict(data.info)
        others = {cell.category for image in images for cell in image.cells} - set(categories)
        made = DataSet(part / "images", tuple(images), (*categories, *sorted(others)), data.licences, info)
        write_records(part, records)
        coco.write(made, part)
        publish.preview(made, part, PASTED)
        sections = publish.kept_section(publish.kept_of(records))
        lines = card.missing([len(host.spots) for host in hosts], records)
        if lines:
            sections += ["## What was not pasted", "", *(f"- {line}" for line in lines), ""]
        atomic.write_text(part / "README.md", card.text(made, cells, settings, sections))
    for line in lines:
        console.print(line, soft_wrap=True)
    return replace(made, folder=out / "images")


def spots_of(record: Mapping[str, Any]) -> list[Spot]:
    """Return where the abnormal cells of an image with this `record` are, and of which category."""
    return [
        (((cell["bbox_xyxy"][0] + cell["bbox_xyxy"][2]) / 2, (cell["bbox_xyxy"][1] + cell["bbox_xyxy"][3]) / 2),
         cell["category"])
        for cell in record["cells"] if cell["category"] != NILM
    ]  # fmt: skip


class _Pool:
    """Selects exemplars evenly: all of a category are used before one is used again."""

    def __init__(self, cells: Sequence[Exemplar], rng: np.random.Generator) -> None:
        self.cells, self.rng = list(cells), rng
        self.waiting: dict[str, list[Exemplar]] = {}

    def take(self, category: str, host: str) -> Exemplar | None:
        """Return the next exemplar of `category`, or of any if there is none of it, that is not from the image `host`.

        None if all are from there.
        """
        other = [cell for cell in self.cells if cell.file_name != host]
        own = [cell for cell in other if cell.category == category]
        key = category if own else ""
        every = [cell for cell in self.cells if cell.category == category] if own else self.cells
        for _ in range(2 if other else 0):
            waiting = self.waiting.setdefault(key, [])
            for index in range(len(waiting) - 1, -1, -1):
                if waiting[index].file_name != host:
                    return waiting.pop(index)
            self.waiting[key] = [every[index] for index in self.rng.permutation(len(every))] + waiting
        return None


def _exemplars(
    data: DataSet, images: Iterable[Image], scale: float, categories: Sequence[str], settings: PasteSettings
) -> list[Exemplar]:
    found = []
    for image in images:
        if any(cell.category in categories for cell in image.cells):
            path = file_names.inside(data.folder, image.file_name)
            cells = [cell.scaled(scale) for cell in image.cells]
            pixels, digest = image_files.read(path, scale), image_files.fingerprint(path)
            found += cut(pixels, cells, image.file_name, digest, categories, settings, NILM)
    return found


def _around(count: int, data: DataSet, normal: Sequence[Image], scale: float, settings: PasteSettings) -> list[Host]:
    """Return `count` hosts, each image in turn, with places at its annotated normal cells, or anywhere without any."""
    rng = np.random.default_rng([settings.seed, 1])
    hosts = []
    for number in range(count):
        image = normal[number % len(normal)]
        wanted = int(rng.integers(settings.min_cells, settings.max_cells + 1))
        centres = [cell.scaled(scale).centre for cell in image.cells if cell.category == NILM and not cell.crowd]
        order = rng.permutation(len(centres))[:wanted]
        places = [centres[index] for index in order]
        while len(places) < wanted:
            places.append((float(rng.uniform(0, image.width * scale)), float(rng.uniform(0, image.height * scale))))
        hosts.append(_host(data, image, scale, [(place, "") for place in places]))
    return hosts


def _like(folders: Sequence[Path], data: DataSet, normal: Sequence[Image], scale: float) -> list[Host]:
    """Return a host for each image of the sets in `folders` that was made from one of the `normal` images."""
    known = {image.file_name: image for image in normal}
    hosts = []
    for folder in folders:
        records = said(folder)
        if not records:
            raise UserError(f"{folder}: no record of an image in {RECORDS}; give a data set that `edit` made")
        for name, record in sorted(records.items()):
            if reason := problem(record):
                raise UserError(f"{folder / RECORDS}: {name}: {reason}; make the edited data set again")
            image = known.get(record.get("original", ""))
            if image is None:
                raise UserError(f"{folder}: {name} was not made from a normal image of the set that is pasted into")
            size = (round(image.width * scale), round(image.height * scale))
            if (record["width"], record["height"]) != size:
                raise UserError(
                    f"{folder}: {name} has {record['width']}x{record['height']} pixels, {image.file_name} at "
                    f"scale {scale:g} {size[0]}x{size[1]}; give the scale at which it was edited"
                )
            host = _host(data, image, scale, spots_of(record))
            left = [(tuple(one["bbox_xyxy"]), one["category"]) for one in record.get("left_out", [])]
            kept, unknown = without(host.kept, left, size)
            if unknown:
                box, category = left[unknown[0]]
                raise UserError(
                    f"{folder / RECORDS}: {name}: left_out[{unknown[0]}]: {image.file_name} has no annotated "
                    f"{category[:40]!r} cell with the box {boxes.quoted(box)}; give the annotations that it was edited "
                    "with"
                )
            hosts.append(replace(host, kept=kept))
    return hosts


def _host(data: DataSet, image: Image, scale: float, spots: Sequence[Spot]) -> Host:
    kept = [cell.scaled(scale) for cell in image.cells if cell.category != NILM]
    return Host(file_names.inside(data.folder, image.file_name), scale, image.file_name, spots, image.extra, kept)


def _pasted(host: Host, name: str, number: int, pool: _Pool, settings: PasteSettings) -> tuple[Pixels, dict[str, Any]]:
    """Return the image of `host` with its cells pasted, and its record."""
    pixels = np.array(image_files.read(host.path, host.scale))
    rng = np.random.default_rng([settings.seed, 3, number])
    height, width = pixels.shape[:2]
    kept = kept_cells(host.kept, width, height)
    taken: list[Box] = [tuple(cell["bbox_xyxy"]) for cell in kept]
    cells: list[dict[str, Any]] = []
    for centre, category in host.spots:
        exemplar = pool.take(category, host.original)
        if exemplar is None:
            continue
        if settings.turns:
            exemplar = exemplar.turned(int(rng.integers(8)))
        place = _free(centre, exemplar, taken, (width, height), rng)
        if place is None or exemplar.mask.shape[0] > height or exemplar.mask.shape[1] > width:
            continue
        box = put(pixels, exemplar, place, settings.match)
        taken.append(box)
        cells.append(
            {
                "bbox_xyxy": [round(float(side), 2) for side in box], "category": exemplar.category, "seed": number,
                "pasted_from": {
                    "file_name": exemplar.file_name, "sha256": exemplar.digest,
                    "bbox_xyxy": [round(float(side), 2) for side in exemplar.source_box],
                },
            }
        )  # fmt: skip
    record: dict[str, Any] = {
        "file_name": name, "origin": PASTED, "seed": settings.seed, "key": number, "width": width, "height": height,
        "cells": cells, "original": host.original, "original_sha256": image_files.fingerprint(host.path),
        "picture": dict(host.extra), "software": f"CytoSynth {__version__}",
    } | ({"kept": kept} if kept else {})  # fmt: skip
    return pixels, record


def _free(
    centre: tuple[float, float],
    exemplar: Exemplar,
    taken: Sequence[Box],
    size: tuple[int, int],
    rng: np.random.Generator,
) -> tuple[float, float] | None:
    """Return `centre`, or another place that covers none of the boxes `taken`; None if none is found."""
    half_x, half_y = exemplar.mask.shape[1] / 2, exemplar.mask.shape[0] / 2
    place = centre
    for _ in range(TRIES):
        x = min(max(place[0], half_x), size[0] - half_x)
        y = min(max(place[1], half_y), size[1] - half_y)
        reach = (x - half_x - APART, y - half_y - APART, x + half_x + APART, y + half_y + APART)
        if not any(boxes.overlap(reach, box) for box in taken):
            return place
        place = (float(rng.uniform(0, size[0])), float(rng.uniform(0, size[1])))
    return None
