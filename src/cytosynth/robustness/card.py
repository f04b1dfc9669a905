"""The section "Where this detector fails" of a detector's model card, filled by the benchmark."""

from pathlib import Path

from ..detection.model import configuration
from ..evaluate.detection.failures import MISSED, NOTHING
from ..io import atomic, plain
from .benchmark import Outcome
from .recipe import CLEAN, RobustnessRecipe

CARD = "README.md"
HEADING = "## Where this detector fails"
WORST = 5
"""Conditions that are named."""


def fill(folder: Path | None, out: Path, name: str, outcome: Outcome, recipe: RobustnessRecipe, data: str) -> Path:
    """Write the section into the model card of the detector in `folder`, in place of an earlier one; return the card.

    A missing card is created. The bundled detector and those of other programs have no folder (None): their section
    goes into a file of its own in `out`. Raises UserError if `folder` holds no detector.
    """
    path, title = out / f"card_{name}.md", name
    if folder is not None:
        configuration(folder)
        path, title = folder / CARD, plain.last(folder)
    before = plain.text(path) if path.exists() else f"# Detector {title}\n\nNot for diagnosis.\n"
    atomic.write_text(path, replaced(before, section(name, outcome, recipe, data)))
    return path


def replaced(card: str, new: str) -> str:
    """Return `card` with the section `new` in place of the one of the same heading, or at its end."""
    start = card.find(HEADING)
    if start < 0:
        return card.rstrip("\n") + "\n\n" + new
    end = card.find("\n## ", start + len(HEADING))
    return card[:start] + new + (card[end:] if end >= 0 else "")


def section(name: str, outcome: Outcome, recipe: RobustnessRecipe, data: str) -> str:
    """Return the section on the detector `name`."""
    found, clean = outcome.trainings[name], outcome.clean[name]
    values = {c: found.estimate("AP", c).value for c in found.results if c != CLEAN}
    lowest = sorted((c for c in values if values[c] == values[c]), key=lambda c: values[c])[:WORST]
    lines = [
        HEADING, "",
        f"By `cytosynth evaluate robustness` on {found.images} images of {data}; AP over IoU 0.5 to 0.95.", "",
        f"- AP on clean images {found.estimate('AP', CLEAN)}; mean under {len(recipe.variations)} variations "
        f"{found.corrupted('AP')}; relative {found.relative('AP')}.",
        f"- Lowest AP: {', '.join(f'{condition} ({values[condition]:.3f})' for condition in lowest)} "
        "(variation and strength, 1 to 5).",
    ]  # fmt: skip
    for category in outcome.categories:
        row = clean.confusion[category]
        total, others = sum(row.values()), {k: v for k, v in row.items() if k not in (category, MISSED) and v}
        if total:
            taken = ", ".join(f"{count} called {other}" for other, count in sorted(others.items(), key=lambda i: -i[1]))
            lines.append(f"- {category}: of {total} cells {row[MISSED]} missed{', ' + taken if taken else ''}.")
    wrong = sum(clean.confusion[NOTHING].values())
    lines.append(f"- False positives: {wrong / found.images:.1f} per image at score {recipe.threshold:g}.")
    for low, high, count, share in clean.missed:
        lines.append(f"- Cells of {low:.0f} to {high:.0f} pixels ({count}): {share:.0%} missed.")
    return "\n".join(lines) + "\n"
