"""The pipeline of Figure 2 on one image after another: generate, detect, choose, edit, check; `run` writes them.

Every image depends only on (seed, its index or name, models, settings), and on its plan or assigned categories, if any.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
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
from ..cell.queue import Canvas, Spot
from ..data.image_files import Pixels
from ..detection.model import Detector
from ..detection.tiles import most_certain
from ..foundation.precision import engine_of, precision_of
from ..normal.generate import NormalImageGenerator
from .centre import kept_cells
from .jobs import Job
from .making import Failed, Made, Making, Room, Surveying, finished
from .settings import PipelineSettings, of_model


class Engine(Protocol):
    """Makes the images of a run: a `Pipeline` in this process, or several in others."""

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
        """Raise UsageError if the gate does not know one of `categories`."""
        ...

    def make(self, jobs: Iterable[Job], settings: PipelineSettings, failed: Failed) -> Iterator[Made]:
        """Yield the images of `jobs` as they are finished; `failed` is called for those that cannot be made."""
        ...

    def rooms(self, jobs: Iterable[Job], settings: PipelineSettings, failed: Failed) -> Iterator[Room]:
        """Yield how many cells of the image of each of `jobs` can be edited, at most as many as the settings allow.

        `failed` is called for images that cannot be used.
        """
        ...


@dataclass
class Pipeline:
    """The models of a run.

    Attributes:
        editor: the Abnormal Cell Synthesizer.
        names: the user's name of the model of each role.
        detector: finds NILM cells; None if a plan lists the cells.
        generator: generates fields; None if the user's own images are edited.
        gate: keeps or rejects edited cells; None keeps all, as the paper does.
        decoder: digest of the tiny decoder of the editor and the generator; None if it is the foundation's own.
    """

    editor: CellEditor
    names: dict[str, str]
    detector: Detector | None = None
    generator: NormalImageGenerator | None = None
    gate: Gate | None = None
    decoder: str | None = None

    def models(self) -> dict[str, str]:
        """Return name and weights' hash of each model by role."""
        parts = {"detector": self.detector, "normal": self.generator, "gate": self.gate}
        digests = {"cell": self.editor.digest, "foundation": self.editor.model.digest}
        digests |= {role: part.digest for role, part in parts.items() if part}
        digests |= {"decoder": self.decoder} if self.decoder else {}
        if self.generator and self.generator.start:
            digests["low_frequencies"] = self.generator.start
        fast = {"fast_cell": self.editor, "fast_normal": self.generator}
        digests |= {role: part.distilled for role, part in fast.items() if part and part.distilled}
        return {role: f"{self.names[role]} {digest}" for role, digest in sorted(digests.items())}

    @property
    def origin(self) -> str:
        """What the images are: wholly synthetic, or real ones with synthetic cells."""
        return "synthetic" if self.generator else "real-to-synthetic"

    @property
    def categories(self) -> Sequence[str]:
        """Into what the synthesizer edits cells."""
        return self.editor.trained.targets

    def settle(self, settings: PipelineSettings) -> PipelineSettings:
        """Return `settings` with what the synthesizer and the kind of images decide, where it is not set."""
        cell = self.editor.settled(settings.cell, real=self.generator is None)
        settings = of_model(settings, self.editor.categories)
        cell = cell.model_copy(update={"batch": cell.together})
        normal = settings.normal
        if self.generator:
            normal = self.generator.settled(normal)
        else:
            normal = normal.model_copy(update={"guidance_scale": normal.guidance})
        model = self.editor.model
        changes = {"cell": cell, "normal": normal, "precision": precision_of(model), "engine": engine_of(model)}
        return settings.model_copy(update=changes)

    def check(self, categories: Collection[str]) -> None:
        """Raise UsageError if the gate does not know one of `categories`."""
        if self.gate:
            self.gate.check(categories)

    def make(self, jobs: Iterable[Job], settings: PipelineSettings, failed: Failed) -> Iterator[Made]:
        """Yield the images of `jobs` as they are finished; `failed` is called for those that cannot be made."""
        making = Making(self, settings)
        for job in jobs:
            yield from finished(making.add(job), failed)
        yield from finished(making.flush(), failed)

    def prepare(self, job: Job, field: Pixels, settings: PipelineSettings) -> Canvas:
        """Return the normal image `field` of `job` with the cells that are to be edited.

        Raises UserError for one that is smaller than a patch.
        """
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
        candidates = choose.clear_of(job.kept, candidates, size, settings.cell)
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
        surveying = Surveying(self, settings)
        for job in jobs:
            yield from finished(surveying.add(job), failed)
        yield from finished(surveying.flush(), failed)

    def _find(self, field: Pixels, settings: PipelineSettings) -> tuple[list[Cell], list[Cell]]:
        """Return all cells in `field`, and those of them that are NILM."""
        if self.detector is None:
            raise ValueError("a run without a plan needs a detector")
        height, width = field.shape[:2]
        found = [
            replace(cell, box=boxes.clip(cell.box, width, height))
            for cell in most_certain(self.detector.find(field, settings.threshold))
        ]
        return found, [cell for cell in found if cell.category == NILM]

    def record(self, job: Job, canvas: Canvas, finished: Pixels, settings: PipelineSettings) -> dict[str, Any]:
        """Return the record of the image of `job`."""
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
        if job.kept:
            record["kept"] = kept_cells(job.kept, width, height)
        if job.left_out:
            record["left_out"] = [one.model_dump() for one in job.left_out]
        if self.gate:
            record["rejected"] = [said_of(spot, self.gate) for spot in canvas.rejected]
        if canvas.candidates is not None:
            record["candidates"] = canvas.candidates
        if job.categories is not None:
            record["dealt"] = list(job.categories)
            record["room"] = min(len(canvas.spots) + len(canvas.spare), settings.max_cells)
        return record | job.extra


def said_of(spot: Spot, gate: Gate | None) -> dict[str, Any]:
    """Return the entry of a cell in the record: its box, the intended category, and every attempt."""
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
