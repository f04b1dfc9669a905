"""`select`: rank the synthetic images, find the number that helps on validation images, write these as a data set."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...config import pin
from ...detection import external
from ...errors import UsageError, UserError
from ...io import lock, plain, wording
from ...io.progress import console
from ...io.report import Report
from .. import inputs
from ..gains import Runs, gain, hundred
from . import candidates, curve, ranking, real_parts, realism, rule, subset, sweep, table, uncertainty
from .candidates import Candidate, SyntheticSet
from .ranking import Ranked
from .recipe import SelectRecipe

SUBSET = "subset"


@dataclass(frozen=True)
class Choice:
    """The result of `select`.

    Attributes:
        verdict: a sentence.
        report: the table; None if nothing was trained to find out.
        folder: the chosen images; None: none.
    """

    verdict: str
    report: Report | None
    folder: Path | None


def select(
    recipe: SelectRecipe, run: Path, data_root: Path, devices: Sequence[str] = ("cpu",), workers: int = 1
) -> Choice:
    """Find in the folder `run` how many of the synthetic images help, or continue there.

    Writes `ranking.csv` and `.png`, `select.md`, `.json` and `.csv`, `curve.png` and, where some help, the data set
    `subset`. Raises UsageError if `run` was started with another recipe, or if a test image would be used; UserError if
    a synthetic image was made from a validation or test image.
    """
    known = _known(recipe, run, data_root, devices, workers)
    with lock.run(run, "recipe.yaml"):
        known.pin()
        counts = {ratio: known.count(ratio) for ratio in recipe.ratios if known.count(ratio) <= len(known.pool)}
        if not counts:
            raise UserError(
                f"{len(known.pool)} synthetic images with cells; {recipe.ratios[0]:g} x {known.real} real ones needs "
                f"{known.count(recipe.ratios[0])}; make more, or set ratios"
            )
        ranked, facts = _ranked(known, devices[0])
        swept = _swept(known, ranked, counts)
        report = table.tabulate(swept, facts | {"verdict": swept.verdict})
        report.write(run, "select")
        curve.write(run / "curve.png", _curve(swept))
        if not swept.chosen:
            return Choice(swept.verdict, report, None)
        how = [swept.verdict, *([swept.control] if swept.control else []), *_said(recipe)]
        subset.write(
            run / SUBSET, ranked[: counts[swept.chosen]], known.sets, how, _settings(recipe, swept.chosen, known.steps)
        )
        return Choice(swept.verdict, report, run / SUBSET)


def anyway(
    recipe: SelectRecipe, run: Path, data_root: Path, ratio: float, devices: Sequence[str] = ("cpu",)
) -> Choice:  # fmt: skip
    """Write the best ranked images, `ratio` of the number of real ones, without testing whether they help."""
    known = _known(recipe, run, data_root, devices, 1)
    count = known.count(ratio)
    if count > len(known.pool):
        raise UsageError(f"--anyway {ratio:g}: needs {count} images, but only {len(known.pool)} have cells")
    with lock.run(run, "recipe.yaml"):
        known.pin()
        ranked, _ = _ranked(known, devices[0])
        taken = f"{wording.amount(count, 'image')} ({ratio:g} x the real ones), taken by rank"
        verdict = f"{taken}: whether they help was not tested."
        out = run / f"anyway-{ratio:g}"
        subset.write(out, ranked[:count], known.sets, [verdict, *_said(recipe)], _settings(recipe, ratio, None))
        return Choice(verdict, None, out)


@dataclass(frozen=True)
class _Known:
    """The inputs, before anything is computed."""

    sweep: sweep.Sweep
    sets: list[SyntheticSet]
    pool: list[Candidate]
    real: int

    @property
    def steps(self) -> int:
        return self.sweep.steps

    def count(self, ratio: float) -> int:
        return max(1, round(ratio * self.real))

    def pin(self) -> None:
        recipe, run = self.sweep.recipe, self.sweep.run
        pin(recipe, run / "recipe.yaml")
        digests = candidates.digests(recipe, self.sets, self.sweep.data_root)
        pin(digests | inputs.begun(real_parts.begins(recipe)), run / inputs.FILE, inputs.difference)


def _known(
    recipe: SelectRecipe, run: Path, data_root: Path, devices: Sequence[str], workers: int
) -> _Known:  # fmt: skip
    """Read and check the inputs before anything is written."""
    real = real_parts.check(recipe, data_root)
    real_parts.check_weights(recipe, data_root)
    sets = candidates.gather(recipe, real_parts.held(recipe, data_root), data_root)
    pool = candidates.candidates(sets, recipe.categories)
    everything = sum(len(one.data.images) for one in sets)
    if len(pool) < everything:
        console.print(
            f"{everything - len(pool)} of {everything} synthetic images have no cell to learn from and are left out"
        )
    for one in sets:
        if not one.records:
            console.print(
                f"{one.folder}: no provenance.jsonl; whether it was made from held-out images cannot be checked",
                soft_wrap=True,
            )
    if recipe.detector:
        _knows(external.load(recipe.detector, recipe.categories), recipe)
    chosen = sweep.settings(recipe, 1, 0)
    batch = chosen.batch_size * chosen.gradient_accumulation
    steps = recipe.steps or math.ceil(recipe.epochs * real / batch)
    return _Known(sweep.Sweep(recipe, run, data_root, steps, devices, workers), sets, pool, real)


def _knows(finder: external.Finder, recipe: SelectRecipe) -> external.Finder:
    """Return the detector `finder`; raise UserError if it does not have the categories."""
    lacking = [name for name in recipe.categories if name not in finder.categories]
    if lacking:
        where = recipe.detector or "the trained detector"
        raise UserError(f"{where}: this detector does not know {', '.join(lacking)}; set categories, or train another")
    return finder


def _ranked(known: _Known, device: str) -> tuple[list[Ranked], dict[str, Any]]:
    """Return the candidates, best first, and facts on all of them; write both files of the ranking."""
    recipe, run, data_root = known.sweep.recipe, known.sweep.run, known.sweep.data_root
    detector = _knows(known.sweep.current(device), recipe)
    unsure = uncertainty.measure(known.pool, detector, recipe.categories, run / "uncertainty.jsonl")
    far, floor = realism.measure(recipe, known.sets, known.pool, run, data_root, device)
    found = ranking.rank(known.pool, unsure, far, recipe.uncertainty_weight)
    ranking.write(found, run)
    facts = {
        "synthetic_sets": [one.label for one in known.sets], "candidates": len(known.pool), "real_images": known.real,
        "validation": f"{plain.last(recipe.validation.root)}, part {recipe.validation.split}",
        "detector": recipe.architecture, "current_detector": detector.digest, "steps": known.steps,
        "seeds": recipe.seeds, "uncertainty_weight": recipe.uncertainty_weight, "extractor": recipe.extractor,
        "median_uncertainty": round(float(np.median(unsure)), 4),
        "median_distance_to_real": round(float(np.median(far)), 4),
        "median_distance_of_real_images_to_others": round(float(np.median(floor)), 4),
    }  # fmt: skip
    return found, facts


def _swept(known: _Known, ranked: Sequence[Ranked], counts: Mapping[float, int]) -> table.Swept:
    """Try the ratios in turn, and as many images at random if the recipe requires that."""
    recipe, order = known.sweep.recipe, [one.candidate for one in ranked]
    found: dict[float, Runs] = {}

    def runs(ratio: float) -> Runs:
        if ratio not in found:
            added = order[: counts[ratio]] if ratio else []
            name = f"ratio-{ratio:g}" if ratio else sweep.REAL
            found[ratio] = known.sweep.runs(name, lambda _seed: added)
        return found[ratio]

    steps, chosen = rule.walk(list(counts), runs, recipe.measure, recipe.patience)
    asked = {"none": [], "chosen": [chosen] if chosen else [], "every": [step.ratio for step in steps]}[recipe.control]
    random = {
        ratio: known.sweep.runs(f"random-{ratio:g}", _draw(known.pool, counts[ratio]))
        for ratio in asked
        if counts[ratio] < len(order)  # all of them are no choice
    }
    refused = [ratio for ratio in recipe.ratios if ratio not in counts]
    return table.Swept(recipe, counts, refused, steps, chosen, found, random)


def _draw(pool: Sequence[Candidate], count: int) -> Any:
    return lambda seed: sweep.at_random(pool, count, seed)


def _curve(swept: table.Swept) -> curve.Curve:
    real, measure = swept.ranked[0.0], swept.recipe.measure
    random = {ratio: hundred(gain(found, real, measure)) for ratio, found in swept.random.items()}
    gains = {step.ratio: hundred(step.gain) for step in swept.steps}
    return curve.Curve(swept.verdict, measure, swept.counts, gains, random, swept.chosen)


def _said(recipe: SelectRecipe) -> list[str]:
    weight = recipe.uncertainty_weight
    return [
        f"ranked by a detector's uncertainty (weight {weight:g}) and by nearness to real training images "
        f"({1 - weight:g}); the images are in that order, and `chosen` in `provenance.jsonl` contains both ranks",
        f"chosen on part '{recipe.validation.split}' of {plain.last(recipe.validation.root)}: report no gain on it",
    ]


def _settings(recipe: SelectRecipe, ratio: float, steps: int | None) -> dict[str, Any]:
    swept = {"seeds": recipe.seeds, "steps": steps, "measure": recipe.measure} if steps else {}
    return {"ratio": ratio, "architecture": recipe.architecture, "extractor": recipe.extractor,
            "window": recipe.window, "neighbours": recipe.neighbours, **swept}  # fmt: skip
