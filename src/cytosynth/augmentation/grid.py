"""The grid of Tables II and III: every detector on every mix with every seed; each cell resumes by itself.

A cell trains one detector and scores it on the test images at each of its lengths. With a constant learning rate the
longer training is the shorter one continued; with any other schedule each length is trained from the start.
"""

import resource
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from statistics import median
from typing import Any

import torch

from ..data import sources
from ..data.sources import Sample, Source
from ..detect import model
from ..detect.recipe import DetectorRecipe, compared
from ..detect.train import DetectorTask
from ..devices import available
from ..evaluate.detection.scoring import Scored, scored
from ..io import atomic, records
from ..io.progress import meter
from ..training.loop import train
from . import workers as pool
from .recipe import AugmentationRecipe
from .whole import whole


@dataclass(frozen=True)
class Cell:
    """One detector, trained on one mix with one seed.

    Attributes:
        detector: its name.
        mix: name of what it is trained on.
        seed: of its training.
        data: that.
        lengths: optimiser steps at which it is scored, ascending.
    """

    detector: str
    mix: str
    seed: int
    data: tuple[Source, ...]
    lengths: tuple[int, ...]

    def folder(self, run: Path) -> Path:
        """Return where its training and results are."""
        mix = "".join(letter if letter.isalnum() else "-" for letter in self.mix.lower()).replace("---", "-").strip("-")
        return run / "cells" / self.detector / mix / f"seed-{self.seed}"

    def result(self, run: Path, steps: int) -> Path:
        """Return the file of its scores after `steps`."""
        return self.folder(run) / f"result-{steps}.json"

    def done(self, run: Path) -> bool:
        """Return whether it is scored at every length."""
        return all(self.result(run, steps).exists() for steps in self.lengths)


class Result(Scored):
    """The scores of a cell at one of its lengths, and what training it took."""

    parameters: int
    seconds_a_step: float | None
    memory_gib: float


def fill(
    cells: Sequence[Cell], recipe: AugmentationRecipe, run: Path, data_root: Path, devices: Sequence[str], workers: int
) -> None:
    """Train and score those of `cells` that are not done, `workers` at a time, each on one of `devices` in turn.

    Raises KeyboardInterrupt when a training was asked to stop; the same call continues.
    """
    todo = [cell for cell in cells if not cell.done(run)]
    one = partial(work, recipe=recipe, run=run, data_root=data_root)
    with meter("trainings", len(cells), len(cells) - len(todo)) as bar:
        for cell in pool.each(one, todo, run / "workers", devices, workers):
            bar.advance(f"{cell.detector}, {cell.mix}, seed {cell.seed}")


def work(cell: Cell, device: str, recipe: AugmentationRecipe, run: Path, data_root: Path) -> None:
    """Train the detector of `cell` to each of its lengths and write its scores on the test images."""
    samples = _samples(cell.data, data_root)
    test = _samples((recipe.test,), data_root)
    for steps in cell.lengths:
        if cell.result(run, steps).exists():
            continue
        chosen = settings(cell, recipe, steps)
        folder = cell.folder(run) / ("training" if chosen.lr_schedule == "constant" else f"training-{steps}")
        build = _builder(chosen, samples, data_root)
        outcome = whole(train(build, chosen, folder, title=f"{cell.detector}, {cell.mix}, seed {cell.seed}"), steps)
        detector = model.load(outcome.weights)
        detector.network.to(available(device))
        found = scored(detector, test, recipe.draws)
        about = {"detector": cell.detector, "mix": cell.mix, "seed": cell.seed, "steps": steps}
        atomic.write_json(cell.result(run, steps), about | _cost(folder, outcome.parameters) | found)


@lru_cache(maxsize=2)
def _samples(data: tuple[Source, ...], data_root: Path) -> tuple[Sample, ...]:
    """Return the images of `data`, which cells that follow each other share; those of one mix and of the test."""
    return tuple(sources.load(data, data_root))


def settings(cell: Cell, recipe: AugmentationRecipe, steps: int) -> DetectorRecipe:
    """Return the recipe by which the detector of `cell` is trained for `steps`."""
    return compared(
        recipe.preset, cell.detector, changes(recipe, cell.detector), categories=recipe.categories, data=cell.data,
        seed=cell.seed, steps=steps,
    )  # fmt: skip


def changes(recipe: AugmentationRecipe, detector: str) -> dict[str, Any]:
    """Return the settings that `recipe` gives the training of `detector` instead of its preset's."""
    return recipe.training | recipe.by_detector.get(detector, {})


def _builder(recipe: DetectorRecipe, samples: Sequence[Sample], data_root: Path) -> Callable[[], DetectorTask]:
    return lambda: DetectorTask(recipe, samples, [], data_root)


def _cost(folder: Path, parameters: int) -> dict[str, Any]:
    """Return how many numbers were trained, the median time of a step, and the most memory this process has used."""
    seconds = records.seconds(folder)
    if torch.cuda.is_available():
        memory = torch.cuda.max_memory_allocated() / 2**30
    else:
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return {
        "parameters": parameters, "seconds_a_step": round(median(seconds), 4) if seconds else None,
        "memory_gib": round(memory, 3),
    }  # fmt: skip
