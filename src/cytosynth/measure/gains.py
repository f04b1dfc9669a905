"""Means, gains and verdicts of detectors, with intervals over the images they are scored on and seeds of training."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t

from .resampling import Estimate

HELPS, HURTS, UNDECIDED = "helps", "hurts", "no evidence"
Values = NDArray[np.float64]


@dataclass(frozen=True)
class Runs:
    """One detector on one mix after one number of steps, every seed.

    Attributes:
        results: of each seed, what `detect/scoring.py` returns: `scores`, and `drawn`, for draws of the images that are
            the same on all sides.
    """

    results: Sequence[Mapping[str, Any]]

    def seeds(self, measure: str) -> Values:
        """Return `measure` of each seed on all test images; NaN where these have no such cell."""
        return np.array([result["scores"][measure] for result in self.results], dtype=np.float64)

    def drawn(self, measure: str) -> Values:
        """Return the mean over seeds of `measure` on each draw of test images."""
        rows: Values = np.array([result["drawn"][measure] for result in self.results], dtype=np.float64)
        return np.asarray(rows.mean(axis=0), dtype=np.float64)

    def estimate(self, measure: str) -> Estimate:
        """Return the mean and its 95 % interval, which begins at 0 at the lowest."""
        found = _estimate([self.seeds(measure)], self.drawn(measure))
        return found if found.low is None else found._replace(low=max(found.low, 0.0))


def gain(after: Runs, before: Runs, measure: str) -> Estimate:
    """Return by how much `measure` of `after` is above that of `before`, with its 95 % interval.

    Both are scored on the same draws of test images, so that what is common to both falls out of the difference.
    """
    drawn = after.drawn(measure) - before.drawn(measure)
    return _estimate([after.seeds(measure), before.seeds(measure)], drawn)


def verdict(found: Estimate) -> str:
    """Return what an interval says: that the data help, that they hurt, or nothing."""
    if found.low is None or found.high is None:
        return UNDECIDED
    if found.low > 0:
        return HELPS
    return HURTS if found.high < 0 else UNDECIDED


def hundred(found: Estimate) -> Estimate:
    """Return `found` times 100, as AP is customarily written."""
    return Estimate(*(None if value is None else 100 * value for value in found))  # type: ignore[arg-type]


def _estimate(sides: Sequence[Values], drawn: Values) -> Estimate:
    """Return the mean of the first of `sides` less that of the second, and the interval of both sources of chance.

    The variance of resampled test images (bootstrap) and that of the mean over seeds (s^2 / n of each side) add up;
    Student's t has the degrees of freedom of Welch and Satterthwaite. A bootstrap of three seeds would be far too
    narrow: it calls one difference in five real where there is none.
    """
    value = float(sides[0].mean() - (sides[1].mean() if len(sides) > 1 else 0.0))
    known = drawn[~np.isnan(drawn)]
    if math.isnan(value) or min(map(len, sides)) < 2 or len(known) < 2:
        return Estimate(value)
    parts = [float(side.var(ddof=1)) / len(side) for side in sides]
    total = sum(parts) + float(known.var(ddof=1))
    weight = sum(part**2 / (len(side) - 1) for part, side in zip(parts, sides, strict=True))
    half = float(t.ppf(0.975, total**2 / weight if weight else math.inf)) * math.sqrt(total)
    return Estimate(value, value - half, value + half)
