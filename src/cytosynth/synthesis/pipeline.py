"""The pipeline of Figure 2 on one image after another: generate, detect, choose, edit, check; `run` writes them.

Every image depends on (seed, its index or name, models, settings) alone, and on its plan or what it is dealt where
there is one.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from .. import __version__, boxes
from ..annotations import Cell
from ..bethesda import NILM
from ..cell import choose, patch
from ..cell.edit import CellEditor, PlannedEdit
from ..cell.quality.gate import Gate
from ..cell.quality.seam import seam
from ..cell.queue import Canvas, EditQueue, Spot
from ..data.image_files import Pixels
from ..detection.model import Detector
from ..errors import UserError
from ..normal.generate import NormalImageGenerator
from ..provenance import as_read, png
from .centre import brought
from .jobs import Job
from .settings import PipelineSettings, of_model


@dataclass(frozen=True)
class Made:
    """A finished image: the bytes of its PNG file, and how it was made."""

    file_name: str
    png: bytes
    record: dict[str, Any]


@dataclass(frozen=True)
class Room:
    """How many cells of an image can be edited, and the normal image in which they were found."""

    file_name: str
    cells: int
    normal: Pixels


Failed = Callable[[Job, UserError], None]
"""Told of each job whose image cannot be used: it raises, or it takes note and the others are made."""


class Engine(Protocol):
    """What makes the images of a run: a `Pipeline` in this process, or several elsewhere."""

    @property
    def origin(self) -> str:
        """What the images are: wholly synthetic, or real ones with synthetic cells."""
        ...

    @property
    def categories(self) -> Sequence[str]:
        """Into what the synthesizer edits cells."""
        ...

    def models(self) -> dict[str, str]:
        """Return name and weights' hash of each model by role."""
        ...

    def settle(self, settings: PipelineSettings) -> PipelineSettings:
        """Return `settings` with what the models and the kind of images decide, where it is not set."""
        ...

    def check(self, categories: Collection[str]) -> None:
        """Raise UsageError where the gate does not know one of `categories`."""
        ...

    def make(self, jobs: Iterable[Job], settings: PipelineSettings, failed: Failed) -> Iterator[Made]:
        """Yield the images of `jobs` as they are finished; `failed` is told of those that cannot be made."""
        ...

    def rooms(self, jobs: Iterable[Job], settings: PipelineSettings, failed: Failed) -> Iterator[Room]:
        """Yield how many cells of the image of each of `jobs` can be edited, at most as many as the settings allow.

        `failed` is told of images that cannot be used.
        """
        ...


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

    @property
    def categories(self) -> Sequence[str]:
        """Into what the synthesizer edits cells."""
        return self.editor.categories

    def settle(self, settings: PipelineSettings) -> PipelineSettings:
        """Return `settings` with what the synthesizer and the kind of images decide, where it is not set."""
        cell = self.editor.settled(settings.cell, real=self.generator is None)
        settings = of_model(settings, self.editor.categories)
        return settings.model_copy(update={"cell": cell})

    def check(self, categories: Collection[str]) -> None:
        """Raise UsageError where the gate does not know one of `categories`."""
        if self.gate:
            self.gate.check(categories)

    def make(self, jobs: Iterable[Job], settings: PipelineSettings, failed: Failed) -> Iterator[Made]:
        """Yield the images of `jobs` as they are finished; `failed` is told of those that cannot be made."""
        making = Making(self, settings)
        for job in jobs:
            try:
                finished = making.add(job)
            except UserError as error:
                failed(job, error)
                continue
            yield from finished
        yield from making.flush()

    def normal(self, job: Job, settings: PipelineSettings) -> Pixels:
        """Return the normal image of `job`: the user's, or one that is drawn now.

        Raises UserError for an image that cannot be read.
        """
        if job.normal is not None:
            return job.normal()
        if self.generator is None:
            raise ValueError("a run without images of the user's needs a generator")
        return self.generator.field(job.seed, job.key, settings.normal)

    def prepare(self, job: Job, settings: PipelineSettings) -> Canvas:
        """Return the normal field of `job` with the cells that are to be edited.

        Raises UserError for an image that cannot be read or is smaller than a patch.
        """
        field = self.normal(job, settings)
        height, width = field.shape[:2]
        patch.check_size(width, height)
        size = (width, height)
        if job.planned is not None:
            scale = settings.cell.box_scale or 1.0
            given = [
                Spot(
                    Cell(cell.box, NILM),
                    PlannedEdit.around(cell.box, scale, size, cell.category, cell.seed, cell.strength),
                )
                for cell in job.planned
            ]
            return Canvas(job.file_name, field, given)
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

    def rooms(self, jobs: Iterable[Job], settings: PipelineSettings, failed: Failed) -> Iterator[Room]:
        """Yield how many cells of the image of each of `jobs` can be edited; see `Engine`."""
        for job in jobs:
            try:
                yield self.room(job, settings)
            except UserError as error:
                failed(job, error)

    def room(self, job: Job, settings: PipelineSettings) -> Room:
        """Return how many cells of the image of `job` can be edited, at most as many as the settings allow."""
        canvas = self.prepare(replace(job, categories=()), settings)
        return Room(job.file_name, min(len(canvas.spare), settings.max_cells), canvas.normal)

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
        trained = self.editor.training_images
        if self.generator is None and trained:
            record["outside_training"] = trained.outside(canvas.normal)
        if self.gate:
            record["rejected"] = [said_of(spot, self.gate) for spot in canvas.rejected]
        if canvas.candidates is not None:
            record["candidates"] = canvas.candidates
        if job.categories is not None:
            record["dealt"] = list(job.categories)
            record["room"] = min(len(canvas.spots) + len(canvas.spare), settings.max_cells)
        return record | job.extra


class Making:
    """Images on their way through a pipeline, one after the other; cells of several are edited together."""

    def __init__(self, pipeline: Pipeline, settings: PipelineSettings) -> None:
        """Make images with the models of `pipeline`."""
        self.pipeline, self.settings = pipeline, settings
        self.queue = EditQueue(pipeline.editor, settings.cell, pipeline.gate)
        self.waiting: dict[str, Job] = {}

    def add(self, job: Job) -> list[Made]:
        """Take in `job`; return the images that are finished now. Raises UserError for one that cannot be made."""
        canvas = self.pipeline.prepare(job, self.settings)
        self.waiting[job.file_name] = job
        return list(map(self._made, self.queue.add(canvas)))

    def flush(self) -> list[Made]:
        """Finish and return all images that were taken in."""
        return list(map(self._made, self.queue.flush()))

    def _made(self, canvas: Canvas) -> Made:
        job = self.waiting.pop(canvas.name)
        pixels = canvas.compose(self.settings.cell)
        pixels, made = brought(pixels, self.pipeline.record(job, canvas, pixels, self.settings), self.settings)
        record = as_read(made)
        return Made(job.file_name, png(pixels, record), record)


def said_of(spot: Spot, gate: Gate | None) -> dict[str, Any]:
    """Return what the record says of a cell: where it is, what it was to become, and every attempt at it."""
    said: dict[str, Any] = {
        "bbox_xyxy": list(spot.cell.box),
        "category": spot.edit.category,
        "edited_xyxy": list(spot.edit.box),
        "seed": spot.verdicts[-1][0] if spot.verdicts else spot.edit.seed,
    }
    if spot.edit.strength is not None:
        said["strength"] = spot.edit.strength
    if spot.cell.score is not None:
        said["detector_score"] = spot.cell.score
    if gate:
        said["attempts"] = [
            {"seed": seed, "reasons": list(verdict.reasons), "scores": verdict.scores}
            for seed, verdict in spot.verdicts
        ]
    return said
