"""`evaluate robustness`: every variation at every strength, for several detectors side by side."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..config import pin
from ..data import content, sources
from ..data.sources import Sample
from ..detection.external import Finder
from ..errors import UserError
from ..evaluate.detection import failures
from ..evaluate.statistics import Estimate, interval
from ..io import atomic, lock, wording
from ..io.progress import meter
from ..io.report import Report, Value
from . import plots
from .measures import FLIPS, OVERALL, Result, called, draws_of, flips, measured
from .predictions import Predictions, predicted
from .recipe import CLEAN, RobustnessRecipe, parsed
from .summary import Trainings

PREDICTIONS = "predictions"
VALUES = "values.json"
"""File of every number by detector, condition and measure, for comparison by programs."""


@dataclass(frozen=True)
class Outcome:
    """The result of the benchmark.

    Attributes:
        reports: name of the file and table.
        trainings: results by detector.
        clean: failures of each detector on the images as they are, first training.
        categories: that were scored.
    """

    reports: tuple[tuple[str, Report], ...]
    trainings: Mapping[str, Trainings]
    clean: Mapping[str, failures.Failures]
    categories: tuple[str, ...]


def benchmark(
    recipe: RobustnessRecipe, detectors: Mapping[str, Sequence[Finder]], data_root: Path, run: Path
) -> Outcome:
    """Score `detectors` (by name, one entry per training) in the folder `run`, or continue there.

    Writes `robustness`, `conditions` and `flips`, each as .json, .md and .csv, `heat_map.png`, `curves.png` and
    `variations.png`. Raises UsageError when `run` was started with another recipe, or other images or boxes; UserError
    where no detector knows a category of the data.
    """
    with lock.run(run, "recipe.yaml"):
        samples = sources.load([recipe.data], data_root)[: recipe.limit]
        categories = shared(detectors, samples)
        pin(recipe, run / "recipe.yaml")  # after the checks: a recipe whose data are missing can be corrected
        content.pinned({"images": content.digest(samples)}, run)
        found = _predictions(recipe, detectors, samples, run)
        trainings = {
            name: Trainings(_results(recipe, runs, categories, name), len(samples)) for name, runs in found.items()
        }
        clean = {}
        for name, runs in found.items():
            clean[name] = failures.failures(*runs[CLEAN][0].cells(), categories, threshold=recipe.threshold)
        reports = (
            ("robustness", _summary(recipe, trainings, categories, samples)),
            ("conditions", _conditions(recipe, trainings, categories, samples)),
            ("flips", _flips(recipe, found, samples)),
        )
        for title, report in reports:
            report.write(run, title)
        atomic.write_json(run / VALUES, _values(trainings))
        plots.heat_map(run / "heat_map.png", recipe, trainings)
        plots.curves(run / "curves.png", recipe, trainings)
        plots.sheet(run / "variations.png", recipe, samples[0])
    return Outcome(reports, trainings, clean, categories)


def shared(detectors: Mapping[str, Sequence[Finder]], samples: Sequence[Sample]) -> tuple[str, ...]:
    """Return the categories of the data that every detector knows, in the order of the first detector.

    Raises UserError if there is none.
    """
    there = {cell.category for sample in samples for cell in sample.cells}
    known = [finder.categories for finders in detectors.values() for finder in finders]
    both = tuple(name for name in known[0] if name in there and all(name in other for other in known))
    if not both:
        said = "; ".join(f"{name} knows {wording.listed(f[0].categories)}" for name, f in detectors.items())
        raise UserError(f"data and detectors have no category in common: annotated are {wording.listed(there)}; {said}")
    return both


def _predictions(
    recipe: RobustnessRecipe, detectors: Mapping[str, Sequence[Finder]], samples: Sequence[Sample], run: Path
) -> dict[str, dict[str, list[Predictions]]]:
    """Return the predictions by detector and condition, one entry per training."""
    conditions = recipe.conditions()
    found: dict[str, dict[str, list[Predictions]]] = {name: {} for name in detectors}
    with meter("conditions", len(conditions)) as bar:
        for condition in conditions:
            for name, finders in detectors.items():
                folder = run / PREDICTIONS / name
                found[name][condition] = [
                    predicted(finder, samples, condition, recipe, folder / f"{number}" / f"{condition}.json")
                    for number, finder in enumerate(finders)
                ]
            bar.advance(condition)
    return found


def _results(
    recipe: RobustnessRecipe, runs: Mapping[str, Sequence[Predictions]], categories: Sequence[str], title: str
) -> dict[str, list[Result]]:
    results: dict[str, list[Result]] = {}
    with meter(f"scoring {title}", len(runs)) as bar:
        for condition, trainings in runs.items():
            draws = draws_of(recipe, len(trainings[0].truth))
            results[condition] = [measured(*one.cells(), categories, recipe, draws) for one in trainings]
            bar.advance()
    return results


def _values(trainings: Mapping[str, Trainings]) -> dict[str, object]:
    """Return value, low and high of every measure, by detector and condition; null if there is none."""
    return {
        name: {
            condition: {
                measure: {key: None if value is None or np.isnan(value) else round(value, 5) for key, value in pairs}
                for measure in results[0]["scores"]
                for pairs in [found.estimate(measure, condition)._asdict().items()]
            }
            for condition, results in found.results.items()
        }
        for name, found in trainings.items()
    }


def _summary(
    recipe: RobustnessRecipe, trainings: Mapping[str, Trainings], categories: Sequence[str], samples: Sequence[Sample]
) -> Report:
    rows: list[tuple[Value, ...]] = []
    for name, found in trainings.items():
        for measure in [*OVERALL, *(f"AP {c}" for c in categories), *(f"recall {c}" for c in categories)]:
            worst, value = found.worst(measure)
            rows.append((name, measure, _said(found.estimate(measure, CLEAN)), _said(found.corrupted(measure)),
                         _said(found.relative(measure)), worst, _said(value)))  # fmt: skip
    columns = ("detector", "measure", "clean", "mean under variation", "relative", "worst condition", "value there")
    notes = (
        "mean under variation: over all variations and strengths; relative: that over the value on clean images",
        f"recall at {recipe.false_positives:g} false positives per image and category, overlap (IoU) 0.5; in brackets "
        f"95 % intervals from {recipe.draws} bootstrap resamples of the images, and of the trainings where there are "
        "several",
    )
    return Report("Robustness", facts(recipe, samples), columns, tuple(rows), notes)


def _conditions(
    recipe: RobustnessRecipe, trainings: Mapping[str, Trainings], categories: Sequence[str], samples: Sequence[Sample]
) -> Report:
    measures = [*OVERALL, *(f"AP {name}" for name in categories), *(f"recall {name}" for name in categories)]
    rows: list[tuple[Value, ...]] = []
    for name, found in trainings.items():
        for condition in found.results:
            which = (CLEAN, 0) if condition == CLEAN else parsed(condition)
            rows.append((name, *which, *(_said(found.estimate(measure, condition)) for measure in measures)))
    columns = ("detector", "variation", "strength", *measures)
    return Report("Robustness by condition", facts(recipe, samples), columns, tuple(rows), ())


def _flips(
    recipe: RobustnessRecipe, found: Mapping[str, Mapping[str, Sequence[Predictions]]], samples: Sequence[Sample]
) -> Report:
    """Return how often a cell that is called NILM becomes ASC-US under a variation, and the reverse."""
    rows: list[tuple[Value, ...]] = []
    for name, by_condition in found.items():
        knows = any(entry[4] == "NILM" for one in by_condition[CLEAN] for image in one.found for entry in image)
        before = [called(*one.cells(), recipe.threshold) for one in by_condition[CLEAN]]
        for variation in recipe.variations:
            total = {title: np.zeros((len(samples), 2), dtype=np.int64) for title in FLIPS}
            for strength in recipe.strengths:
                for was, one in zip(before, by_condition[f"{variation}-{strength}"], strict=True):
                    for title, counts in flips(was, called(*one.cells(), recipe.threshold), knows).items():
                        total[title] += counts
            rows.append((name, variation, *(_said(_share(total[title], recipe)) for title in FLIPS)))
    columns = ("detector", "variation", *FLIPS)
    notes = (
        "share of the annotated cells that a detector calls by the first name on clean images and by the second under "
        f"the variation, over all strengths; score {recipe.threshold:g} or more; a detector that does not know NILM "
        "counts as calling a cell NILM when it does not find it",
    )
    return Report("Flips between NILM and ASC-US", facts(recipe, samples), columns, tuple(rows), notes)


def _share(counts: np.ndarray, recipe: RobustnessRecipe) -> Estimate:
    """Return the share that `counts` (images, 2) come to, with its interval over images."""
    if not counts[:, 1].sum():
        return Estimate(float("nan"))
    value = float(counts[:, 0].sum() / counts[:, 1].sum())
    drawn = [counts[chosen].sum(axis=0) for chosen in draws_of(recipe, len(counts))]
    return interval(value, [one[0] / one[1] for one in drawn if one[1]] if len(counts) > 1 else [])


def facts(recipe: RobustnessRecipe, samples: Sequence[Sample]) -> dict[str, object]:
    """Return what a repetition needs."""
    return {
        "data": f"{Path(recipe.data.root).name}, part {recipe.data.split}", "scale": recipe.data.scale,
        "images": len(samples), "cells": sum(len(sample.cells) for sample in samples),
        "micrometres a pixel": recipe.mpp, "seed": recipe.seed, "draws": recipe.draws,
        "variations": ", ".join(recipe.variations), "strengths": ", ".join(map(str, recipe.strengths)),
    }  # fmt: skip


def _said(found: Estimate) -> str | None:
    return None if np.isnan(found.value) else str(found)
