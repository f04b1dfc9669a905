"""Can a linear probe distinguish edited cells from real ones of their category? With controls."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...cell.edit import CellEditor
from ...io.report import Report
from .. import probe
from ..networks.extractor import Extractor, Features
from ..networks.features import cached
from ..statistics import Estimate
from . import comparison, patches
from .patches import CellPatch
from .recipe import Editing, Measuring

HALVINGS = 20
"""Random halvings of the real cells behind the floor."""
NOTES = (
    "AUC of a linear probe that distinguishes cells from real ones of the category: the share of pairs that it gets "
    "right; 0.5: it cannot; 1: always, so that a detector may learn this difference and not the cell. It is a logistic "
    f"regression on standardised features, its ridge penalty fixed at {probe.PENALTY:g}, in {probe.FOLDS} folds of "
    "whole images: it is scored on images that it was not fitted to, and pairs are within a fold",
    "edited: cells after the edit; reconstruction: the real cells themselves, encoded, decoded and put back as an edit "
    "is, without an edit: what the autoencoder alone reveals; unedited: the NILM cells before the edit; real: two "
    f"halves of the real cells by image, mean of {HALVINGS} halvings: the floor; n cells of each; blank: too few",
    "edited cells are in images with NILM cells, real ones in images with cells of the category; these images differ, "
    "too, so that the value of a perfect edit may be above the floor",
    "[low, high]: 95 % interval from resampling whole images, with the fitted probes as they are",
)


class Sets(NamedTuple):
    """Cells of each kind, equally many, for one category or several together.

    Attributes:
        category: what the cells were edited into.
        real: cells of the category.
        edited: cells after the edit.
        unedited: the same cells before.
        reconstructed: the `real` ones, decoded and put back without an edit.
    """

    category: str
    real: list[CellPatch]
    edited: list[CellPatch]
    unedited: list[CellPatch]
    reconstructed: list[CellPatch]


def sets(
    before: Sequence[CellPatch], after: Mapping[str, Sequence[CellPatch]], real: Sequence[CellPatch],
    editor: CellEditor, editing: Editing, out: Path,
) -> list[Sets]:  # fmt: skip
    """Return the sets of each category of `after`, with as many real cells as edited ones, and of all together.

    Cells `before` are in random order; real ones are chosen at random. Reconstructions are stored in `out`.
    """
    found = []
    for category, edited in after.items():
        own = [cell for cell in real if cell.category == category]
        order = np.random.default_rng([editing.seed, 5]).permutation(len(own))
        kept = [own[index] for index in order[: len(edited)]]
        number = len(kept)
        decoded = patches.reconstructed(editor, kept, editing, out / "reconstructed")
        again = comparison.after_edit(kept, decoded, category, editing.cell)
        found.append(Sets(category, kept, list(edited[:number]), list(before[:number]), again))
    return [*found, _together(found)] if len(found) > 1 else found


def _together(found: Sequence[Sets]) -> Sets:
    kinds: tuple[list[CellPatch], ...] = ([], [], [], [])
    for one in found:
        for kind, cells in zip(kinds, one[1:], strict=True):
            kind += cells
    return Sets("all", *kinds)


def table(
    found: Sequence[Sets], extractors: Sequence[Extractor], cache: Path, how: Measuring, facts: dict[str, Any]
) -> Report:
    """Return the table of `found`, one row for each set and extractor; features are stored in `cache`."""
    rows = []
    for one in found:
        for extractor in extractors:
            told = _told(one, extractor, cache, how) if len(one.real) >= how.fewest else [None] * 4
            said = [None if value is None else str(value) for value in told]
            rows.append((one.category, extractor.name, len(one.real), *said))
    columns = ("category", "features", "n", "edited", "reconstruction", "unedited", "real")
    return Report("Edited and real cells: linear probe", facts, columns, tuple(rows), NOTES)


def _told(found: Sets, extractor: Extractor, cache: Path, how: Measuring) -> list[Estimate | None]:
    """Return the areas under the curve of edited, reconstructed and unedited cells against real ones, and the floor."""
    real = _features(found.real, extractor, cache, how)
    images = [cell.image for cell in found.real]
    told = []
    for cells in (found.edited, found.reconstructed, found.unedited):
        features = np.concatenate([real, _features(cells, extractor, cache, how)])
        groups = [*images, *(cell.image for cell in cells)]
        one = probe.probe(features, np.arange(len(features)) >= len(real), groups)
        told.append(probe.separation([one], groups, how.draws))
    halves = [halved(images, np.random.default_rng([number, 6])) for number in range(HALVINGS)]
    floor = [probe.probe(real, second, images) for second in halves]
    return [*told, probe.separation(floor, images, how.draws)]


def halved(images: Sequence[str], rng: np.random.Generator) -> NDArray[np.bool_]:
    """Return whether each cell, given the image of each, is in the second of two halves that share no image.

    Images are assigned in random order, each to the half with fewer cells. (`patches.halves` makes halves more equal,
    but then nearly the same ones each time.)
    """
    sizes, second, numbers = Counter(images), dict[str, bool](), [0, 0]
    for name in rng.permutation(sorted(sizes)).tolist():
        second[name] = numbers[1] < numbers[0]
        numbers[second[name]] += sizes[name]
    return np.array([second[name] for name in images], dtype=np.bool_)


def _features(cells: Sequence[CellPatch], extractor: Extractor, cache: Path, how: Measuring) -> Features:
    return cached(extractor, [cell.about(how.window) for cell in cells], cache)
