"""What a few repetitions say: a mean and its 95 % interval."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.stats import t


class Mean(NamedTuple):
    """A mean over repetitions, and the 95 % interval of Student's t; None with a single repetition."""

    value: float
    low: float | None = None
    high: float | None = None

    def __str__(self) -> str:
        """Say it as a cell of a table."""
        if self.low is None or self.high is None:
            return f"{self.value:.4g}"
        return f"{self.value:.4g} [{self.low:.4g}, {self.high:.4g}]"


def mean(values: Sequence[float]) -> Mean:
    """Return mean and interval of independent repetitions. Few of them make a wide interval, as they should."""
    numbers = np.asarray(values, dtype=np.float64)
    middle = float(numbers.mean())
    if len(numbers) < 2:
        return Mean(middle)
    half = float(t.ppf(0.975, len(numbers) - 1) * numbers.std(ddof=1) / np.sqrt(len(numbers)))
    return Mean(middle, middle - half, middle + half)
