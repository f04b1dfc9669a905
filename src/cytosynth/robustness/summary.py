"""One detector over all conditions: mean performance, relative performance, the worst case, with intervals.

mPC and rPC are those of Michaelis et al., Benchmarking Robustness in Object Detection (2019): the mean of a measure
over all variations and strengths, and that mean over the value on clean images.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..augmentation.gains import Runs
from ..evaluate.statistics import Estimate, interval
from .measures import Result
from .recipe import CLEAN

Values = NDArray[np.float64]


@dataclass(frozen=True)
class Trainings:
    """The results of one detector's trainings (seeds) under every condition.

    Attributes:
        results: by condition, one entry per training.
        images: that were scored.
    """

    results: Mapping[str, Sequence[Result]]
    images: int

    def estimate(self, measure: str, condition: str) -> Estimate:
        """Return the mean over trainings of `measure` under `condition`, with its 95 % interval.

        Over images alone for one training (percentiles of the bootstrap), over trainings too for several (Welch).
        """
        found = self.results[condition]
        return _estimate(
            [_number(one["scores"][measure]) for one in found], [_numbers(one["drawn"][measure]) for one in found],
            self.images,
        )  # fmt: skip

    def corrupted(self, measure: str) -> Estimate:
        """Return mPC: the mean of `measure` over all conditions but the clean one."""
        values, drawn = self._over(measure)
        return _estimate(values, drawn, self.images)

    def relative(self, measure: str) -> Estimate:
        """Return rPC: mPC over the clean value, resample by resample; NaN where that is 0."""
        values, drawn = self._over(measure)
        clean = [_number(one["scores"][measure]) for one in self.results[CLEAN]]
        clean_drawn = [_numbers(one["drawn"][measure]) for one in self.results[CLEAN]]
        ratios = [_ratio(*pair) for pair in zip(values, clean, strict=True)]
        drawn_ratios = [_ratio(*pair) for pair in zip(drawn, clean_drawn, strict=True)]
        return _estimate([float(value) for value in ratios], drawn_ratios, self.images)

    def worst(self, measure: str) -> tuple[str, Estimate]:
        """Return the condition under which `measure` is lowest, and its value there."""
        others = [name for name in self.results if name != CLEAN]
        known = {name: self.estimate(measure, name) for name in others}
        lowest = min(others, key=lambda name: np.nan_to_num(known[name].value, nan=np.inf))
        return lowest, known[lowest]

    def _over(self, measure: str) -> tuple[list[float], list[Values]]:
        """Return the mean over the varied conditions, and that of every resample, of each training."""
        others = [found for name, found in self.results.items() if name != CLEAN]
        trainings = range(len(self.results[CLEAN]))
        values = [float(np.mean([_number(found[t]["scores"][measure]) for found in others])) for t in trainings]
        drawn = [np.mean([_numbers(found[t]["drawn"][measure]) for found in others], axis=0) for t in trainings]
        return values, drawn


def _ratio(value: ArrayLike, clean: ArrayLike) -> Values:
    """Return `value` over `clean`, NaN where that is 0."""
    above, below = np.asarray(value, dtype=np.float64), np.asarray(clean, dtype=np.float64)
    ratio: Values = np.divide(above, below, out=np.full(below.shape, np.nan), where=below != 0)
    return ratio


def _estimate(values: Sequence[float], drawn: Sequence[Values], images: int) -> Estimate:
    if len(values) > 1:
        results = [{"scores": {"": value}, "drawn": {"": row}} for value, row in zip(values, drawn, strict=True)]
        return Runs(results, {"": images}).estimate("")
    return interval(values[0], drawn[0] if images > 1 else [])


def _number(value: float | None) -> float:
    return float("nan") if value is None else value


def _numbers(values: Sequence[float | None]) -> Values:
    return np.array([_number(value) for value in values], dtype=np.float64)
