"""Choosing which cells to edit, and into what: at random, without overlap (Section III-C, IV-C.1)."""

from collections.abc import Mapping, Sequence

import numpy as np

from ..field import Box, Cell
from ..settings import EditSettings
from . import patch
from .edit import PlannedEdit


def choose(
    cells: Sequence[Cell],
    size: tuple[int, int],
    settings: EditSettings,
    rng: np.random.Generator,
    *,
    fewest: int = 1,
    most: int = 8,
    mix: Mapping[str, float],
) -> list[tuple[Cell, PlannedEdit]]:
    """Return `fewest` to `most` of `cells`, each with the edit that is planned for it.

    Args:
        cells: candidates, best first.
        size: width and height of the image, pixels.
        settings: gives the size of the edited regions, which never overlap.
        rng: decides everything: number, cells, categories, seeds.
        fewest: fewer only where there are not enough candidates.
        most: upper bound on the number, drawn evenly.
        mix: weight of each category.
    """
    names = list(mix)
    weights = np.array([mix[name] for name in names], dtype=np.float64)
    wanted = int(rng.integers(fewest, most + 1))
    chosen: list[tuple[Cell, PlannedEdit]] = []
    for index in rng.permutation(len(cells)):
        if len(chosen) == wanted:
            break
        if max(cells[index].size) > patch.MOST:
            continue
        region = patch.enlarge(cells[index].box, settings.box_scale or 1.0, *size)
        if all(not overlap(region, edit.box) for _, edit in chosen):
            category = names[int(rng.choice(len(names), p=weights / weights.sum()))]
            chosen.append((cells[index], PlannedEdit(region, category, int(rng.integers(2**32)))))
    return chosen


def overlap(first: Box, second: Box) -> bool:
    """Return whether two boxes share any area."""
    return first[0] < second[2] and second[0] < first[2] and first[1] < second[3] and second[1] < first[3]
