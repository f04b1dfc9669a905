"""The output of `select`: the table of the ratios, and the verdict in a sentence."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...io import wording
from ...io.report import Report, Value
from ..gains import HELPS, HURTS, Runs, gain, hundred, verdict
from .recipe import SelectRecipe
from .rule import Step


@dataclass(frozen=True)
class Swept:
    """All results of the trainings.

    Attributes:
        recipe: of the whole.
        counts: images of each ratio that the synthetic sets allow, by ratio.
        refused: ratios asked for that they do not allow.
        steps: the ratios that were tried, in order.
        chosen: the ratio; 0: none.
        ranked: results by ratio; 0: the real images alone.
        random: results of as many images at random, by ratio.
    """

    recipe: SelectRecipe
    counts: Mapping[float, int]
    refused: Sequence[float]
    steps: Sequence[Step]
    chosen: float
    ranked: Mapping[float, Runs]
    random: Mapping[float, Runs]

    @property
    def verdict(self) -> str:
        """What to do, in a sentence, and why."""
        name, last = self.recipe.measure, self.steps[-1]
        if not self.chosen:
            tried = "; ".join(f"{step.ratio:g} x: {hundred(step.gain)}, {verdict(step.gain)}" for step in self.steps)
            return (
                f"Choose nothing: no significant gain of {name} over real images alone on validation (x 100: {tried})."
            )
        own = next(step for step in self.steps if step.ratio == self.chosen)
        text = (
            f"Choose {wording.amount(self.counts[self.chosen], 'image')} ({self.chosen:g} x the real ones): "
            f"gain of {name} x 100 over real images alone on validation {hundred(own.gain)}"
        )
        if last.ratio == self.chosen:
            return f"{text}; larger ratios were not tried."
        return f"{text}; {last.ratio:g} x adds no significant further gain ({hundred(last.further)})."

    @property
    def control(self) -> str:
        """Whether the ranking is better than chance, in a sentence; empty if that was not tested."""
        ratio = self.chosen or next(iter(self.random), 0.0)
        if ratio not in self.random:
            return ""
        found = gain(self.ranked[ratio], self.random[ratio], self.recipe.measure)
        beside = {HELPS: "better than", HURTS: "WORSE than"}.get(verdict(found), "not significantly different from")
        return f"{ratio:g} x: the ranked images are {beside} as many at random (difference x 100: {hundred(found)})"


def tabulate(swept: Swept, facts: Mapping[str, Any]) -> Report:
    """Return the table: a row for the real images alone, for each ratio, and for as many images at random."""
    recipe, real = swept.recipe, swept.ranked[0.0]
    others = [name for name in ("mAP", *recipe.categories) if name != recipe.measure]
    columns = ("training data", "images added", f"{recipe.measure} x 100", "gain x 100", "compared with",
               "further gain x 100", "verdict", *(f"gain of {name} x 100" for name in others))  # fmt: skip
    blank = [None] * (4 + len(others))
    rows: list[tuple[Value, ...]] = [("real alone", 0, str(hundred(real.estimate(recipe.measure))), *blank)]
    for step in swept.steps:
        label = f"{step.before:g} x" if step.before else "real alone"
        rows.append(_row(swept, f"{step.ratio:g} x, ranked", step.ratio, swept.ranked[step.ratio], others,
                         (label, str(hundred(step.further)), verdict(step.further))))  # fmt: skip
        if step.ratio in swept.random:
            found = gain(swept.random[step.ratio], swept.ranked[step.ratio], recipe.measure)
            rows.append(_row(swept, f"{step.ratio:g} x, at random", step.ratio, swept.random[step.ratio], others,
                             (f"{step.ratio:g} x, ranked", str(hundred(found)), verdict(found))))  # fmt: skip
    return Report("How many synthetic images to add", dict(facts), columns, tuple(rows), _notes(swept))


def _row(
    swept: Swept, label: str, ratio: float, runs: Runs, others: Sequence[str], compared: tuple[str, str, str]
) -> tuple[Value, ...]:
    real, measure = swept.ranked[0.0], swept.recipe.measure
    gains = [str(hundred(gain(runs, real, name))) for name in others]
    score, gained = str(hundred(runs.estimate(measure))), str(hundred(gain(runs, real, measure)))
    return (label, swept.counts[ratio], score, gained, *compared, *gains)


def _notes(swept: Swept) -> tuple[str, ...]:
    recipe = swept.recipe
    notes = [
        swept.verdict,
        *([swept.control] if swept.control else []),
        f"intervals: 95 %, over validation images ({recipe.draws} resamples) and {len(recipe.seeds)} seeds (Welch); "
        "gain: over real images alone; further gain: over the best ratio so far",
        "a ratio becomes the best when the interval of its further gain lies above 0; "
        f"the sweep ends after {recipe.patience} in a row for which it does not",
        f"each of {len(swept.steps)} comparisons finds a significant gain by chance in one of forty cases",
        "the ratio was chosen on these images, so its gain is biased upwards: report it on the test part, once",
    ]
    if swept.refused:
        ratios = ", ".join(f"{ratio:g}" for ratio in swept.refused)
        notes.append(f"too few synthetic images for {ratios} x: make more of them to try these")
    return tuple(notes)
