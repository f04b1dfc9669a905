"""Choosing a strategy by the rule of `select`: one replaces the best so far if it is significantly better."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from ...evaluate.detection.scoring import ABNORMAL_AP
from ...evaluate.two_way import Gain
from ...io.report import Report, Value
from . import analysis, efficiency, table
from .recipe import REAL, EfficiencyRecipe
from .table import Read

CHOSEN = "chosen"


def choose(
    recipe: EfficiencyRecipe, run: Path, data_root: Path, devices: Sequence[str] = ("cpu",), workers: int = 1
) -> Report:
    """Train all arms, score them on the tuning images, and write `choice`: the chosen strategy."""
    read = efficiency.measured(recipe, run, data_root, "tuning", devices, workers)
    report = tabulate(read)
    report.write(run / "tuning", "choice")
    return report


def walk(found: Mapping[str, analysis.Found], tested: int, least: int) -> tuple[list[tuple[str, str, Gain]], str]:
    """Go through the arms in their order; return each with the best before it and its gain over that, and the best.

    The best is initially the real images alone. An arm becomes the best when the 95 % interval of its gain over the
    best so far, AP.5 of all abnormal cells, lies above 0.
    """
    best, steps = REAL, []
    for arm, own in found.items():
        if arm == REAL:
            continue
        observed, drawn = analysis.paired(own, found[best], ABNORMAL_AP)
        gain = analysis.gain_of(observed, drawn, tested, least)
        steps.append((arm, best, gain))
        if gain.low is not None and gain.low > 0:
            best = arm
    return steps, best


def tabulate(read: Read) -> Report:
    """Return the walk at the confirmatory size, or else the largest, with what was chosen."""
    recipe = read.recipe
    size = recipe.confirmatory or recipe.sizes[-1]
    found = {arm: own for (at, arm), own in read.results.items() if at == size}
    steps, best = walk(found, read.tested[""], recipe.least)
    rows: list[tuple[Value, ...]] = [
        (arm, before, table.said(gain), None if gain.p is None else round(gain.p, 4), CHOSEN if arm == best else None)
        for arm, before, gain in steps
    ]
    verdict = (
        f"{CHOSEN}: {best}" if best != REAL else "nothing chosen: no arm is significantly better than real images alone"
    )
    notes = (
        verdict,
        "an arm becomes the best when the interval of its gain over the best so far lies above 0, in the order of the "
        "recipe; each comparison finds a gain significant by chance alone in one of forty",
        "chosen on tuning images, which flatters the gain: report it on the test images, once",
    )
    columns = ("arm", "best before it", f"gain of {ABNORMAL_AP} x 100", "p", "")
    return Report(f"{recipe.title}: choice of a strategy, N = {size}", {"chosen": best}, columns, tuple(rows), notes)
