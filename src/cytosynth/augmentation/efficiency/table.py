"""The tables of `experiment efficiency`: scores, gains, what was trained on, power, learning curve."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from pydantic import BaseModel, ConfigDict

from ...config import validated
from ...evaluate import two_way
from ...evaluate.detection.scoring import ABNORMAL_AP
from ...evaluate.two_way import Gain, Spread
from ...io import atomic
from ...io.plain import portable
from ...io.report import Report, Value
from ..gain_plot import COLOURS
from . import analysis
from .analysis import Comparison, Found
from .recipe import PASTED, REAL, EfficiencyRecipe, On

FLAT = 0.01
"""Gain in AP.5 over the last third of a learning curve, below which the curve counts as flat."""
POOL = "images to draw from"
HELPS, HURTS, UNDECIDED = "helps", "hurts", "no evidence"


class Kept(BaseModel):
    """The stored results of a run, from which its tables can be written again: `kept.json`."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)
    recipe: dict[str, Any]
    on: On
    tested: dict[str, int]
    facts: dict[str, Any]
    rows: list[dict[str, Any]]

    @classmethod
    def of(cls, read: "Read") -> "Kept":
        """Return what is stored of `read`: scores, and those of every resample for the measures of both tables."""
        measures = analysis.shown(read.recipe)
        rows = []
        for (size, arm), found in read.results.items():
            for chain, one in found.items():
                rows.append(
                    {"size": size, "arm": arm, "chain": chain, "sets": list(read.sets[size, arm]),
                     "parameters": one["parameters"], "seconds_a_step": one["seconds_a_step"],
                     "scores": one["scores"], "drawn": {name: one["drawn"][name] for name in measures}}
                )  # fmt: skip
        recipe = portable(read.recipe.model_dump(mode="json"))
        return cls(recipe=recipe, on=read.on, tested=dict(read.tested), facts=dict(read.facts), rows=rows)

    def read(self) -> "Read":
        """Return the results that were stored."""
        results: dict[tuple[int, str], dict[int, Any]] = {}
        counted: dict[tuple[int, str], tuple[float, float, float]] = {}
        for row in self.rows:
            key = (row["size"], row["arm"])
            results.setdefault(key, {})[row["chain"]] = row
            counted[key] = tuple(row["sets"])
        recipe = validated(EfficiencyRecipe, self.recipe, "kept results")
        return Read(recipe, self.on, results, self.tested, counted, self.facts)


def write(read: "Read", folder: Path, name: str, gains_name: str) -> list[Report]:
    """Write the tables `name` and `gains_name` and the plot of `name` into `folder`; return the tables."""
    reports = [scores(read), gains(read)]
    for report, called in zip(reports, (name, gains_name), strict=True):
        report.write(folder, called)
    plot(read, folder / f"{name}.png")
    return reports


@dataclass(frozen=True)
class Read:
    """All results of the trainings.

    Attributes:
        recipe: of the whole.
        on: the images that they were scored on.
        results: of each size and arm, by chain.
        tested: number of scored images with a cell of each class; under '' of any.
        sets: real and synthetic images and boxes of each size and arm, means over chains.
        facts: models and the like.
    """

    recipe: EfficiencyRecipe
    on: On
    results: Mapping[tuple[int, str], Found]
    tested: Mapping[str, int]
    sets: Mapping[tuple[int, str], tuple[float, float, float]]
    facts: Mapping[str, Any]


def said(found: Gain) -> str:
    """Return a gain in points of AP (x 100) as a cell of a table."""
    if found.low is None or found.high is None:
        return f"{100 * found.value:.1f}"
    return f"{100 * found.value:.1f} [{100 * found.low:.1f}, {100 * found.high:.1f}]"


def scores(read: Read) -> Report:
    """Return the scores of every arm at every size, with the images and boxes that it was trained on."""
    recipe = read.recipe
    measures = analysis.shown(recipe)
    columns = ("N", "arm", "synthetic images", "their boxes", "real boxes",
               *(f"{name} x 100" for name in measures), "chains", "parameters", "seconds a step")  # fmt: skip
    rows: list[tuple[Value, ...]] = []
    for (size, arm), found in read.results.items():
        first = next(iter(found.values()))
        made = [round(value, 1) for value in read.sets[size, arm]]
        shown = [
            said(analysis.level(found, name, analysis.images(name, read.tested, recipe.least), recipe.least))
            for name in measures
        ]
        rows.append((size, arm, *made, *shown, len(found), first["parameters"], first["seconds_a_step"]))
    return Report(f"{recipe.title}: scores on {_where(read)}", _facts(read), columns, tuple(rows), _notes(read))


def _earlier(recipe: EfficiencyRecipe) -> str:
    """Return what the note says of comparisons made before."""
    return f", corrected together with {len(recipe.earlier)} made before on the same images" if recipe.earlier else ""


def gains(read: Read) -> Report:
    """Return every comparison, the confirmatory ones with their corrected p-values."""
    recipe = read.recipe
    rows = [_row(row, recipe) for row in analysis.compared(read.results, recipe, read.tested)]
    columns = ("N", "arm", "against", "measure", "gain x 100", "p", "p after Holm", "status", "verdict",
               f"not inferior by {100 * recipe.margin:g} points")  # fmt: skip
    notes = (
        f"confirmatory: {recipe.candidate} against {REAL} and against {PASTED} at N = {recipe.confirmatory}, "
        f"{ABNORMAL_AP}{_earlier(recipe)}; all "
        "else is exploratory and uncorrected (docs/protocol.md)" if recipe.confirmatory else
        "all is exploratory and uncorrected (docs/protocol.md)",
        *_notes(read),
    )  # fmt: skip
    return Report(f"{recipe.title}: gains on {_where(read)}", _facts(read), columns, tuple(rows), notes)


def power(pairs: Mapping[int, tuple[Mapping[str, Any], Mapping[str, Any]]], recipe: EfficiencyRecipe, tested: int,
          facts: Mapping[str, Any]) -> Report:  # fmt: skip
    """Return the smallest gain that the confirmatory test shows, from R alone.

    Args:
        pairs: by chain, the results of R and of R with another seed.
        recipe: of the whole.
        tested: images with abnormal cells among those scored on.
        facts: of the report.
    """
    first, again = ({chain: pair[side] for chain, pair in pairs.items()} for side in (0, 1))
    observed, drawn = analysis.paired(again, first, ABNORMAL_AP)
    found = two_way.spread(observed, drawn, tested)
    own = np.array([one["scores"][ABNORMAL_AP] for one in first.values()], dtype=np.float64)
    # An upper bound: two arms of a chain that have no more in common than two chains of R.
    apart = Spread(2 * float(own.var(ddof=1)) / len(own), found.images, len(own), tested)
    rows = [
        (number, *(round(100 * two_way.smallest_gain(spread.of(number), two_way.LEVEL / 2), 2)
                   for spread in (found, apart)), round(100 * found.of(number).error, 2))
        for number in sorted({len(own), 5, 8, 12})
    ]  # fmt: skip
    columns = ("chains", "smallest gain x 100", "the same, independent arms", "standard error x 100")
    notes = (
        f"mean {ABNORMAL_AP} x 100 of R: {100 * own.mean():.1f}, standard deviation over chains "
        f"{100 * own.std(ddof=1):.1f}; mean difference of R to itself with another seed {100 * observed.mean():.1f}",
        "smallest gain: shown with power 0.8 at level 0.025 (Holm's first of two at 0.05), from the variance of R "
        "against R with another seed of the same chain, chains and images resampled (evaluate/two_way.py)",
        "independent arms: from the variance of R between chains, as if the two arms of a chain shared none of it",
        f"standard errors are for these {tested} images with abnormal cells; the number of test images is another",
    )
    return Report(f"{recipe.title}: smallest gain that can be shown, N = {recipe.confirmatory}", dict(facts), columns,
                  tuple(rows), notes)  # fmt: skip


def curve(found: Mapping[int, Sequence[float]], recipe: EfficiencyRecipe, size: int, facts: Mapping[str, Any],
          path: Path) -> Report:  # fmt: skip
    """Return the learning curve of R, `found` (AP.5 of each chain) by steps, and write its plot to `path`."""
    steps = sorted(found)
    means = {at: float(np.mean(found[at])) for at in steps}
    late = min((at for at in steps if at >= 2 / 3 * steps[-1]), default=steps[-1])
    rise = means[steps[-1]] - means[late]
    state = "flat" if late < steps[-1] and rise < FLAT else "not flat: train longer"
    rows = [(at, round(100 * means[at], 2), round(100 * float(np.std(found[at])), 2)) for at in steps]
    figure = Figure(figsize=(6, 4), dpi=110, layout="constrained")
    axis = figure.subplots()
    for chain in range(len(found[steps[0]])):
        axis.plot(steps, [100 * found[at][chain] for at in steps], color="0.75", linewidth=1)
    axis.plot(steps, [100 * means[at] for at in steps], "o-", color=COLOURS[0])
    axis.set_xlabel("optimiser steps")
    axis.set_ylabel(f"{ABNORMAL_AP} x 100, tuning images")
    axis.set_title(f"{recipe.architecture}, R, N = {size}: {state}", fontsize=10)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    atomic.write_bytes(path, buffer.getvalue())
    notes = (
        f"from {late} to {steps[-1]} steps {100 * rise:+.1f} points: {state} (flat: less than {100 * FLAT:g})",
        f"mean over {len(found[steps[0]])} chains",
    )
    columns = ("steps", f"{ABNORMAL_AP} x 100", "standard deviation over chains x 100")
    return Report(f"{recipe.title}: learning curve, N = {size}", dict(facts), columns, tuple(rows), notes)


def plot(read: Read, path: Path) -> None:
    """Write AP.5 of all abnormal cells against N, a line for each arm, with intervals."""
    figure = Figure(figsize=(7, 4.2), dpi=110, layout="constrained")
    axis = figure.subplots()
    sizes = read.recipe.sizes
    for number, arm in enumerate(read.recipe.arms):
        points = [
            (sizes.index(size) + 0.08 * (number - 2),
             analysis.level(found, ABNORMAL_AP, read.tested[""], read.recipe.least))
            for (size, name), found in read.results.items() if name == arm
        ]  # fmt: skip
        if not points:
            continue
        values = [100 * gain.value for _, gain in points]
        ends = [(gain.low, gain.value, gain.high) for _, gain in points]
        low = [100 * max(value - (value if end is None else end), 0) for end, value, _ in ends]
        high = [100 * max((value if end is None else end) - value, 0) for _, value, end in ends]
        colour = (*COLOURS, "#666666", "#E69F00", "#56B4E9")[number % 7]
        axis.errorbar([x for x, _ in points], values, [low, high], fmt="o-", capsize=3, color=colour, label=arm)
    axis.set_xticks(range(len(sizes)), [str(size) for size in sizes])
    axis.set_xlabel("real images")
    axis.set_ylabel(f"{ABNORMAL_AP} x 100 on {_where(read)}, 95 % interval")
    axis.legend(fontsize=8)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    atomic.write_bytes(path, buffer.getvalue())


def _row(row: Comparison, recipe: EfficiencyRecipe) -> tuple[Value, ...]:
    gain = row.gain
    verdict = UNDECIDED
    if gain.low is not None and gain.high is not None:
        verdict = HELPS if gain.low > 0 else HURTS if gain.high < 0 else UNDECIDED
    inferior = row.not_inferior(recipe.margin) if row.against == REAL and row.measure == ABNORMAL_AP else None
    shown = None if inferior is None else "yes" if inferior else "not shown"
    p, corrected = (None if value is None else round(value, 4) for value in (gain.p, row.corrected))
    return row.size, row.arm, row.against, row.measure, said(gain), p, corrected, row.status, verdict, shown


def _where(read: Read) -> str:
    source = read.recipe.test if read.on == "test" else read.recipe.tuning
    return f"{Path(source.root).name}, part {source.split}"


def _notes(read: Read) -> tuple[str, ...]:
    recipe = read.recipe
    counted = ", ".join(f"{name or 'any abnormal cell'} {count}" for name, count in read.tested.items())
    notes = [
        f"mean over {recipe.chains} chains; in brackets the 95 % interval of a two-way bootstrap over chains and "
        f"images, {recipe.draws} bootstrap resamples of these; by image: the data have no patient key",
        f"images with {counted}; what is in fewer than {recipe.least} has no interval and no verdict",
        "equal steps in all arms; the weights of the last step are scored",
    ]
    if read.on == "tuning":
        notes.append("scored on tuning images, which serve to decide; not a result")
        if recipe.generator == "public":
            notes.append("the generator may have seen the tuning images, which flatters its arms")
    if any(size == read.facts.get(POOL) for size, _ in read.results):
        notes.append(
            "where N is all images to draw from, intervals cover noise of training and of making, and test images alone"
        )
    return tuple(notes)


def _facts(read: Read) -> dict[str, Any]:
    recipe = read.recipe
    return {
        "detector": recipe.architecture, "steps": recipe.steps, "generator": recipe.generator,
        "real": f"{Path(recipe.real.root).name}, part {recipe.real.split}", "scored on": _where(read),
        "chains": recipe.chains, "first seed": recipe.seed, "draws": recipe.draws, **read.facts,
    }  # fmt: skip
