"""Gains of paired trainings with two sources of variation: training images and test images.

A chain is one random order of training images with the seed of its training. Every chain is scored on the same
resampled test images, on both sides of a comparison, so that what both have in common cancels in the difference.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm, t

Values = NDArray[np.float64]
TIMES = 10
"""Number of resamples of chains for each resample of test images."""
LEVEL = 0.05


@dataclass(frozen=True)
class Gain:
    """A gain with the results of the two-way bootstrap.

    Attributes:
        value: mean over chains.
        low: lower end of the 95 % interval; None with fewer than two chains.
        high: upper end.
        p: two-sided p-value of no gain, before any correction; None if there is no interval.
        freedom: degrees of freedom behind the interval.
        chains: how many there are.
    """

    value: float
    low: float | None = None
    high: float | None = None
    p: float | None = None
    freedom: float | None = None
    chains: int = 1


@dataclass(frozen=True)
class Spread:
    """The variance of a mean over chains, by source.

    Attributes:
        chains: variance of the mean over chains (training images and training noise).
        images: variance of the mean under resampling of test images.
        number: of chains.
        tested: test images that hold what is measured.
    """

    chains: float
    images: float
    number: int
    tested: int

    @property
    def error(self) -> float:
        """The standard error of the mean."""
        return float(np.sqrt(self.chains + self.images))

    @property
    def freedom(self) -> float:
        """Degrees of freedom of the standard error, after Satterthwaite."""
        weight = self.chains**2 / (self.number - 1) + self.images**2 / max(self.tested - 1, 1)
        return float((self.chains + self.images) ** 2 / weight) if weight else float("inf")

    def of(self, number: int) -> "Spread":
        """Return the spread for another `number` of chains."""
        return Spread(self.chains * self.number / number, self.images, number, self.tested)


def spread(observed: Sequence[float] | Values, drawn: Values, tested: int) -> Spread:
    """Return the variance of the mean of `observed` (K,) by source; arguments as of `gain`; K is 2 or more."""
    values = np.asarray(observed, dtype=np.float64)
    means = drawn[:, ~np.isnan(drawn).any(axis=0)].mean(axis=0)
    within = float(means.var(ddof=1)) * tested / max(tested - 1, 1)
    return Spread(float(values.var(ddof=1)) / len(values), within, len(values), tested)


def gain(observed: Sequence[float] | Values, drawn: Values, tested: int, seed: int = 0) -> Gain:
    """Return the mean of `observed` differences, its 95 % interval and p-value, by a two-way bootstrap.

    Of K chains K - 1 are resampled with replacement (Rao and Wu 1988), for each resample of the test images: with K
    the variance between chains would come out (K - 1)/K too small. The interval is that of percentiles, taken farther
    out than 2.5 and 97.5 as Student's t is wider than the normal distribution (Hesterberg 2015), with Satterthwaite's
    degrees of freedom: those of five chains alone are four.

    Args:
        observed: (K,) difference of each chain on all test images.
        drawn: (K, D) the same on each of D resamples of the test images, which all chains share; NaN if a resample has
            no cell to find.
        tested: test images that hold what is measured.
        seed: of the resampling of chains.
    """
    values = np.asarray(observed, dtype=np.float64)
    count = len(values)
    if count < 2 or tested < 2:
        return Gain(float(values.mean()), chains=count)
    samples = resampled(values, drawn, tested, seed)
    freedom = spread(values, drawn, tested).freedom
    tail = float(norm.cdf(-t.ppf(1 - LEVEL / 2, freedom)))
    low, high = np.quantile(samples, (tail, 1 - tail))
    share = (1 + min(int((samples <= 0).sum()), int((samples >= 0).sum()))) / (1 + len(samples))
    p = min(1.0, 2 * float(t.cdf(norm.ppf(min(share, 0.5)), freedom)))
    return Gain(float(values.mean()), float(low), float(high), p, freedom, count)


def resampled(observed: Values, drawn: Values, tested: int, seed: int = 0) -> Values:
    """Return the (D x TIMES,) means of the two-way bootstrap; see `gain`.

    The deviation of a resampling from a chain's own value is widened by sqrt(n / (n - 1)) of n tested images.
    """
    count = len(observed)
    rng = np.random.default_rng(seed)
    own = np.asarray(observed, dtype=np.float64)[:, None]
    known = ~np.isnan(drawn).any(axis=0)
    widened = own + (drawn[:, known] - own) * np.sqrt(tested / (tested - 1))
    chosen = rng.integers(count, size=(TIMES, widened.shape[1], count - 1))
    columns = np.arange(widened.shape[1])[None, :, None]
    return np.asarray(widened[chosen, columns].mean(axis=2).ravel(), dtype=np.float64)


def holm(p: Mapping[str, float]) -> dict[str, float]:
    """Return the p-values of a family of tests, corrected after Holm (1979), in the order they are given.

    In ascending order the i-th of m is multiplied by m - i + 1, and none is smaller than the one before it.
    """
    corrected: dict[str, float] = {}
    highest = 0.0
    for place, name in enumerate(sorted(p, key=lambda key: p[key])):
        highest = max(highest, min(1.0, (len(p) - place) * p[name]))
        corrected[name] = highest
    return {name: corrected[name] for name in p}


def smallest_gain(found: Spread, level: float = LEVEL, power: float = 0.8) -> float:
    """Return the smallest true gain that a two-sided test at `level` shows with this `power`.

    (t(1 - level / 2) + t(power)) standard errors, with the degrees of freedom of `found`.
    """
    freedom = found.freedom
    return float((t.ppf(1 - level / 2, freedom) + t.ppf(power, freedom)) * found.error)
