"""Choosing which cells to edit, and into what: at random or by rank, without overlap (Section III-C, IV-C.1)."""

from collections.abc import Mapping, Sequence

import numpy as np

from ..annotations import Box, Cell
from ..boxes import overlap
from . import patch
from .edit import PlannedEdit
from .settings import Choice, EditSettings


def choose(
    cells: Sequence[Cell],
    size: tuple[int, int],
    settings: EditSettings,
    rng: np.random.Generator,
    *,
    min_cells: int = 1,
    max_cells: int = 8,
    category_weights: Mapping[str, float],
    choice: Choice = "random",
    neighbours: Sequence[Cell] = (),
) -> list[tuple[Cell, PlannedEdit]]:
    """Return `min_cells` to `max_cells` of `cells`, each with the edit that is planned for it.

    Args:
        cells: candidates, best first.
        size: width and height of the image, pixels.
        settings: gives the size of the edited regions, which never overlap.
        rng: determines number, cells, categories and seeds.
        min_cells: fewer only where there are not enough candidates.
        max_cells: upper bound on the number, which is sampled uniformly.
        category_weights: weight of each category.
        choice: which cells first, see `ranked`.
        neighbours: all cells of the image, for `isolation`.
    """
    names = list(category_weights)
    weights = np.array([category_weights[name] for name in names], dtype=np.float64)
    wanted = int(rng.integers(min_cells, max_cells + 1))
    chosen = []
    for cell, region in apart(ranked(cells, choice, rng, neighbours), size, settings, wanted):
        category = names[int(rng.choice(len(names), p=weights / weights.sum()))]
        chosen.append((cell, PlannedEdit(region, category, int(rng.integers(2**32)))))
    return chosen


def deal(
    cells: Sequence[Cell],
    size: tuple[int, int],
    settings: EditSettings,
    rng: np.random.Generator,
    *,
    categories: Sequence[str],
    choice: Choice = "random",
    neighbours: Sequence[Cell] = (),
) -> tuple[list[tuple[Cell, PlannedEdit]], list[tuple[Cell, PlannedEdit]]]:
    """Return an edit for each of `categories`, and further cells that may stand in for one that is rejected.

    Arguments are as for `choose`. `categories` are given out in order; the stand-ins have category "".
    """
    edits = []
    for number, (cell, region) in enumerate(apart(ranked(cells, choice, rng, neighbours), size, settings)):
        category = categories[number] if number < len(categories) else ""
        edits.append((cell, PlannedEdit(region, category, int(rng.integers(2**32)))))
    return edits[: len(categories)], edits[len(categories) :]


def ranked(
    cells: Sequence[Cell], choice: Choice, rng: np.random.Generator, neighbours: Sequence[Cell] = ()
) -> list[Cell]:
    """Return `cells` in the order in which they are to be edited.

    `random` is the paper's. `score`: highest detection score first. `size`: largest box first. `isolation`: largest
    distance to the nearest neighbour (between box centres) first, so that crowded and overlapping cells are last. Equal
    cells keep their order.
    """
    if choice == "random":
        return [cells[index] for index in rng.permutation(len(cells))]
    keys = {
        "score": lambda cell: cell.score or 0.0,
        "size": lambda cell: cell.size[0] * cell.size[1],
        "isolation": lambda cell: isolation(cell, neighbours),
    }
    return sorted(cells, key=keys[choice], reverse=True)


def isolation(cell: Cell, neighbours: Sequence[Cell]) -> float:
    """Return the distance in pixels from the middle of `cell` to that of the nearest other of `neighbours`."""
    x, y = cell.centre
    return min((float(np.hypot(x - o.centre[0], y - o.centre[1])) for o in neighbours if o is not cell), default=np.inf)


def clear_of(kept: Sequence[Cell], cells: Sequence[Cell], size: tuple[int, int], settings: EditSettings) -> list[Cell]:
    """Return those of `cells` whose box and changed region, in an image of `size`, overlap no box of `kept` ones."""

    def clear(cell: Cell) -> bool:
        region = patch.covered(patch.enlarge(cell.box, settings.box_scale or 1.0, *size), *size, settings)
        return not any(overlap(one, other.box) for one in (cell.box, region) for other in kept)

    return [cell for cell in cells if not kept or clear(cell)]


def apart(
    cells: Sequence[Cell], size: tuple[int, int], settings: EditSettings, max_cells: int | None = None
) -> list[tuple[Cell, Box]]:
    """Return up to `max_cells` of `cells` in order, with their edited regions.

    Neither its region nor its box (which is larger than the region if `box_scale` is below 1) overlaps an earlier
    one's, so that a plan of them is valid. Cells too large for a patch are skipped.
    """
    taken: list[tuple[Cell, Box]] = []
    for cell in cells:
        if len(taken) == max_cells:
            break
        if max(cell.size) > patch.MOST:
            continue
        region = patch.enlarge(cell.box, settings.box_scale or 1.0, *size)
        if not any(overlap(region, other) or overlap(cell.box, chosen.box) for chosen, other in taken):
            taken.append((cell, region))
    return taken
