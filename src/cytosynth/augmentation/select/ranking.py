"""The order in which synthetic images are added: informative ones first, those least like real images last."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from ...data import image_files
from ...data.preview import with_boxes
from ...evaluate import sheet
from ...io.report import write_csv
from .candidates import Candidate

SHOWN = 8
"""Images on the sheet from either end."""


@dataclass(frozen=True)
class Ranked:
    """A candidate with the values that it is ranked by.

    Attributes:
        candidate: the image.
        uncertainty: mean over its cells, 0..1.
        distance: to the real images.
        merit: the value of the order, 0..1.
    """

    candidate: Candidate
    uncertainty: float
    distance: float
    merit: float


def merits(
    uncertainty: NDArray[np.float64], distance: NDArray[np.float64], weight: float
) -> NDArray[np.float64]:  # fmt: skip
    """Return weight x the share of less uncertain images + (1 - weight) x the share of more distant ones.

    Ranks, so that the scales of scores and features do not matter; equal images have the mean of their ranks.
    """
    last = max(len(uncertainty) - 1, 1)
    unsure, near = (rankdata(uncertainty) - 1) / last, (rankdata(-distance) - 1) / last
    return np.asarray(weight * unsure + (1 - weight) * near, dtype=np.float64)


def rank(
    candidates: Sequence[Candidate], uncertainty: NDArray[np.float64], distance: NDArray[np.float64], weight: float
) -> list[Ranked]:
    """Return the candidates, best first; those of equal merit in the order of their names."""
    merit = merits(uncertainty, distance, weight)
    found = [Ranked(*row) for row in zip(candidates, uncertainty, distance, merit, strict=True)]
    return sorted(found, key=lambda one: (-round(one.merit, 9), one.candidate.key))


def write(ranked: Sequence[Ranked], run: Path) -> None:
    """Write `ranking.csv`, and `ranking.png` with the first and the last ones."""
    columns = ("rank", "set", "image", "uncertainty", "distance", "merit", "cells")
    rows = [
        (number, one.candidate.label, one.candidate.image.file_name, round(one.uncertainty, 6),
         round(one.distance, 6), round(one.merit, 6), len(one.candidate.image.cells))
        for number, one in enumerate(ranked, 1)
    ]  # fmt: skip
    write_csv(run / "ranking.csv", columns, rows)
    ends = [*range(min(SHOWN, len(ranked))), *range(max(SHOWN, len(ranked) - SHOWN), len(ranked))]
    shown = [
        (
            with_boxes(image_files.read(ranked[index].candidate.path), ranked[index].candidate.image.cells),
            f"{index + 1}: uncertainty {ranked[index].uncertainty:.2f}, distance {ranked[index].distance:.3g}",
        )
        for index in ends
    ]
    sheet.write(run / "ranking.png", shown, columns=SHOWN)
