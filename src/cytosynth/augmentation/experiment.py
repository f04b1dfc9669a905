"""Tables II and III (Section IV-C): whether synthetic data help a detector, by how much, and with what confidence.

Each training set is used for two lengths: the steps of the epochs over the real images, and those of the same epochs
over the whole set. The paper compares the longer training on more images with the shorter one on real images; that is
reported, and next to it both comparisons at the same number of steps.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..config import pin
from ..data.sources import Source
from ..data.sources import part as part_of
from ..detection import recipe as detectors
from ..evaluate.detection import scoring
from ..evaluate.detection.failures import MISSED
from ..evaluate.statistics import Estimate
from ..io import lock
from ..io.bundled import RECIPE
from ..io.report import Report, Value
from ..provenance import short
from . import gain_plot, inputs, leaks, training_sets
from .gains import FEWEST, Runs, gain, holding, hundred, verdict
from .grid import Result, Trial, changes, fill
from .published import PUBLISHED
from .recipe import REAL, AugmentationRecipe


def table(
    recipe: AugmentationRecipe,
    run: Path,
    data_root: Path,
    devices: Sequence[str] = ("cpu",),
    workers: int = 1,
    ray: str | None = None,
) -> list[Report]:
    """Make the table of `recipe` in the folder `run`, or continue there.

    Writes the table, the gains with their verdicts, the failures of the detectors, and the label density, each as
    `.json`, `.md` and `.csv`, and `gains.png`. Raises UsageError if `run` was started with another recipe, UserError if
    a synthetic set was made from a test image.
    """
    with lock.run(run, RECIPE):
        training_sets.check(recipe, data_root)
        leaks.begun(begins(recipe).values(), [recipe.test], data_root)
        content = digests(recipe, data_root)
        pin(recipe, run / RECIPE)  # after the checks: a recipe whose data are missing can be corrected
        pin(content, run / inputs.FILE, inputs.difference)
        data = training_sets.gather(recipe, run, data_root, devices[0])
        dense = densities(recipe, data, data_root)
        trials = plan(recipe, data, {name: int(one["images"]) for name, one in dense.items()})
        fill(trials, recipe, run, data_root, devices, workers, ray)
        trials.sort(key=lambda trial: recipe.detectors.index(trial.detector))
        tested = part_of(recipe.test, data_root)
        runs = read(recipe, trials, run, holding(tested, recipe.categories))
        reports = [
            ("table", scores(recipe, runs)),
            ("gains", gains(recipe, trials, runs)),
            ("failures", failing(recipe, runs)),
            ("data", Report(f"{recipe.title}: what the detectors were trained on", {}, *_density(recipe, dense), ())),
        ]
        for name, report in reports:
            report.write(run, name)
        _plot(recipe, trials, runs, run)
    return [report for _, report in reports]


def digests(recipe: AugmentationRecipe, data_root: Path) -> dict[str, str]:
    """Return digests of the data that `recipe` names, so that other data under the same name are detected."""
    named = {f"real set {number}": source.root for number, source in enumerate(recipe.real, 1)}
    named |= {"test set": recipe.test.root} | {f"set of {name}": root for name, root in recipe.sets.items() if root}
    return inputs.of({name: data_root / root for name, root in named.items()}) | inputs.begun(begins(recipe))


def begins(recipe: AugmentationRecipe) -> dict[str, Any]:
    """Return the initial weights that `recipe` sets, by what begins from them."""
    own = {name: settings.get("weights") for name, settings in recipe.by_detector.items()}
    return {"every training": recipe.training.get("weights")} | own


def densities(
    recipe: AugmentationRecipe, data: Mapping[str, Sequence[Source]], data_root: Path
) -> dict[str, dict[str, float]]:
    """Return label densities of the real images and of the synthetic part of each other training set."""
    own = {name: found if name == REAL else found[len(recipe.real) :] for name, found in data.items()}
    return {name: training_sets.density(found, data_root, recipe.categories) for name, found in own.items()}


def plan(recipe: AugmentationRecipe, data: Mapping[str, Sequence[Source]], images: Mapping[str, int]) -> list[Trial]:
    """Return the trials of the grid with their lengths; `images` are the real ones, and those that each set adds.

    Seeds are completed one after the other, so that finished ones can be read; within a seed, detectors that share
    training images are consecutive.
    """
    trials = []
    for seed in recipe.seeds:
        for name in recipe.training_sets:
            for detector in recipe.detectors:
                if name == REAL or detector not in recipe.alone:
                    trials.append(
                        Trial(
                            detector,
                            name,
                            seed,
                            tuple(data[name]),
                            training_lengths(recipe, detector, name, images),
                        )
                    )
    return trials


def training_lengths(
    recipe: AugmentationRecipe, detector: str, name: str, images: Mapping[str, int]
) -> tuple[int, ...]:
    """Return the shorter and the longer length; real images alone are trained for the longer one of every set."""
    if detector in recipe.commands:
        base = recipe.steps or recipe.epochs * images[REAL]
    else:
        preset = detectors.preset(recipe.preset, detector)
        given = preset.model_dump(include={"batch_size", "gradient_accumulation"}) | changes(recipe, detector)
        own = preset.epochs if detector in recipe.alone else None
        batch = given["batch_size"] * given["gradient_accumulation"]
        base = recipe.steps or math.ceil((own or recipe.epochs) * images[REAL] / batch)
    others = [] if detector in recipe.alone else [name for name in recipe.training_sets if name != REAL]
    added = others if name == REAL else [name]
    return tuple(sorted({base, *(round(base * (1 + images[name] / images[REAL])) for name in added)}))


Key = tuple[str, str, int]
"""Detector, training set and steps."""


def read(recipe: AugmentationRecipe, trials: Iterable[Trial], run: Path, images: Mapping[str, int]) -> dict[Key, Runs]:
    """Return the results of `trials` by key; `images`: number of test images with a cell of each category.

    Raises UserError for a damaged result.
    """
    found: dict[Key, list[dict[str, object]]] = {}
    for trial in trials:
        for steps in trial.lengths:
            # The folder: a training that has gone further does not pass through its shorter lengths again.
            value = scoring.read(trial.result(run, steps), Result, recipe.categories, recipe.draws, trial.folder(run))
            found.setdefault((trial.detector, trial.training_set, steps), []).append(value)
    return {key: Runs(results, images) for key, results in found.items()}


def scores(recipe: AugmentationRecipe, runs: Mapping[Key, Runs]) -> Report:
    """Return the table: AP x 100 of every detector on every training set, with the paper's mAP."""
    one = _gained(recipe, runs)[0]
    measures = [*([one] if one == scoring.ABNORMAL_AP else []), *scoring.MEASURES, *recipe.categories]
    columns = ("detector", "training data", "steps", *(f"{name} x 100" for name in measures), "paper: mAP",
               "trained parameters", "seconds a step", "memory, GiB")  # fmt: skip
    rows: list[tuple[Value, ...]] = []
    for (detector, name, steps), found in runs.items():
        published = PUBLISHED.get(recipe.title, {}).get((detector, name))
        first = found.results[0]
        rows.append((detector, name, steps, *(str(hundred(found.estimate(m))) for m in measures),
                     published, first["parameters"], first["seconds_a_step"], first["memory_gib"]))  # fmt: skip
    notes = (
        f"mean over {len(recipe.seeds)} seeds, in brackets the 95 % interval over test images "
        f"({recipe.draws} resamples) and seeds (Welch)",
        "the weights of the last step (their running average if the recipe has one) are scored; nothing was chosen "
        "on the test images",
        "the paper's figures are of other data, other images for training and larger detectors",
        "seconds a step and memory are those of the machine that trained, of the first seed; memory is the most that "
        "the process had used by then",
    )
    return Report(recipe.title, _facts(recipe), columns, tuple(rows), notes)


def gains(recipe: AugmentationRecipe, trials: Sequence[Trial], runs: Mapping[Key, Runs]) -> Report:
    """Return the gain of every training set over real images alone, at equal steps and as the paper compares."""
    rows: list[tuple[Value, ...]] = []
    intervals = 0
    for detector, name, label, after, before in comparisons(trials):
        for measure in _gained(recipe, runs):
            found = gain(runs[after], runs[before], measure)
            intervals += found.low is not None
            rows.append((detector, name, label, after[2], before[2], measure, str(hundred(found)), verdict(found)))
    columns = ("detector", "training data", "compared", "steps", "steps of R", "measure", "gain x 100", "verdict")
    held = next(iter(runs.values())).images if runs else {}
    notes = (
        "helps: the 95 % interval of the gain lies above 0; hurts: below 0; no evidence: it holds 0, or there is none",
        f"test images with such a cell: {', '.join(f'{name} {count}' for name, count in held.items())}; a category in "
        f"fewer than {FEWEST} has no interval and no verdict, and mAP counts as if it were in {FEWEST} at least",
        f"{intervals} comparisons with an interval: about {math.ceil(0.05 * intervals)} of them would exclude 0 by "
        "chance alone",
    )
    return Report(f"{recipe.title}: gain over real images alone", _facts(recipe), columns, tuple(rows), notes)


def _gained(recipe: AugmentationRecipe, runs: Mapping[Key, Runs]) -> list[str]:
    """Return the measures whose gain is reported; for results of earlier versions, without the single class."""
    known = all(scoring.ABNORMAL_AP in result["scores"] for found in runs.values() for result in found.results)
    return [*([scoring.ABNORMAL_AP] if known else []), "mAP", *recipe.categories]


def comparisons(trials: Sequence[Trial]) -> list[tuple[str, str, str, Key, Key]]:
    """Return detector, training set, kind of comparison, and the two sides of each."""
    found = dict.fromkeys(
        (trial.detector, trial.training_set, trial.lengths) for trial in trials if trial.training_set != REAL
    )
    rows = []
    for detector, name, lengths in found:
        short_, long = lengths[0], lengths[-1]
        for label, after, before in (
            ("equal steps", short_, short_), ("equal steps, longer", long, long), ("as the paper", long, short_),
        ):  # fmt: skip
            rows.append((detector, name, label, (detector, name, after), (detector, REAL, before)))
    return rows


def failing(recipe: AugmentationRecipe, runs: Mapping[Key, Runs]) -> Report:
    """Return as what the annotated test cells were found, summed over seeds, and the share missed by size."""
    rows: list[tuple[Value, ...]] = []
    for (detector, name, steps), found in runs.items():
        tables = [result["failures"]["confusion"] for result in found.results]
        for category in tables[0]:
            summed = {name: sum(one[category][name] for one in tables) for name in tables[0][category]}
            rows.append((detector, name, steps, category, *summed.values()))
        for low, high, count, _ in found.results[0]["failures"]["missed"]:
            shares = [group[3] for r in found.results for group in r["failures"]["missed"] if group[0] == low]
            rows.append((detector, name, steps, f"{low:.0f} to {high:.0f} pixels ({count} cells): share missed",
                         *[None] * len(recipe.categories), sum(shares) / len(shares)))  # fmt: skip
    columns = ("detector", "training data", "steps", "annotated", *(f"found as {c}" for c in recipe.categories), MISSED)
    notes = ("detections of score 0.3 or more, overlap (IoU) of 0.5 or more; counts summed over seeds",)
    return Report(f"{recipe.title}: where the detectors fail", _facts(recipe), columns, tuple(rows), notes)


def _density(
    recipe: AugmentationRecipe, dense: Mapping[str, Mapping[str, float]]
) -> tuple[tuple[str, ...], tuple[tuple[Value, ...], ...]]:
    columns = ("what is added", "images", "cells", "cells an image", "cells a megapixel", *recipe.categories)
    return columns, tuple((name, *found.values()) for name, found in dense.items())


def _plot(recipe: AugmentationRecipe, trials: Sequence[Trial], runs: Mapping[Key, Runs], run: Path) -> None:
    measures = _gained(recipe, runs)
    found: dict[str, dict[str, dict[str, Estimate]]] = {}
    for detector, name, label, after, before in comparisons(trials):
        if label == "equal steps, longer":
            values = {measure: hundred(gain(runs[after], runs[before], measure)) for measure in measures}
            found.setdefault(detector, {})[name] = values
    if found:
        gain_plot.write(run / "gains.png", f"{recipe.title}, equal steps", measures, found)


def _facts(recipe: AugmentationRecipe) -> dict[str, object]:
    test = recipe.test
    models = {role: short(name) for role, name in recipe.models.items() if name}
    return {
        "preset": recipe.preset, "seeds": recipe.seeds, "test": f"{Path(test.root).name}, part {test.split}",
        "models_of_the_synthetic_sets": models, "draws": recipe.draws,
    }  # fmt: skip
