"""A linear probe: can images of two sets be distinguished by their features? Measured on held-out images."""

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
"""Half of it times the squared norm of the weights is added to the mean log loss; fixed, not chosen on the data."""
STOP = {"gtol": 1e-8, "ftol": 1e-14, "maxiter": 1000}
"""Of the minimiser."""


class Probed(NamedTuple):
    """Cross-fitted scores of the members of both sets.

    Attributes:
        scores: (n,) higher for the second set; NaN if the other folds have no member of one set.
        second: (n,) whether the member is of the second set.
        folds: (n,) each is scored by the probe fitted to the other folds; scores of two folds are not comparable.
    """

    scores: NDArray[np.float64]
    second: NDArray[np.bool_]
    folds: NDArray[np.int64]


def probe(features: ArrayLike, second: ArrayLike, images: Sequence[str]) -> Probed:
    """Return the scores of a logistic regression, cross-fitted in five folds of whole images.

    Args:
        features: (n, dimension); standardised by the mean and deviation of the members that are fitted.
        second: (n,) whether each is of the second set.
        images: of each; all members of one image, of either set, are in one fold.
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
    """Return the area under the curve: the share of pairs in which the second set has the higher score, ties half.

    Both members of a pair are of one fold. NaN if there is no pair. `chosen` are indices of members, with repetitions.
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
    """Return the area under the curve, the mean over `found`, which have the same members in the same order.

    None if there are no scores. The interval is from resampling whole `images` with fixed scores: it has the variation
    of the measured images, not of those that the probes are fitted to.
    """

    def mean(chosen: Indices | None) -> float:
        areas = [value for value in (area(one, chosen) for one in found) if np.isfinite(value)]
        return float(np.mean(areas)) if areas else float("nan")

    value = mean(None)
    if not np.isfinite(value):
        return None
    return interval(value, [mean(chosen) for (chosen,) in resamples([images], draws)])
