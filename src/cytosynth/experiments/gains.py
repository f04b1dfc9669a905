"""Means, gains and verdicts of Tables II and III, with intervals over test images and seeds of training."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..measure.resampling import Estimate

HELPS, HURTS, UNDECIDED = "helps", "hurts", "no evidence"


@dataclass(frozen=True)
class Runs:
    """One detector on one mix after one number of steps, every seed.

    Attributes:
        results: what `grid.work` wrote of each seed: `scores`, and `drawn`, the same for every draw of test images.
    """

    results: Sequence[Mapping[str, Any]]

    def mean(self, measure: str) -> float:
        """Return the mean over seeds of `measure` on all test images; NaN where these have no such cell."""
        values = [result["scores"][measure] for result in self.results]
        return math.nan if None in values else float(np.mean(values))

    def drawn(self, measure: str, seed: int) -> NDArray[np.float64]:
        """Return `measure` under resampling (draws,): the test images of each draw, and as many seeds, repeated."""
        table = np.array([result["drawn"][measure] for result in self.results], dtype=np.float64)
        chosen = np.random.default_rng(seed).integers(len(table), size=(table.shape[1], len(table)))
        values: NDArray[np.float64] = table[chosen, np.arange(table.shape[1])[:, None]].mean(axis=1)
        return values

    def estimate(self, measure: str) -> Estimate:
        """Return the mean and the middle 95 % under resampling of test images and seeds."""
        return _estimate(self.mean(measure), self.drawn(measure, 0))


def gain(after: Runs, before: Runs, measure: str) -> Estimate:
    """Return by how much `measure` of `after` is above that of `before`, with its 95 % interval.

    Both are scored on the same draw of test images each time; the seeds of each side are drawn by themselves.
    """
    drawn = after.drawn(measure, 1) - before.drawn(measure, 2)
    return _estimate(after.mean(measure) - before.mean(measure), drawn)


def verdict(found: Estimate) -> str:
    """Return what an interval says: that the data help, that they hurt, or nothing."""
    if found.low is None or found.high is None:
        return UNDECIDED
    if found.low > 0:
        return HELPS
    return HURTS if found.high < 0 else UNDECIDED


def _estimate(value: float, drawn: NDArray[np.float64]) -> Estimate:
    known = drawn[~np.isnan(drawn)]
    if math.isnan(value) or not known.size:
        return Estimate(value)
    low, high = np.percentile(known, (2.5, 97.5))
    return Estimate(value, float(low), float(high))
