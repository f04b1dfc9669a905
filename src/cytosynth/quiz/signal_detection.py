"""Telling synthetic from real: signal detection theory (Macmillan and Creelman, Detection Theory, 2nd edition)."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import norm, rankdata


@dataclass(frozen=True)
class Detection:
    """What a reader detected.

    Attributes:
        sensitivity: share of the synthetic cells that were called synthetic; None without any.
        specificity: share of the real cells that were called real; None without any.
        d_prime: distance of the two kinds as the reader perceives them, in standard deviations; 0 is chance.
        criterion: bias; above 0 the reader says "real" more readily.
    """

    sensitivity: float | None
    specificity: float | None
    d_prime: float | None
    criterion: float | None


def detection(synthetic: Sequence[bool], called: Sequence[bool]) -> Detection:
    """Return the measures of answers: whether each cell is `synthetic`, and whether it was `called` so.

    d' = z(H) − z(F), c = −(z(H) + z(F)) / 2, with H and F corrected log-linearly (Hautus 1995): (hits + 0.5) /
    (synthetic + 1) and (false alarms + 0.5) / (real + 1), so that they are finite for a perfect reader too.
    """
    truth, answer = np.asarray(synthetic, dtype=bool), np.asarray(called, dtype=bool)
    made, real = int(truth.sum()), int((~truth).sum())
    hits, alarms = int((truth & answer).sum()), int((~truth & answer).sum())
    sensitivity = hits / made if made else None
    specificity = 1 - alarms / real if real else None
    if not made or not real:
        return Detection(sensitivity, specificity, None, None)
    hit, alarm = norm.ppf((hits + 0.5) / (made + 1)), norm.ppf((alarms + 0.5) / (real + 1))
    return Detection(sensitivity, specificity, float(hit - alarm), float(-(hit + alarm) / 2))


def area_under_curve(synthetic: Sequence[bool], ratings: Sequence[float]) -> float | None:
    """Return the area under the ROC curve of `ratings`, higher for more confidently synthetic; None with one kind only.

    It is the Mann-Whitney statistic: the chance that a synthetic cell is rated above a real one, ties counted half.
    """
    truth, ranks = np.asarray(synthetic, dtype=bool), rankdata(ratings)
    made, real = int(truth.sum()), int((~truth).sum())
    if not made or not real:
        return None
    return float((ranks[truth].sum() - made * (made + 1) / 2) / (made * real))
