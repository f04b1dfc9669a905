"""Cross-fitting: images go to folds, so that every cell is classified by a network that never saw its image."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import UserError
from .crops import Crop


@dataclass(frozen=True)
class Parts:
    """The training cells of a classifier, and its test cells."""

    fitted: list[Crop]
    held_out: list[Crop]


def parts(crops: Sequence[Crop], categories: Sequence[str], folds: int, fold: int) -> Parts:
    """Return the cells outside and inside of `fold`; raise UserError if a category has none outside."""
    places = assign([crop.image for crop in crops], [crop.category for crop in crops], categories, folds)
    fitted = [crop for crop in crops if places[crop.image] != fold]
    lacking = sorted(set(categories) - {crop.category for crop in fitted})
    if lacking:
        name = lacking[0]
        images = {crop.image for crop in crops if crop.category == name}
        if len(images) > 1:
            raise UserError(f"folds={folds}: all {name} cells are in one fold; use more folds")
        where = f"all {name} cells are in one image" if images else f"no image has a cell of {name}"
        raise UserError(f"{where}; annotate more images, or leave {name} out: --set 'categories=[...]'")
    return Parts(fitted, [crop for crop in crops if places[crop.image] == fold])


def assign(images: Sequence[str], kinds: Sequence[str], known: Sequence[str], folds: int) -> dict[str, int]:
    """Return the fold of each image, such that the cells of every kind are spread as evenly as whole images allow.

    `images` and `kinds` (categories) are of each cell, the latter among those `known`. Images with many cells of a rare
    kind are assigned first, each to the fold that gives the most even distribution: the sum over folds and kinds of the
    squared share of a kind's cells is least.
    """
    names = sorted(set(images))
    numbers = {name: number for number, name in enumerate(names)}
    counts = np.zeros((len(names), len(known)))
    for image, kind in zip(images, kinds, strict=True):
        counts[numbers[image], known.index(kind)] += 1
    shares = counts / np.maximum(counts.sum(axis=0), 1)
    order = sorted(range(len(names)), key=lambda index: (-shares[index].max(), names[index]))
    held = np.zeros((folds, len(known)))
    places = {}
    for index in order:
        growth = (((held + shares[index]) ** 2) - held**2).sum(axis=1)
        chosen = int(growth.argmin())
        held[chosen] += shares[index]
        places[names[index]] = chosen
    return places
