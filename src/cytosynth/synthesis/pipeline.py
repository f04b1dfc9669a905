"""The pipeline of Figure 2: generate, detect, choose, edit, check, write.

Every image depends on (seed, its index or name, models, settings) alone, and on its plan or what it is dealt where
there is one. Each is written as soon as its cells are edited, with a record of how; a run that was killed continues
with the same command and ends byte-identical.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from .. import __version__, boxes
from ..annotations import Cell, DataSet
from ..bethesda import NILM
from ..cell import choose, patch
from ..cell.edit import CellEditor, PlannedEdit
from ..cell.quality.gate import Gate
from ..cell.quality.seam import seam
from ..cell.queue import Canvas, EditQueue, Spot
from ..data.image_files import ImageProblem, Pixels
from ..detection.model import Detector
from ..errors import UserError
from ..io import atomic, lock
from ..io.plain import one_line
from ..io.progress import Meter, console, meter
from ..io.records import append_line
from ..normal.generate import NormalImageGenerator
from ..provenance import RECORDS, as_read, png, read_records
from . import quotas
from .centre import brought
from .jobs import Job
from .publish import About, publish
from .resume import SETTINGS, Pinned, pin, same_original
from .settings import PipelineSettings, check, of_model


@dataclass
class Pipeline:
    """The models of a run.

    Attributes:
        editor: the Abnormal Cell Synthesizer.
        names: what the user called the model of each role.
        detector: finds NILM cells; None where a plan says which to edit.
        generator: draws fields; None where the user's own images are edited.
        gate: keeps or rejects edited cells; None keeps all, as the paper does.
    """

    editor: CellEditor
    names: dict[str, str]
    detector: Detector | None = None
    generator: NormalImageGenerator | None = None
    gate: Gate | None = None

    def models(self) -> dict[str, str]:
        """Return name and weights' hash of each model by role."""
        parts = {"detector": self.detector, "normal": self.generator, "gate": self.gate}
        digests = {"cell": self.editor.digest, "foundation": self.editor.model.digest}
        digests |= {role: part.digest for role, part in parts.items() if part}
        return {role: f"{self.names[role]} {digest}" for role, digest in sorted(digests.items())}

    @property
    def origin(self) -> str:
        """What the images are: wholly synthetic, or real ones with synthetic cells."""
        return "synthetic" if self.generator else "real-to-synthetic"

    def settle(self, settings: PipelineSettings) -> PipelineSettings:
        """Return `settings` with what the synthesizer and the kind of images decide, where it is not set."""
        cell = self.editor.settled(settings.cell, real=self.generator is None)
        settings = of_model(settings, self.editor.categories)
        return settings.model_copy(update={"cell": cell})

    def prepare(self, job: Job, settings: PipelineSettings) -> Canvas:
        """Return the normal field of `job` with the cells that are to be edited.

        Raises UserError for an image that cannot be read or is smaller than a patch.
        """
        field = job.normal()
        height, width = field.shape[:2]
        patch.check_size(width, height)
        size = (width, height)
        if job.planned is not None:
            scale = settings.cell.box_scale or 1.0
            given = [
                (Cell(cell.box, NILM), PlannedEdit(patch.enlarge(cell.box, scale, *size), cell.category, cell.seed))
                for cell in job.planned
            ]
            return Canvas(job.file_name, field, [Spot(*pair) for pair in given])
        found, candidates = self._find(field, settings)
        rng = np.random.default_rng([job.seed, job.key, 2])
        if job.categories is not None:
            first, spare = choose.deal(
                candidates, size, settings.cell, rng,
                categories=job.categories, choice=settings.choice, neighbours=found,
            )  # fmt: skip
        else:
            first, spare = choose.choose(
                candidates, size, settings.cell, rng, min_cells=settings.min_cells,
                max_cells=settings.max_cells, category_weights=settings.category_weights,
                choice=settings.choice, neighbours=found,
            ), []  # fmt: skip
        return Canvas(job.file_name, field, [Spot(*pair) for pair in first], [Spot(*p) for p in spare], len(candidates))

    def room(self, job: Job, settings: PipelineSettings) -> int:
        """Return how many cells of the image of `job` can be edited, at most as many as the settings allow."""
        canvas = self.prepare(replace(job, categories=()), settings)
        return min(len(canvas.spare), settings.max_cells)

    def _find(self, field: Pixels, settings: PipelineSettings) -> tuple[list[Cell], list[Cell]]:
        """Return all cells in `field`, and those of them that are NILM."""
        if self.detector is None:
            raise ValueError("a run without a plan needs a detector")
        height, width = field.shape[:2]
        found = [
            replace(cell, box=boxes.clip(cell.box, width, height))
            for cell in self.detector.find(field, settings.threshold)
        ]
        return found, [cell for cell in found if cell.category == NILM]

    def record(self, job: Job, canvas: Canvas, finished: Pixels, settings: PipelineSettings) -> dict[str, Any]:
        """Return how the image of `job` was made."""
        height, width = finished.shape[:2]
        record: dict[str, Any] = {
            "file_name": job.file_name,
            "origin": self.origin,
            "seed": job.seed,
            "key": job.key,
            "width": width,
            "height": height,
            "choice": "plan" if job.planned is not None else settings.choice,
            "cells": [said_of(spot, self.gate) for spot in canvas.kept],
            "models": self.models(),
            "software": f"CytoSynth {__version__}",
        }
        for spot, said in zip(canvas.kept, record["cells"], strict=True):
            changed = patch.covered(spot.edit.box, width, height, settings.cell)
            said["seam"] = round(seam(finished, canvas.normal, changed), 4)
        if self.gate:
            record["rejected"] = [said_of(spot, self.gate) for spot in canvas.rejected]
        if canvas.candidates is not None:
            record["candidates"] = canvas.candidates
        if job.categories is not None:
            record["dealt"] = list(job.categories)
            record["room"] = min(len(canvas.spots) + len(canvas.spare), settings.max_cells)
        return record | job.extra


def run(
    pipeline: Pipeline,
    jobs: Sequence[Job],
    settings: PipelineSettings,
    out: Path,
    *,
    licences: Sequence[dict[str, Any]] = (),
    derived_from: Mapping[str, Any] | None = None,
    refused: Sequence[str] = (),
    strict: bool = False,
    plan: str = "",
) -> DataSet:
    """Make the images of `jobs` into the data set folder `out`, or go on with what is missing there.

    A user's image that cannot be used is skipped, named and counted (in `info["skipped"]`), as are those `refused`
    before; with `strict` it ends the run.
    Raises UsageError when `out` was begun with other settings, models, licences, or (by its digest) another `plan`.
    """
    settings = pipeline.settle(settings)
    check(settings, len(jobs), pipeline.editor.categories)
    if strict and refused:
        raise ImageProblem(refused[0])
    if pipeline.gate:
        planned = {cell.category for job in jobs for cell in job.planned or ()}
        pipeline.gate.check(
            planned or settings.counts or [name for name, weight in settings.category_weights.items() if weight]
        )
    with lock.run(out, SETTINGS):
        names = [job.file_name for job in jobs] if settings.counts else []
        pin(out, Pinned.of(settings, pipeline.models(), plan, names, [list(licences), derived_from]))
        done = read_records(out, pipeline.editor.categories)
        missing: dict[str, int] = {}
        if settings.counts:
            jobs, missing = _deal(pipeline, jobs, settings, out, done, strict)
        problems = [one_line(line) for line in refused]
        problems += _make(pipeline, jobs, settings, out, done, strict)
        records = [record for _, record in sorted(done.items())]
        about = About(
            pipeline.origin,
            pipeline.models(),
            pipeline.editor.categories,
            licences,
            derived_from or {},
            problems,
            missing,
        )
        data = publish(out, records, settings, about)
        quotas.forget(out)
        return data


def _make(
    pipeline: Pipeline,
    jobs: Sequence[Job],
    settings: PipelineSettings,
    out: Path,
    done: dict[str, dict[str, Any]],
    strict: bool,
) -> list[str]:
    """Make the images that are not in `done` and put their records there; return lines on what was skipped."""
    problems: list[str] = []
    by_name = {job.file_name: job for job in jobs}

    def canvases() -> Iterator[Canvas]:
        for job in jobs:
            if job.file_name in done:
                same_original(out, job, done[job.file_name])
                continue
            try:
                yield pipeline.prepare(job, settings)
            except UserError as error:
                if strict:
                    raise
                problems.append(one_line(f"{job.extra.get('original', job.file_name)}: {_reason(error)}"))
                console.print(f"skipped: {problems[-1]}", soft_wrap=True)

    queue = EditQueue(pipeline.editor, settings.cell, pipeline.gate)
    with meter("images", len(jobs), sum(job.file_name in done for job in jobs)) as bar:
        for canvas in canvases():
            for finished in queue.add(canvas):
                _write(pipeline, by_name[finished.name], finished, settings, out, done, bar)
        for finished in queue.flush():
            _write(pipeline, by_name[finished.name], finished, settings, out, done, bar)
    return problems


def _write(
    pipeline: Pipeline,
    job: Job,
    canvas: Canvas,
    settings: PipelineSettings,
    out: Path,
    done: dict[str, dict[str, Any]],
    bar: Meter,
) -> None:
    pixels = canvas.compose(settings.cell)
    pixels, made = brought(pixels, pipeline.record(job, canvas, pixels, settings), settings)
    record = as_read(made)
    atomic.write_bytes(out / "images" / job.file_name, png(pixels, record))
    append_line(out / RECORDS, record)
    done[job.file_name] = record
    quotas.forget_field(job, out)
    bar.advance(f"{len(record['cells'])} cells")


def _deal(
    pipeline: Pipeline,
    jobs: Sequence[Job],
    settings: PipelineSettings,
    out: Path,
    done: Mapping[str, Mapping[str, Any]],
    strict: bool,
) -> tuple[list[Job], dict[str, int]]:
    """Return the jobs with the categories that each is dealt, and how many cells no image has room for."""
    kept = [quotas.kept_field(job, out) for job in jobs]
    rooms = quotas.survey(kept, done, lambda job: pipeline.room(job, settings), out, strict)
    dealt = quotas.deal(rooms, settings.counts, settings.seed)
    missing = quotas.short(dealt, settings.counts)
    if missing:
        asked, room = sum(settings.counts.values()), sum(rooms)
        fewer = ", ".join(f"{number} {name}" for name, number in missing.items())
        console.print(
            f"counts: {asked} cells are asked for, {room} can be edited in these images: {fewer} too many",
            soft_wrap=True,
        )
    return [replace(job, categories=names) for job, names in zip(kept, dealt, strict=True)], missing


def said_of(spot: Spot, gate: Gate | None) -> dict[str, Any]:
    """Return what the record says of a cell: where it is, what it was to become, and every attempt at it."""
    said: dict[str, Any] = {
        "bbox_xyxy": list(spot.cell.box),
        "category": spot.edit.category,
        "edited_xyxy": list(spot.edit.box),
        "seed": spot.verdicts[-1][0] if spot.verdicts else spot.edit.seed,
    }
    if spot.cell.score is not None:
        said["detector_score"] = spot.cell.score
    if gate:
        said["attempts"] = [
            {"seed": seed, "reasons": list(verdict.reasons), "scores": verdict.scores}
            for seed, verdict in spot.verdicts
        ]
    return said


def _reason(error: object) -> str:
    """Return the message of `error` without the path that it begins with."""
    return str(error).rpartition(": ")[2]
