"""Edited cells of one category compared with real ones, with the cells they were edited from, and with the floor."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import wasserstein_distance

from ...cell.quality.morphology import Morphology
from ...cell.settings import EditSettings
from ...data.image_files import Pixels
from .. import distance
from ..networks.extractor import Extractor, Features
from ..networks.features import cached
from ..statistics import Estimate, Indices, estimates
from . import patches
from .background import background_psnr
from .patches import CellPatch
from .recipe import Measuring

PROPERTIES = {"area": "nucleus area, square px", "diameter": "nucleus diameter, px", "ratio": "N/C ratio"}


class Line(NamedTuple):
    """A row of the table.

    Attributes:
        category: what the cells were edited into.
        quantity: the measured quantity.
        n: cells of each set.
        edited: the edited cells; of a distance, to real cells of the category.
        unedited: the same NILM cells before the edit.
        real: other real cells of the category; of a distance, the floor.
        nearer: decrease of the distance, or increase of the share, by the edit.
    """

    category: str
    quantity: str
    n: int
    edited: Estimate | None = None
    unedited: Estimate | None = None
    real: Estimate | None = None
    nearer: Estimate | None = None


@dataclass(frozen=True)
class Sides:
    """The sets that are compared for one category; no image of `reference` is in another set.

    Attributes:
        category: what the cells were edited into.
        edited: cells after the edit, in the order of `unedited`.
        unedited: the same cells before.
        reference: real cells of the category.
        other: more of them, of other images; empty where all are of one image.
    """

    category: str
    edited: list[CellPatch]
    unedited: list[CellPatch]
    reference: list[CellPatch]
    other: list[CellPatch]


def sides(
    category: str, before: Sequence[CellPatch], after: Sequence[CellPatch], real: Sequence[CellPatch], seed: int
) -> Sides:
    """Return the sides for `category`: the cells `before` and `after`, and two halves of the `real` ones of it."""
    rng = np.random.default_rng([seed, 4])
    reference, other = patches.halves([cell for cell in real if cell.category == category], rng)
    taken = {cell.image for cell in reference}
    kept = [pair for pair in zip(before, after, strict=True) if pair[0].image not in taken]
    return Sides(category, [b for _, b in kept], [a for a, _ in kept], reference, other)


def after_edit(
    cells: Sequence[CellPatch], decoded: Sequence[Pixels], category: str, settings: EditSettings
) -> list[CellPatch]:
    """Return `cells` with the `decoded` patch put back into each."""
    return [
        replace(cell, pixels=patches.put_back(cell, pixels, settings), category=category)
        for cell, pixels in zip(cells, decoded, strict=True)
    ]


def feature_distances(found: Sides, extractor: Extractor, cache: Path, how: Measuring) -> list[Line]:
    """Return the Fréchet and the kernel distance (x 1000) between the features of patches, at the same number."""
    names = (extractor.frechet, f"{extractor.kernel} x 1000")
    found = _with_a_floor_or_none(found, how)
    number = _number(found)
    if number < how.fewest:
        return [Line(found.category, name, number) for name in names]
    values = [
        cached(extractor, [cell.about(how.window) for cell in cells[:number]], cache) if cells else None
        for cells in (found.edited, found.unedited, found.reference, found.other)
    ]
    return [
        _compared(name, found, values, measure, how)
        for name, measure in zip(names, (distance.frechet, _kernel), strict=True)
    ]


def morphology_lines(found: Sides, shapes: dict[str, list[Morphology | None]], how: Measuring) -> list[Line]:
    """Return the share of nuclei found, and for each property medians and Wasserstein distances to real cells.

    `shapes` has the cells of each attribute of `found`, in its order.
    """
    images = {side: [cell.image for cell in getattr(found, side)] for side in shapes}
    real = shapes["reference"] + shapes["other"]
    of_real = images["reference"] + images["other"]
    shares = [
        _mean([shape is not None for shape in values], names, how)
        for values, names in (
            (shapes["edited"], images["edited"]),
            (shapes["unedited"], images["edited"]),
            (real, of_real),
        )
    ]
    lines = [Line(found.category, "nucleus found, share", len(found.edited), *shares)]
    pairs = [both for both in zip(found.edited, shapes["edited"], found.unedited, shapes["unedited"], strict=True)
             if both[1] and both[3]]  # fmt: skip
    measured = Sides(
        found.category, [pair[0] for pair in pairs], [pair[2] for pair in pairs],
        *([cell for cell, shape in zip(getattr(found, side), shapes[side], strict=True) if shape]
          for side in ("reference", "other")),
    )  # fmt: skip
    compared = _with_a_floor_or_none(measured, how)
    number = _number(compared)
    for key, title in PROPERTIES.items():
        kept = [
            [getattr(pair[1], key) for pair in pairs], [getattr(pair[3], key) for pair in pairs],
            *([getattr(shape, key) for shape in shapes[side] if shape] for side in ("reference", "other")),
        ]  # fmt: skip
        own = [cell.image for cell in measured.edited]
        others = [cell.image for cell in measured.reference + measured.other]
        medians = [_median(values, names, how) for values, names in ((kept[0], own), (kept[1], own),
                                                                    (kept[2] + kept[3], others))]  # fmt: skip
        lines.append(Line(found.category, f"{title}: median", len(pairs), *medians))
        name = f"{title}: distance"
        if number < how.fewest:
            lines.append(Line(found.category, name, number))
        else:
            parts = kept if compared.other else [*kept[:3], []]
            values = [np.asarray(part[:number]) if part else None for part in parts]
            lines.append(_compared(name, compared, values, wasserstein_distance, how))
    return lines


def agreement_line(found: Sides, given: dict[str, tuple[str, ...]], how: Measuring) -> Line:
    """Return the share classified as the category: of edited, of the same unedited, and of real cells.

    `given` holds the classifier's answers on the cells of each attribute of `found`, in its order.
    """
    marks = {side: np.array([answer == found.category for answer in answers], float) for side, answers in given.items()}
    own, own_images = (marks["edited"], marks["unedited"]), [cell.image for cell in found.edited]
    edited, unedited, gain = (
        estimates(lambda i: [own[0][i].mean(), own[1][i].mean(), (own[0] - own[1])[i].mean()], [own_images],
                  how.draws, centred=False)
        if own_images else (None, None, None)
    )  # fmt: skip
    real = _mean([*marks["reference"], *marks["other"]], [c.image for c in found.reference + found.other], how)
    return Line(found.category, "classified as it, share", len(found.edited), edited, unedited, real, gain)


def seam_line(found: Sides, ratios: dict[str, list[float]], how: Measuring) -> Line:
    """Return the mean border ratio (`quality.seam`) of the region: edited, the same unedited, and real cells.

    `ratios` holds those of the cells of each attribute of `found`, in its order. A seam gives edited cells a higher
    ratio than real ones, which have no edited border.
    """
    own, real = [cell.image for cell in found.edited], [cell.image for cell in found.reference + found.other]
    means = [
        _mean(values, names, how)
        for values, names in (
            (ratios["edited"], own),
            (ratios["unedited"], own),
            (ratios["reference"] + ratios["other"], real),
        )
    ]
    return Line(found.category, "border ratio of the region, mean", len(found.edited), *means)


def background_lines(
    category: str, before: Sequence[CellPatch], decoded: Sequence[Pixels], settings: EditSettings
) -> list[Line]:
    """Return the PSNR outside the edited region, in dB, in each of the two ways of putting a patch back."""
    lines = []
    for paste in ("box", "patch"):
        chosen = settings.model_copy(update={"paste": paste})
        value = background_psnr(
            (cell.pixels, patches.put_back(cell, pixels, chosen), patches.region(cell, chosen))
            for cell, pixels in zip(before, decoded, strict=True)
        )
        lines.append(Line(category, f"background PSNR, paste={paste}, dB", len(before), Estimate(value)))
    return lines


def _compared(
    quantity: str,
    found: Sides,
    values: Sequence[NDArray | None],
    measure: Callable[[NDArray, NDArray], float],
    how: Measuring,
) -> Line:
    """Return distances of edited and of unedited cells, and the floor, to the reference; `values` are of the sides."""
    edited, unedited, reference, other = values
    assert edited is not None and unedited is not None and reference is not None
    number = len(edited)
    images = [[cell.image for cell in cells[:number]] for cells in (found.edited, found.reference, found.other)]

    def statistic(own: Indices, target: Indices, rest: Indices | None = None) -> list[float]:
        after, before = measure(edited[own], reference[target]), measure(unedited[own], reference[target])
        floor = [] if rest is None or other is None else [measure(other[rest], reference[target])]
        return [after, before, before - after, *floor]

    after, before, nearer, *floor = estimates(statistic, [names for names in images if names], how.draws)
    return Line(found.category, quantity, number, after, before, floor[0] if floor else None, nearer)


def _kernel(a: Features, b: Features) -> float:
    """Return 1000 times the unbiased kernel distance of all of the smaller set and as many of the larger."""
    return 1000 * distance.kid(a, b, subsets=1, subset_size=min(len(a), len(b))).mean


def _with_a_floor_or_none(found: Sides, how: Measuring) -> Sides:
    """Return `found` without other real cells if they are too few for a floor: the edit can still be compared."""
    return found if len(found.other) >= how.fewest else replace(found, other=[])


def _number(found: Sides) -> int:
    """Return the number of cells that every side has."""
    return min(len(found.edited), len(found.reference), *([len(found.other)] if found.other else []))


def _mean(values: Sequence[float], images: Sequence[str], how: Measuring) -> Estimate | None:
    numbers = np.asarray(values, dtype=np.float64)
    return estimates(lambda i: [numbers[i].mean()], [images], how.draws, centred=False)[0] if len(values) else None


def _median(values: Sequence[float], images: Sequence[str], how: Measuring) -> Estimate | None:
    numbers = np.asarray(values, dtype=np.float64)
    found = (
        estimates(lambda i: [float(np.median(numbers[i]))], [images], how.draws, centred=False) if values else [None]
    )
    return found[0]
