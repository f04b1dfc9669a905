"""Means, gains and verdicts of detectors, with intervals over the images they are scored on and seeds of training."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t

from ..annotations import Image
from ..evaluate.detection.scoring import ABNORMAL_AP
from ..evaluate.statistics import Estimate

FEWEST = 5
"""Number of images with a cell of a category, below which it has no interval and no verdict."""
HELPS, HURTS, UNDECIDED = "helps", "hurts", "no evidence"
Values = NDArray[np.float64]


@dataclass(frozen=True)
class Runs:
    """One detector on one training set after one number of steps, every seed.

    Attributes:
        results: of each seed, the result of `evaluate.detection.scoring`: `scores`, and `drawn`, the scores of
            bootstrap resamples of the images that are the same on all sides. images: number of images with a cell of
            each category, see `holding`.
    """

    results: Sequence[Mapping[str, Any]]
    images: Mapping[str, int]

    def seeds(self, measure: str) -> Values:
        """Return `measure` of each seed on all test images; NaN where these have no such cell."""
        return np.array([result["scores"][measure] for result in self.results], dtype=np.float64)

    def number(self, measure: str) -> int:
        """Return the number of images behind `measure`.

        For a mean over categories it is that of the rarest category, but at least `FEWEST`; for all abnormal cells as
        one class, that of the most frequent category.
        """
        known = [count for count in self.images.values() if count]
        if measure == ABNORMAL_AP:
            return max(known, default=0)
        return self.images.get(measure, max(FEWEST, min(known, default=0)))

    def drawn(self, measure: str) -> Values:
        """Return the mean over seeds of `measure` on each resample of the test images."""
        rows: Values = np.array([result["drawn"][measure] for result in self.results], dtype=np.float64)
        return np.asarray(rows.mean(axis=0), dtype=np.float64)

    def estimate(self, measure: str) -> Estimate:
        """Return the mean and its 95 % interval, whose lower end is at least 0."""
        found = _estimate([self.seeds(measure)], self.drawn(measure), self.number(measure))
        return found if found.low is None else found._replace(low=max(found.low, 0.0))


def gain(after: Runs, before: Runs, measure: str) -> Estimate:
    """Return the gain of `after` over `before` in `measure`, with its 95 % interval.

    Both are scored on the same bootstrap resamples of test images, so that what they have in common cancels in the
    difference.
    """
    drawn = after.drawn(measure) - before.drawn(measure)
    number = min(after.number(measure), before.number(measure))
    return _estimate([after.seeds(measure), before.seeds(measure)], drawn, number)


def holding(images: Iterable[Image], categories: Sequence[str]) -> dict[str, int]:
    """Return the number of `images` with a cell of each of `categories`."""
    own = [{cell.category for cell in image.cells} for image in images]
    return {name: sum(name in found for found in own) for name in categories}


def verdict(found: Estimate) -> str:
    """Return the conclusion from an interval: the data help, they hurt, or there is no evidence."""
    if found.low is None or found.high is None:
        return UNDECIDED
    if found.low > 0:
        return HELPS
    return HURTS if found.high < 0 else UNDECIDED


def hundred(found: Estimate) -> Estimate:
    """Return `found` times 100, as AP is customarily written."""
    return Estimate(*(None if value is None else 100 * value for value in found))  # type: ignore[arg-type]


def _estimate(sides: Sequence[Values], drawn: Values, images: int) -> Estimate:
    """Return the mean of the first of `sides` minus that of the second, and the interval over both sources of
    variation.

    The variance of resampled test images (bootstrap, times n / (n - 1) of the `images` that hold such a cell) and that
    of the mean over seeds (s^2 / n of each side) add up; Student's t has the degrees of freedom of Welch and
    Satterthwaite, n - 1 of each. A bootstrap of three seeds would be far too narrow: it finds a difference in one of
    five cases where there is none; so would one of two images (one of three cases), hence no interval below `FEWEST`.
    """
    value = float(sides[0].mean() - (sides[1].mean() if len(sides) > 1 else 0.0))
    known = drawn[~np.isnan(drawn)]
    if math.isnan(value) or min(map(len, sides)) < 2 or len(known) < 2 or images < FEWEST:
        return Estimate(value)
    parts = [float(side.var(ddof=1)) / len(side) for side in sides]
    drawing = float(known.var(ddof=1)) * images / (images - 1)
    total = sum(parts) + drawing
    weight = sum(part**2 / (len(side) - 1) for part, side in zip(parts, sides, strict=True))
    weight += drawing**2 / (images - 1)
    half = float(t.ppf(0.975, total**2 / weight if weight else math.inf)) * math.sqrt(total)
    return Estimate(value, value - half, value + half)
