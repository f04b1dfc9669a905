"""What a few repetitions say."""

from collections.abc import Sequence

import numpy as np
from scipy.stats import t

from ..measure.resampling import Estimate


def mean(values: Sequence[float]) -> Estimate:
    """Return the mean of independent repetitions and the 95 % interval of Student's t.

    Few of them make a wide interval, as they should; a single one has none.
    """
    numbers = np.asarray(values, dtype=np.float64)
    middle = float(numbers.mean())
    if len(numbers) < 2:
        return Estimate(middle)
    half = float(t.ppf(0.975, len(numbers) - 1) * numbers.std(ddof=1) / np.sqrt(len(numbers)))
    return Estimate(middle, middle - half, middle + half)
