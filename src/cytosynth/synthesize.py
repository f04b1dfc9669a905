"""The pipeline of Figure 2: generate, detect, choose, edit, write.

Every image depends on (seed, its index or name, models, settings) alone. Each is written as soon as it is
made, with a record of how; a run that was killed continues with the same command and ends byte-identical.
"""

import json
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import yaml
from PIL import Image
from pydantic import BaseModel

from . import __version__
from .bethesda import ABNORMAL, NILM
from .cell.choose import choose
from .cell.edit import CellEditor
from .data import atomic, card, coco, images, lock
from .data.images import Pixels
from .data.preview import grid, with_boxes
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
        digests = {
            "cell": self.editor.digest,
            "detector": self.detector.digest,
            "foundation": self.editor.model.digest,
        }
        if self.generator:
            digests["normal"] = self.generator.digest
        return {role: f"{self.names[role]} {digest}" for role, digest in sorted(digests.items())}

    def make(self, job: Job, settings: PipelineSettings) -> tuple[Pixels, list[Cell], dict[str, Any]]:
        """Return the finished image of `job`, its annotated cells, and the record of how it was made."""
        field = job.normal()
        candidates = [c for c in self.detector.find(field, settings.threshold) if c.category == NILM]
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


def fields(generator: NormalImageGenerator, indices: range, settings: PipelineSettings) -> Iterator[Job]:
    """Yield the jobs of the wholly synthetic images of `indices`."""
    for index in indices:
        yield Job(f"{index:06d}.png", index, partial(generator.field, settings.seed, index, settings.normal), {})


def own_images(pictures: Iterable[tuple[str, Path, dict[str, Any]]], settings: PipelineSettings) -> Iterator[Job]:
    """Yield a job for each image file of the user's, seeded by its name; licence and source go along."""
    taken: set[str] = set()
    for original, path, extra in pictures:
        name = PurePosixPath(original).with_suffix(".png").as_posix().replace("/", "_")
        while name in taken:
            name = "_" + name
        taken.add(name)
        said = {
            "original": original,
            "original_sha256": atomic.sha256(path) if path.is_file() else "",
            "picture": extra,
        }
        yield Job(name, zlib.crc32(original.encode()), partial(images.read, path, settings.scale), said)


def run(
    pipeline: Pipeline,
    jobs: Sequence[Job],
    settings: PipelineSettings,
    out: Path,
    *,
    licences: Sequence[dict[str, Any]] = (),
    derived_from: Mapping[str, Any] | None = None,
    strict: bool = False,
) -> DataSet:
    """Make the images of `jobs` into the data set folder `out`, or go on with what is missing there.

    A user's image that cannot be used is skipped, named and counted; with `strict` it ends the run.
    Raises UsageError when `out` was begun with other settings or models.
    """
    check(settings)
    if settings.cell.box_scale is None:
        cell = settings.cell.model_copy(update={"box_scale": pipeline.editor.box_scale})
        settings = settings.model_copy(update={"cell": cell})
    with lock.only(out):
        for stray in (*out.glob(".*.part"), *out.glob("images/.*.part")):
            stray.unlink()
        _pin(out, settings, pipeline.models())
        done = _records(out)
        problems = []
        with meter("images", len(jobs), sum(job.file_name in done for job in jobs)) as bar:
            for job in jobs:
                if job.file_name in done:
                    _same_original(out, job, done[job.file_name])
                    continue
                try:
                    pixels, cells, record = pipeline.make(job, settings)
                except UserError as error:
                    if strict:
                        raise
                    problems.append(f"{job.extra.get('original', job.file_name)}: {_reason(error)}")
                    console.print(f"skipped: {problems[-1]}")
                    continue
                height, width = pixels.shape[:2]
                record |= {"width": width, "height": height}
                content = png(pixels, record)
                atomic.write_bytes(out / "images" / job.file_name, content)
                done[job.file_name] = record
                _append(out / RECORDS, record)
                bar.advance(f"{len(cells)} cells")
        records = [record for _, record in sorted(done.items())]
        info = {"derived_from": dict(derived_from)} if derived_from else {}
        return _finish(out, records, settings, pipeline, list(licences), info, problems)


def _reason(error: UserError) -> str:
    """Return the message of `error` without the path that it begins with."""
    return str(error).rpartition(": ")[2]


def _same_original(out: Path, job: Job, record: dict[str, Any]) -> None:
    if record.get("original_sha256") != job.extra.get("original_sha256"):
        raise UsageError(
            f"{out}: {job.file_name} was made from another file of the name {job.extra.get('original')}; "
            "use another folder"
        )


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
    for line in path.read_bytes().split(b"\n"):
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
    return json.dumps(record, sort_keys=True) + "\n"


def _finish(
    out: Path,
    records: list[dict[str, Any]],
    settings: PipelineSettings,
    pipeline: Pipeline,
    licences: list[dict[str, Any]],
    derived_from: dict[str, Any],
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
        **derived_from,
    }
    data = DataSet(out / "images", pictures, tuple(ABNORMAL), tuple(licences), info)
    atomic.write_text(out / RECORDS, "".join(_line(record) for record in records))
    coco.write(data, out)
    if pictures:
        shown = [with_boxes(images.read(data.path(p)), p.cells) for p in pictures[:SHOWN]]
        sheet = {"origin": records[0]["origin"], "contact_sheet_of": [p.file_name for p in pictures[:SHOWN]]}
        atomic.write_bytes(out / "preview.png", png(contact_sheet(shown), sheet))
    models = {role: " | ".join(name.rsplit(" ", 1)) for role, name in pipeline.models().items()}
    uses_bundled = "bundled" in {name.rsplit(" ", 1)[0] for name in pipeline.models().values()}
    origin = "synthetic" if pipeline.generator else "real-to-synthetic"
    said = card.text(data, models, settings.model_dump(mode="json"), problems, uses_bundled, origin)
    atomic.write_text(out / "README.md", said)
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
