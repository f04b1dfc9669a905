"""A linear probe: by their features, can images of two sets be told apart, among images that it was not fitted to?"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize
from scipy.special import expit

from ..classifier.folds import assign
from . import distance
from .statistics import Estimate, Indices, interval, resamples

FOLDS = 5
PENALTY = 0.1
"""Half of it times the squared length of the weights is added to the mean log loss; fixed, not chosen by the data."""
STOP = {"gtol": 1e-8, "ftol": 1e-14, "maxiter": 1000}
"""Of the minimiser."""


class Probed(NamedTuple):
    """What a probe says of each member of both sets.

    Attributes:
        scores: (n,) higher: rather of the second set; NaN where the rest had none of one set.
        second: (n,) whether it is of the second set.
        folds: (n,) each was scored by the probe fitted to the other folds; scores of two folds are not comparable.
    """

    scores: NDArray[np.float64]
    second: NDArray[np.bool_]
    folds: NDArray[np.int64]


def probe(features: ArrayLike, second: ArrayLike, images: Sequence[str]) -> Probed:
    """Fit a logistic regression in five folds of whole images, and score each fold by that fitted to the other four.

    Args:
        features: (n, dimension); standardised by those that the regression is fitted to.
        second: (n,) whether each is of the second set.
        images: of each; what is of one image, in either set, is in one fold.
    """
    values, truth = np.asarray(features, dtype=np.float64), np.asarray(second, dtype=np.bool_)
    places = assign(images, [str(one) for one in truth], ("False", "True"), FOLDS)
    folds = np.array([places[image] for image in images])
    scores = np.full(len(values), np.nan)
    for fold in range(FOLDS):
        fitted, unseen = folds != fold, folds == fold
        if truth[fitted].any() and not truth[fitted].all():
            middle, spread = values[fitted].mean(axis=0), values[fitted].std(axis=0) + 1e-6
            weights = logistic((values[fitted] - middle) / spread, truth[fitted])
            scores[unseen] = ((values[unseen] - middle) / spread) @ weights
    return Probed(scores, truth, folds)


def logistic(features: NDArray[np.float64], truth: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return the (dimension,) weights of a logistic regression of (n,) `truth`; its intercept is not penalised."""
    signs = np.where(truth, 1.0, -1.0)

    def loss(weights: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        margins = signs * (features @ weights[:-1] + weights[-1])
        slopes = -signs * expit(-margins) / len(signs)
        value = np.logaddexp(0, -margins).mean() + PENALTY / 2 * weights[:-1] @ weights[:-1]
        return float(value), np.append(features.T @ slopes + PENALTY * weights[:-1], slopes.sum())

    found = minimize(loss, np.zeros(features.shape[1] + 1), jac=True, method="L-BFGS-B", options=STOP)
    return np.asarray(found.x[:-1], dtype=np.float64)


def area(found: Probed, chosen: Indices | None = None) -> float:
    """Return the area under the curve: how often the second set's member of a pair has the higher score, ties half.

    A pair is of one fold. NaN if there is none. `chosen` are indices of members, one of them as often as it is in them.
    """
    if chosen is not None:
        found = Probed(found.scores[chosen], found.second[chosen], found.folds[chosen])
    scores, second, folds = found
    won, pairs = 0.0, 0
    for fold in np.unique(folds[np.isfinite(scores)]):
        own = folds == fold
        first, other = scores[own & ~second], scores[own & second]
        if len(first) and len(other):
            won += distance.auc(other, first) * len(first) * len(other)
            pairs += len(first) * len(other)
    return won / pairs if pairs else float("nan")


def separation(found: Sequence[Probed], images: Sequence[str], draws: int) -> Estimate | None:
    """Return the area under the curve, the mean of `found`, which are of the same members in the same order.

    None if nothing was scored. The interval is from resampling whole `images` with the scores as they are: it says how
    the value depends on the images that are told apart, not on those that the probes were fitted to.
    """

    def mean(chosen: Indices | None) -> float:
        areas = [value for value in (area(one, chosen) for one in found) if np.isfinite(value)]
        return float(np.mean(areas)) if areas else float("nan")

    value = mean(None)
    if not np.isfinite(value):
        return None
    return interval(value, [mean(chosen) for (chosen,) in resamples([images], draws)])
