"""The trainings behind the curve: one detector on real images and those added, every seed; each resumes by itself."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache, partial
from pathlib import Path

import numpy as np

from ...data import sources
from ...data.sources import Sample, Source
from ...data.sources import part as part_of
from ...detection import external, model
from ...detection.recipe import DetectorRecipe, compared
from ...detection.train import DetectorTask
from ...devices import available
from ...evaluate.detection.scoring import Scored, read, scored
from ...io import atomic
from ...io.progress import meter
from ...training.loop import train
from .. import workers as pool
from ..gains import Runs, holding
from .candidates import Candidate
from .recipe import SelectRecipe

REAL = "real"
FOLDER = "trainings"


@dataclass(frozen=True)
class Training:
    """One detector.

    Attributes:
        training_set: name of what it is trained on.
        seed: of its training.
        added: the synthetic images added to the real ones.
    """

    training_set: str
    seed: int
    added: tuple[Candidate, ...] = ()

    def folder(self, run: Path) -> Path:
        """Return where its training is."""
        return run / FOLDER / self.training_set / f"seed-{self.seed}"

    def result(self, run: Path) -> Path:
        """Return the file of its scores."""
        return self.folder(run) / "result.json"


@dataclass(frozen=True)
class Sweep:
    """Trains and scores, or reads results that exist.

    Attributes:
        recipe: of the whole.
        run: folder.
        data_root: of the data sets.
        steps: optimiser steps, the same for all.
        devices: for the trainings in turn.
        workers: trainings at a time.
    """

    recipe: SelectRecipe
    run: Path
    data_root: Path
    steps: int
    devices: Sequence[str] = field(default=("cpu",))
    workers: int = 1

    def runs(self, training_set: str, added: Callable[[int], Sequence[Candidate]] = lambda _seed: ()) -> Runs:
        """Return the results, every seed, of the real images and those `added` to them for a seed."""
        trainings = [Training(training_set, seed, tuple(added(seed))) for seed in self.recipe.seeds]
        self.fill(trainings)
        files = [training.result(self.run) for training in trainings]
        return Runs([read(f, Scored, self.recipe.categories, self.recipe.draws, f) for f in files], self.images)

    @cached_property
    def images(self) -> dict[str, int]:
        """How many validation images hold a cell of each category."""
        return holding(part_of(self.recipe.validation, self.data_root), self.recipe.categories)

    def fill(self, trainings: Sequence[Training]) -> None:
        """Train and score those of `trainings` that are missing; raise KeyboardInterrupt if stopped."""
        todo = [training for training in trainings if not training.result(self.run).exists()]
        if not todo:
            return
        one = partial(_work, recipe=self.recipe, run=self.run, data_root=self.data_root, steps=self.steps)
        with meter(f"trainings ({todo[0].training_set})", len(trainings), len(trainings) - len(todo)) as bar:
            for training in pool.each(one, todo, self.run / "workers", self.devices, self.workers):
                bar.advance(f"seed {training.seed}")

    def current(self, device: str) -> external.Finder:
        """Return the current detector: the one given, or that of the real images alone and first seed."""
        if self.recipe.detector:
            return external.load(self.recipe.detector, self.recipe.categories, device)
        if self.recipe.command:
            return _commanded(
                self.recipe, _real(tuple(self.recipe.real), self.data_root), self.recipe.seeds[0], self.steps
            )
        training = Training(REAL, self.recipe.seeds[0])
        self.fill([training])
        return external.load(str(training.folder(self.run) / "training" / "weights"), self.recipe.categories, device)


def at_random(candidates: Sequence[Candidate], count: int, seed: int) -> list[Candidate]:
    """Return `count` random `candidates`, others for each `seed`, so that the interval includes their variation."""
    chosen = np.random.default_rng([seed, count]).choice(len(candidates), count, replace=False)
    return [candidates[index] for index in sorted(chosen)]


def settings(recipe: SelectRecipe, steps: int, seed: int) -> DetectorRecipe:
    """Return the recipe by which a detector is trained."""
    return compared(
        recipe.preset, recipe.architecture, recipe.training, categories=recipe.categories, data=recipe.real,
        seed=seed, steps=steps,
    )  # fmt: skip


def _work(training: Training, device: str, recipe: SelectRecipe, run: Path, data_root: Path, steps: int) -> None:
    """Train the detector of `training` and write its scores on the validation images."""
    samples = [*_real(tuple(recipe.real), data_root), *_read(training.added)]
    finder: external.Finder
    if recipe.command:
        finder = _commanded(recipe, samples, training.seed, steps)
    else:
        finder = _trained(training, samples, device, recipe, run, data_root, steps)
    found = scored(finder, _real((recipe.validation,), data_root), recipe.draws)
    about = {
        "mix": training.training_set,
        "seed": training.seed,
        "steps": steps,
        "added": [one.key for one in training.added],
    }
    atomic.write_json(training.result(run), about | found)


def _commanded(recipe: SelectRecipe, samples: Sequence[Sample], seed: int, steps: int) -> external.TrainedCommand:
    """Return the detector that the command of `recipe` trains on `samples`."""
    words = external.words(recipe.command or "", external.TRAINS)
    return external.TrainedCommand(words, samples, tuple(recipe.categories), seed, steps)


def _trained(
    training: Training, samples: Sequence[Sample], device: str, recipe: SelectRecipe, run: Path, data_root: Path,
    steps: int,
) -> external.OwnDetector:  # fmt: skip
    """Return the detector of `training`, trained to its end or read."""
    chosen = settings(recipe, steps, training.seed)
    outcome = train(
        lambda: DetectorTask(chosen, samples, [], data_root), chosen, training.folder(run) / "training",
        title=f"{recipe.architecture}, {training.training_set}, seed {training.seed}",
    ).completed(steps)  # fmt: skip
    detector = model.load(outcome.weights)
    detector.network.to(available(device))
    return external.OwnDetector(detector)


@lru_cache(maxsize=2)
def _real(data: tuple[Source, ...], data_root: Path) -> tuple[Sample, ...]:
    """Return the images of `data`, which all trainings share, read once."""
    return tuple(sources.load(data, data_root))


def _read(added: Sequence[Candidate]) -> list[Sample]:
    samples, room = [], sources.Room()
    with meter("reading synthetic images", len(added)) as bar:
        for one in added:
            samples.append(one.sample(room))
            bar.advance()
    return samples
