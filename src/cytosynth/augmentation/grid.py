"""The grid of Tables II and III: every detector on every training set with every seed; each trial resumes by itself.

A trial trains one detector and scores it on the test images at each of its lengths. With a constant learning rate the
longer training is the shorter one continued; with any other schedule each length is trained from the start.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from statistics import median
from typing import Any

import torch

from ..data import sources
from ..data.sources import Sample, Source
from ..detection import external, model
from ..detection.recipe import DetectorRecipe, compared
from ..detection.train import DetectorTask
from ..devices import available, peak_memory
from ..evaluate.detection.scoring import Scored, scored
from ..io import atomic, records
from ..io.progress import meter
from ..scale import trainings
from ..training.loop import train
from . import workers as pool
from .recipe import AugmentationRecipe


@dataclass(frozen=True)
class Trial:
    """One detector, trained on one training set with one seed.

    Attributes:
        detector: its name.
        training_set: name of what it is trained on.
        seed: of its training.
        data: that.
        lengths: optimiser steps at which it is scored, ascending.
    """

    detector: str
    training_set: str
    seed: int
    data: tuple[Source, ...]
    lengths: tuple[int, ...]

    def folder(self, run: Path) -> Path:
        """Return where its training and results are."""
        plain = "".join(letter if letter.isalnum() else "-" for letter in self.training_set.lower())
        name = plain.replace("---", "-").strip("-")
        return run / "cells" / self.detector / name / f"seed-{self.seed}"

    def result(self, run: Path, steps: int) -> Path:
        """Return the file of its scores after `steps`."""
        return self.folder(run) / f"result-{steps}.json"

    def done(self, run: Path) -> bool:
        """Return whether it is scored at every length."""
        return all(self.result(run, steps).exists() for steps in self.lengths)


class Result(Scored):
    """The scores of a trial at one of its lengths, and what training it took."""

    parameters: int
    seconds_a_step: float | None
    memory_gib: float


def fill(
    trials: Sequence[Trial],
    recipe: AugmentationRecipe,
    run: Path,
    data_root: Path,
    devices: Sequence[str],
    workers: int,
    ray: str | None = None,
) -> None:
    """Train and score those of `trials` that are not done, `workers` at a time, each on one of `devices` in turn.

    If `ray` is given, on that cluster, as many at a time as it has room for. Raises KeyboardInterrupt if a training was
    stopped; the same call continues.
    """
    todo = [trial for trial in trials if not trial.done(run)]
    one = partial(work, recipe=recipe, run=run.resolve(), data_root=data_root.resolve())
    with meter("trainings", len(trials), len(trials) - len(todo)) as bar:
        done = (
            trainings.each(one, todo, ray, devices[0])
            if ray
            else pool.each(one, todo, run / "workers", devices, workers)
        )
        for trial in done:
            bar.advance(f"{trial.detector}, {trial.training_set}, seed {trial.seed}")


def work(trial: Trial, device: str, recipe: AugmentationRecipe, run: Path, data_root: Path) -> None:
    """Train the detector of `trial` to each of its lengths and write its scores on the test images."""
    samples = _samples(trial.data, data_root)
    test = _samples((recipe.test,), data_root)
    for steps in trial.lengths:
        if trial.result(run, steps).exists():
            continue
        about = {"detector": trial.detector, "mix": trial.training_set, "seed": trial.seed, "steps": steps}
        if trial.detector in recipe.commands:
            command = external.words(recipe.commands[trial.detector], external.TRAINS)
            own = external.TrainedCommand(command, samples, tuple(recipe.categories), trial.seed, steps)
            cost = {"parameters": 0, "seconds_a_step": None, "memory_gib": 0.0}  # the command's own affair
            atomic.write_json(trial.result(run, steps), about | cost | scored(own, test, recipe.draws))
            continue
        chosen = settings(trial, recipe, steps)
        folder = trial.folder(run) / ("training" if chosen.lr_schedule == "constant" else f"training-{steps}")
        build = _builder(chosen, samples, data_root)
        title = f"{trial.detector}, {trial.training_set}, seed {trial.seed}"
        outcome = train(build, chosen, folder, title=title).completed(steps)
        detector = model.load(outcome.weights)
        detector.network.to(available(device))
        found = scored(external.OwnDetector(detector), test, recipe.draws)
        atomic.write_json(trial.result(run, steps), about | _cost(folder, outcome.parameters) | found)


@lru_cache(maxsize=2)
def _samples(data: tuple[Source, ...], data_root: Path) -> tuple[Sample, ...]:
    """Return the images of `data`, which consecutive trials share: training set and test images."""
    return tuple(sources.load(data, data_root))


def settings(trial: Trial, recipe: AugmentationRecipe, steps: int) -> DetectorRecipe:
    """Return the recipe by which the detector of `trial` is trained for `steps`."""
    return compared(
        recipe.preset, trial.detector, changes(recipe, trial.detector), categories=recipe.categories,
        data=trial.data, seed=trial.seed, steps=steps,
    )  # fmt: skip


def changes(recipe: AugmentationRecipe, detector: str) -> dict[str, Any]:
    """Return the settings that `recipe` gives the training of `detector` instead of its preset's."""
    return recipe.training | recipe.by_detector.get(detector, {})


def _builder(recipe: DetectorRecipe, samples: Sequence[Sample], data_root: Path) -> Callable[[], DetectorTask]:
    return lambda: DetectorTask(recipe, samples, [], data_root)


def _cost(folder: Path, parameters: int) -> dict[str, Any]:
    """Return the number of trained parameters, the median time of a step, and the peak memory of this process."""
    seconds = records.seconds(folder)
    if torch.cuda.is_available():
        memory = torch.cuda.max_memory_allocated() / 2**30
    else:
        memory = peak_memory() / 2**30
    return {
        "parameters": parameters, "seconds_a_step": round(median(seconds), 4) if seconds else None,
        "memory_gib": round(memory, 3),
    }  # fmt: skip
