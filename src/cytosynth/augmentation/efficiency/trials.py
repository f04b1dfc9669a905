"""The trainings of `experiment efficiency`: an arm at one size of one chain; each resumes by itself."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from hashlib import sha256
from pathlib import Path
from statistics import median
from typing import Any, Literal

from ...annotations import Cell
from ...data import sources
from ...data.sources import Sample, Source
from ...detection import external, model
from ...detection.recipe import DetectorRecipe, compared
from ...detection.train import DetectorTask
from ...devices import available
from ...evaluate.detection.scoring import Scored, one_class, scored
from ...io import atomic, records
from ...io.progress import meter
from ...training.loop import train
from .. import workers as pool
from .recipe import EfficiencyRecipe, On, slug

FOLDER = "trials"
AGAIN = 1_000
"""Added to the seed of a training that repeats another."""
Purpose = Literal["arm", "again", "curve"]


@dataclass(frozen=True)
class Trial:
    """One training.

    Attributes:
        arm: its name.
        chain: number of the chain.
        size: N.
        subset: folder of the N real images.
        synthetic: folders of the synthetic ones.
        lengths: optimiser steps at which it is scored, ascending.
        purpose: comparing arms, repeating one with another seed, or a learning curve.
    """

    arm: str
    chain: int
    size: int
    subset: Path
    synthetic: tuple[Path, ...]
    lengths: tuple[int, ...]
    purpose: Purpose = "arm"

    def folder(self, run: Path) -> Path:
        """Return where its training and results are."""
        name = f"chain-{self.chain}" + ("" if self.purpose == "arm" else f"-{self.purpose}")
        return run / FOLDER / slug(self.arm) / f"n-{self.size}" / name

    def result(self, run: Path, on: On, steps: int) -> Path:
        """Return the file of its scores after `steps` on the images that `on` names."""
        return self.folder(run) / f"{on}-{steps}.json"


class Result(Scored):
    """The scores of a trial, and its description."""

    arm: str
    chain: int
    size: int
    steps: int
    parameters: int
    seconds_a_step: float | None


def fill(
    trials: Sequence[Trial], on: On, recipe: EfficiencyRecipe, run: Path, data_root: Path, devices: Sequence[str],
    workers: int,
) -> None:  # fmt: skip
    """Train and score those of `trials` that are missing, `workers` at a time; the same call continues."""
    todo = [trial for trial in trials if not all(trial.result(run, on, steps).exists() for steps in trial.lengths)]
    one = partial(work, on=on, recipe=recipe, run=run.resolve(), data_root=data_root.resolve())
    with meter("trainings", len(trials), len(trials) - len(todo)) as bar:
        for trial in pool.each(one, todo, run / "workers", devices, workers):
            bar.advance(f"{trial.arm}, N = {trial.size}, chain {trial.chain}")


def work(trial: Trial, device: str, on: On, recipe: EfficiencyRecipe, run: Path, data_root: Path) -> None:
    """Train the detector of `trial` to each of its lengths and write its scores."""
    for steps in trial.lengths:
        if trial.result(run, on, steps).exists():
            continue
        weights, parameters = trained(trial, steps, recipe, run, data_root)
        detector = model.load(weights)
        detector.network.to(available(device))
        seconds = records.seconds(weights.parent)
        about = {
            "arm": trial.arm, "chain": trial.chain, "size": trial.size, "steps": steps, "parameters": parameters,
            "seconds_a_step": round(median(seconds), 4) if seconds else None,
        }  # fmt: skip
        found = scored(external.OwnDetector(detector), scored_on(recipe, on, data_root), recipe.draws)
        atomic.write_json(trial.result(run, on, steps), about | found)


def trained(trial: Trial, steps: int, recipe: EfficiencyRecipe, run: Path, data_root: Path) -> tuple[Path, int]:
    """Return the weights of `trial` after `steps`, and the number of trained parameters.

    If its arm trains in two phases, the first, on synthetic images alone, is a separate training, and the second is
    initialised from its weights.
    """
    arm, folder = recipe.arms[trial.arm], trial.folder(run)
    real = Source(root=str(trial.subset.resolve()), scale=recipe.real.scale, split="all")
    made = [Source(root=str(path.resolve()), split="all") for path in trial.synthetic]
    first = arm.steps_first(steps) if made else 0
    if not first:
        return _train(trial, [real], made, steps, folder / "training", {}, recipe, data_root)
    begun, _ = _train(trial, made, [], first, folder / f"first-{first}", {}, recipe, data_root)
    changes = {"weights": str(begun)}
    return _train(trial, [real], [], steps - first, folder / f"second-{steps - first}", changes, recipe, data_root)


def _train(
    trial: Trial, data: Sequence[Source], synthetic: Sequence[Source], steps: int, folder: Path,
    changes: dict[str, Any], recipe: EfficiencyRecipe, data_root: Path,
) -> tuple[Path, int]:  # fmt: skip
    chosen = settings(trial, data, synthetic, steps, changes, recipe)
    samples, made = (_samples(tuple(part), data_root, recipe.one_class) for part in (data, synthetic))

    def build() -> DetectorTask:
        return DetectorTask(chosen, samples, [], data_root, synthetic=made)

    title = f"{trial.arm}, N = {trial.size}, chain {trial.chain}"
    outcome = train(build, chosen, folder, title=title).completed(steps)
    return outcome.weights, outcome.parameters


def settings(
    trial: Trial, data: Sequence[Source], synthetic: Sequence[Source], steps: int, changes: dict[str, Any],
    recipe: EfficiencyRecipe,
) -> DetectorRecipe:  # fmt: skip
    """Return the recipe by which the detector of `trial` is trained."""
    arm = recipe.arms[trial.arm]
    strong = recipe.stronger if arm.augmentation == "strong" else {}
    own = {"synthetic": [source.model_dump() for source in synthetic]}
    if synthetic:
        own |= {"synthetic_share": arm.share, "synthetic_weight": arm.weight}  # type: ignore[dict-item]
    if arm.weights:
        own |= {"weights": arm.weights}  # type: ignore[dict-item]
    return compared(
        recipe.preset, recipe.architecture, recipe.training | strong | own | changes,
        categories=recipe.classes, data=data, steps=steps,
        seed=recipe.seed + trial.chain + (AGAIN if trial.purpose == "again" else 0),
    )  # fmt: skip


@lru_cache(maxsize=4)
def _samples(data: tuple[Source, ...], data_root: Path, merged: bool) -> Sequence[Sample]:
    """Return the images of `data`, with their abnormal cells as one class if `merged`."""
    return [_merged(sample) if merged else sample for sample in sources.load(data, data_root)] if data else ()


def _merged(sample: Sample) -> Sample:
    return replace(sample, cells=tuple(one_class(sample.cells)))


def scored_on(recipe: EfficiencyRecipe, on: On, data_root: Path) -> Sequence[Sample]:
    """Return the images that detectors are scored on: the test images, or as many tuning ones as the recipe says."""
    if on == "test":
        return _samples((recipe.test,), data_root, recipe.one_class)
    found = _samples((recipe.tuning,), data_root, recipe.one_class)
    chosen = tuning(recipe, data_root)
    return [sample for sample in found if sample.name in chosen]


def tuning(recipe: EfficiencyRecipe, data_root: Path) -> frozenset[str]:
    """Return the file names of the tuning images: as many as the recipe says, in the order of hashes of their names."""
    names = [image.file_name for image in sources.part(recipe.tuning, data_root)]
    return frozenset(sorted(names, key=lambda name: sha256(name.encode()).hexdigest())[: recipe.tuning_images])


def taken_out(recipe: EfficiencyRecipe, data_root: Path) -> frozenset[str]:
    """Return the file names of the images that are in no subset: tuning images, if both are from one part."""
    return tuning(recipe, data_root) if recipe.divides else frozenset()


def holding(samples: Sequence[Sample], recipe: EfficiencyRecipe) -> dict[str, int]:
    """Return the number of `samples` with an abnormal cell (key ''), and with a cell of each category."""

    def count(wanted: Any) -> int:
        return sum(any(wanted(cell) for cell in sample.cells) for sample in samples)

    def of(name: str) -> Any:
        return lambda cell: _is(cell, name)

    return {"": count(lambda cell: bool(one_class([cell])))} | {name: count(of(name)) for name in recipe.classes}


def _is(cell: Cell, name: str) -> bool:
    return cell.category == name
