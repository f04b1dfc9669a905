"""The files of a finished slide: pyramid, annotations, provenance, preview and card."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .. import __version__
from ..annotations import Cell, DataSet, Image
from ..data.formats import coco, qupath
from ..data.slides import thumbnail
from ..data.slides.slide import WORKING_MPP
from ..io import atomic
from ..io.plain import portable
from ..io.progress import meter
from ..provenance import NOTICES, RECORDS, png, write_records
from ..synthesis import card, plan
from ..synthesis.publish import listed
from .mapped import MappedArray
from .pyramid import FileSettings, reduce, sizes, tiles_of, write
from .settings import SlideSettings
from .work import Work

TIFF, OME_TIFF, GEOJSON, PREVIEW = "slide.tif", "slide.ome.tif", "slide.geojson", "preview.png"
PREVIEW_SIDE = 2048


@dataclass(frozen=True)
class Output:
    """The folder of a slide and the facts on it.

    Attributes:
        out: the folder.
        settings: of the slide.
        width: pixels.
        height: pixels.
        origin: 'synthetic' or 'real-to-synthetic'.
        models: name and weights' hash of each model by role.
        original: name and SHA-256 of the user's slide, "" if there is none.
        categories: that cells can become.
    """

    out: Path
    settings: SlideSettings
    width: int
    height: int
    origin: str
    models: Mapping[str, str]
    original: tuple[str, str] = ("", "")
    categories: tuple[str, ...] = ()

    def read(self) -> DataSet:
        """Return the finished slide."""
        return coco.read(self.out / coco.FILE)

    def data(self, records: Sequence[Mapping[str, Any]]) -> DataSet:
        """Return the slide with its kept cells."""
        cells = tuple(
            Cell(tuple(record["bbox_xyxy"]), record["category"], extra={"synthetic": True})
            for record in records
            if record["kept"]
        )
        extra: dict[str, Any] = {"synthetic": True, "mpp": WORKING_MPP, "seed": self.settings.pipeline.seed}
        if self.original[0]:
            extra |= {"original": self.original[0], "original_sha256": self.original[1]}
        image = Image(TIFF, self.width, self.height, cells, extra)
        info = {
            "description": "Synthetic cervical cytology (not for diagnosis)", "software": f"CytoSynth {__version__}",
            "synthetic": True,
        }  # fmt: skip
        edited = {cell.category for cell in cells}
        return DataSet(self.out, (image,), listed(self.categories, edited), info=info)


def publish(output: Output, work: Work, pixels: MappedArray, records: Sequence[dict[str, Any]]) -> DataSet:
    """Write all files of the slide `pixels` with the cells of `records`; the card comes last."""
    out, settings = output.out, output.settings
    data = output.data(records)
    levels = [pixels]
    shapes = sizes(output.width, output.height)
    for number, (width, height) in enumerate(shapes[1:], 1):
        levels.append(MappedArray(work.folder / f"level{number}.u8", (height, width, 3), np.uint8))
        reduce(levels[-2], levels[-1])
    identity = json.dumps([settings.model_dump(mode="json"), dict(output.models), output.original], sort_keys=True)
    stored = FileSettings(settings.compression, settings.quality, WORKING_MPP, NOTICES[output.origin], identity)
    files = [(TIFF, False), *([(OME_TIFF, True)] if settings.ome else [])]
    with meter("writing", tiles_of(shapes) * len(files)) as bar:
        for name, ome in files:
            write(out / name, levels, stored, bar, ome)
    write_records(out, records)
    coco.write(data, out)
    qupath.write(data.images[0].cells, TIFF, out / GEOJSON)
    _preview(output, levels, data)
    _plan(output, records)
    atomic.write_text(out / "README.md", _card(output, data, shapes))
    return data


def _preview(output: Output, levels: Sequence[MappedArray], data: DataSet) -> None:
    """Write the slide at most PREVIEW_SIDE wide and high, with a box for each cell, marked as synthetic."""
    small = next((level for level in levels if max(level.array.shape) <= PREVIEW_SIDE), levels[-1])
    shown = thumbnail.marked(np.array(small.array), data.images[0].cells, output.width / small.array.shape[1])
    atomic.write_bytes(output.out / PREVIEW, png(shown, {"origin": output.origin, "preview_of": TIFF}))


def _plan(output: Output, records: Sequence[Mapping[str, Any]]) -> None:
    """Write the plan by which the cells can be made again."""
    made: dict[str, Any] = {
        "file_name": "slide.png", "seed": output.settings.pipeline.seed, "key": 0, "width": output.width,
        "height": output.height, "cells": [record for record in records if record["kept"]],
    }  # fmt: skip
    if output.original[0]:
        made |= {"original": output.original[0], "original_sha256": output.original[1]}
    plan.write([made], output.settings.pipeline, output.models, output.out)


def _card(output: Output, data: DataSet, shapes: Sequence[tuple[int, int]]) -> str:
    models = {role: " | ".join(name.rsplit(" ", 1)) for role, name in output.models.items()}
    bundled = "bundled" in {name.rsplit(" ", 1)[0] for name in output.models.values()}
    settings = portable(output.settings.model_dump(mode="json"))
    levels = ", ".join(f"{width}x{height}" for width, height in shapes)
    sections = [
        "## Files", "",
        f"- `{TIFF}`: the slide, {WORKING_MPP} µm per pixel, a BigTIFF pyramid of {levels}",
        *([f"- `{OME_TIFF}`: the same as an OME-TIFF"] if output.settings.ome else []),
        f"- `{coco.FILE}`, `{GEOJSON}`: its cells in pixels of the slide (COCO; detections for QuPath)",
        f"- `{RECORDS}`: how each cell was made; `plan.json`: makes them again; `{PREVIEW}`: an overview", "",
    ]  # fmt: skip
    return card.text(data, models, settings, (), bundled, output.origin, sections)
