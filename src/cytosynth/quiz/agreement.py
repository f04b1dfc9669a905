"""Agreement between readers beyond chance: Cohen's and Fleiss' kappa; the interval of a share."""

from collections.abc import Sequence

import numpy as np
from scipy.stats import norm

from ..evaluate.statistics import Estimate


def wilson(right: int, number: int) -> Estimate:
    """Return the share `right` of `number` with its 95 % score interval (Wilson 1927)."""
    z = float(norm.ppf(0.975))
    share = right / number
    middle = (share + z**2 / (2 * number)) / (1 + z**2 / number)
    half = z / (1 + z**2 / number) * float(np.sqrt(share * (1 - share) / number + z**2 / (4 * number**2)))
    return Estimate(share, max(0.0, middle - half), min(1.0, middle + half))


def cohen(first: Sequence[str], second: Sequence[str]) -> float | None:
    """Return Cohen's kappa (1960) of two readers' answers to the same items; None if chance explains all."""
    one, two = np.asarray(first), np.asarray(second)
    names = sorted({*first, *second})
    expected = sum(float((one == name).mean() * (two == name).mean()) for name in names)
    return None if expected >= 1 else float(((one == two).mean() - expected) / (1 - expected))


def fleiss(answers: Sequence[Sequence[str]]) -> float | None:
    """Return Fleiss' kappa (1971) of `answers`: those of all readers, at least two, to each item.

    None if chance explains all.
    """
    names = sorted({name for row in answers for name in row})
    counts = np.array([[row.count(name) for name in names] for row in map(list, answers)], dtype=np.float64)
    readers = counts.sum(axis=1)[0]
    observed = float(((counts**2).sum(axis=1) - readers).mean() / (readers * (readers - 1)))
    shares = counts.sum(axis=0) / counts.sum()
    expected = float((shares**2).sum())
    return None if expected >= 1 else (observed - expected) / (1 - expected)
