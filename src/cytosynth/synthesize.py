"""The pipeline of Figure 2: generate, detect, choose, edit, write.

Every image depends on (seed, its index or name, models, settings) alone. Each is written as soon as it is
made, with a record of how; a run that was killed continues with the same command and ends byte-identical.
"""

import json
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image
from pydantic import BaseModel

from . import __version__
from .bethesda import ABNORMAL
from .cell.choose import choose
from .cell.edit import CellEditor
from .data import atomic, card, coco, images, lock
from .data.images import Pixels
from .data.preview import grid, save_png, with_boxes
from .detect.model import Detector
from .errors import UsageError, UserError
from .field import Cell, DataSet, Picture
from .normal.generate import NormalImageGenerator
from .provenance import png
from .settings import PipelineSettings, check
from .training.progress import console, meter
from .training.recipe import dump, validated

RECORDS = "provenance.jsonl"
SETTINGS = "settings.yaml"
SHOWN = 12
"""Images on the contact sheet."""


@dataclass(frozen=True)
class Job:
    """One image to make: its file name, what seeds it, and where its normal field comes from."""

    file_name: str
    key: int
    normal: Callable[[], Pixels]
    extra: dict[str, Any]


@dataclass
class Pipeline:
    """The models of a run; `generator` is None where the user's own images are edited."""

    detector: Detector
    editor: CellEditor
    generator: NormalImageGenerator | None
    names: dict[str, str]

    def models(self) -> dict[str, str]:
        """Return name and weights' hash of each model by role."""
        digests = {"detector": self.detector.digest, "cell": self.editor.digest}
        if self.generator:
            digests["normal"] = self.generator.digest
        return {role: f"{self.names[role]} {digest}" for role, digest in sorted(digests.items())}

    def make(self, job: Job, settings: PipelineSettings) -> tuple[Pixels, list[Cell], dict[str, Any]]:
        """Return the finished image of `job`, its annotated cells, and the record of how it was made."""
        field = job.normal()
        candidates = self.detector.find(field, settings.threshold)
        height, width = field.shape[:2]
        rng = np.random.default_rng([settings.seed, job.key, 2])
        plan = choose(
            candidates, (width, height), settings.cell, rng,
            fewest=settings.fewest, most=settings.most, mix=settings.mix,
        )  # fmt: skip
        edited = self.editor.edit(field, [edit for _, edit in plan], settings.cell) if plan else field
        cells = [Cell(_inside(cell.box, width, height), edit.category) for cell, edit in plan]
        record = {
            "file_name": job.file_name,
            "origin": "synthetic" if self.generator else "real-to-synthetic",
            "seed": settings.seed,
            "key": job.key,
            "candidates": len(candidates),
            "cells": [
                {"bbox_xyxy": list(done.box), "category": done.category, "edited_xyxy": list(edit.box),
                 "seed": edit.seed, "detector_score": cell.score}
                for done, (cell, edit) in zip(cells, plan, strict=True)
            ],
            "models": self.models(),
            "software": f"CytoSynth {__version__}",
        }  # fmt: skip
        return edited, cells, record | job.extra


def fields(generator: NormalImageGenerator, count: int, settings: PipelineSettings) -> Iterator[Job]:
    """Yield the jobs of `count` wholly synthetic images."""
    for index in range(count):
        yield Job(f"{index:06d}.png", index, partial(generator.field, settings.seed, index, settings.normal), {})


def own_images(pictures: Iterable[tuple[Path, dict[str, Any]]], settings: PipelineSettings) -> Iterator[Job]:
    """Yield a job for each image file of the user's, seeded by its name; licence and source go along."""
    taken: set[str] = set()
    for path, extra in pictures:
        name = path.stem + ".png"
        while name in taken:
            name = "_" + name
        taken.add(name)
        said = {"original": path.name, "picture": extra}
        yield Job(name, zlib.crc32(path.name.encode()), partial(images.read, path, settings.scale), said)


def run(
    pipeline: Pipeline,
    jobs: Sequence[Job],
    settings: PipelineSettings,
    out: Path,
    *,
    licences: Sequence[dict[str, Any]] = (),
    strict: bool = False,
) -> DataSet:
    """Make the images of `jobs` into the data set folder `out`, or go on with what is missing there.

    A user's image that cannot be used is skipped, named and counted; with `strict` it ends the run.
    Raises UsageError when `out` was begun with other settings or models.
    """
    check(settings)
    with lock.only(out):
        _pin(out, settings, pipeline.models())
        done = _records(out)
        problems = []
        with meter("images", len(jobs), sum(job.file_name in done for job in jobs)) as bar:
            for job in jobs:
                if job.file_name in done:
                    continue
                try:
                    pixels, cells, record = pipeline.make(job, settings)
                except UserError as error:
                    if strict:
                        raise
                    problems.append(str(error).replace(f"{Path.cwd()}/", ""))
                    console.print(f"skipped: {error}")
                    continue
                height, width = pixels.shape[:2]
                record |= {"width": width, "height": height}
                content = png(pixels, record)
                atomic.write_bytes(out / "images" / job.file_name, content)
                done[job.file_name] = record
                _append(out / RECORDS, record)
                bar.advance(f"{len(cells)} cells")
        records = [record for _, record in sorted(done.items())]
        return _finish(out, records, settings, pipeline, list(licences), problems)


def _pin(out: Path, settings: PipelineSettings, models: dict[str, str]) -> None:
    path = out / SETTINGS
    wanted = _Pinned(settings=settings, models=models)
    if path.exists():
        old = validated(_Pinned, yaml.safe_load(path.read_text()), str(path))
        if old != wanted:
            raise UsageError(f"{out}: begun with other settings or models (see {SETTINGS}); use another folder")
    elif (out / coco.FILE).exists() or (out / "images").exists():
        raise UsageError(f"{out}: holds something else already; use an empty folder")
    else:
        atomic.write_text(path, dump(wanted))


class _Pinned(BaseModel):
    settings: PipelineSettings
    models: dict[str, str]


def _records(out: Path) -> dict[str, dict[str, Any]]:
    """Return the records of the images that are there whole; a last line cut short by a kill is dropped."""
    path = out / RECORDS
    if not path.exists():
        return {}
    records = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if (out / "images" / record["file_name"]).exists():
            records[record["file_name"]] = record
    return records


def _append(path: Path, record: dict[str, Any]) -> None:
    """Add a line; one that a kill cut short is ended first, so that it spoils no other."""
    with path.open("a+b") as file:
        if file.tell():
            file.seek(-1, 2)
            if file.read(1) != b"\n":
                file.write(b"\n")
        file.write(_line(record).encode())


def _line(record: dict[str, Any]) -> str:
    return json.dumps(record, sort_keys=True, ensure_ascii=False) + "\n"


def _finish(
    out: Path,
    records: list[dict[str, Any]],
    settings: PipelineSettings,
    pipeline: Pipeline,
    licences: list[dict[str, Any]],
    problems: list[str],
) -> DataSet:
    pictures = tuple(
        Picture(
            record["file_name"],
            record["width"],
            record["height"],
            tuple(
                Cell(tuple(cell["bbox_xyxy"]), cell["category"], extra={"synthetic": True}) for cell in record["cells"]
            ),
            {"synthetic": True, **record.get("picture", {})},
        )
        for record in records
    )
    info = {
        "description": "Synthetic cervical cytology (not for diagnosis)",
        "software": f"CytoSynth {__version__}",
        "synthetic": True,
    }
    data = DataSet(out / "images", pictures, tuple(ABNORMAL), tuple(licences), info)
    for stray in (out / "images").glob(".*.part"):
        stray.unlink()
    atomic.write_text(out / RECORDS, "".join(_line(record) for record in records))
    coco.write(data, out)
    if pictures:
        shown = [with_boxes(images.read(data.path(p)), p.cells) for p in pictures[:SHOWN]]
        save_png(contact_sheet(shown), out / "preview.png")
    models = {role: " | ".join(name.rsplit(" ", 1)) for role, name in pipeline.models().items()}
    uses_bundled = any(name.startswith("bundled") for name in pipeline.models().values())
    atomic.write_text(
        out / "README.md", card.text(data, models, settings.model_dump(mode="json"), problems, uses_bundled)
    )
    return data


def contact_sheet(shown: Sequence[Pixels], side: int = 640) -> Pixels:
    """Return pictures with their boxes, each shrunk to at most `side` pixels, in rows of up to four."""
    small = []
    for pixels in shown:
        picture = Image.fromarray(pixels)
        picture.thumbnail((side, side), Image.Resampling.LANCZOS)
        small.append(np.asarray(picture))
    return grid(small, columns=min(4, len(small)))


def _inside(box: tuple[float, float, float, float], width: int, height: int) -> tuple[float, float, float, float]:
    return max(box[0], 0.0), max(box[1], 0.0), min(box[2], float(width)), min(box[3], float(height))
