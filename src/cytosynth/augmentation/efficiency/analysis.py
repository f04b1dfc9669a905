"""Comparisons of arms by chain: gains with their two-way bootstrap, the confirmatory family, non-inferiority."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ...evaluate import two_way
from ...evaluate.detection.scoring import ABNORMAL_AP, MEASURES
from ...evaluate.two_way import Gain, Values
from .recipe import PASTED, REAL, EfficiencyRecipe

CONFIRMED, NOT_CONFIRMED, EXPLORATORY = "confirmed", "not confirmed", "exploratory"
Found = Mapping[int, Mapping[str, Any]]
"""Results of an arm at one size, by chain."""


@dataclass(frozen=True)
class Comparison:
    """One arm against another at one size.

    Attributes:
        size: N.
        arm: its name.
        against: name of the other arm.
        measure: what is compared.
        gain: the difference between the two arms, with interval and p-value.
        corrected: p-value after Holm, of the confirmatory ones.
    """

    size: int
    arm: str
    against: str
    measure: str
    gain: Gain
    corrected: float | None = None

    @property
    def status(self) -> str:
        """Whether it is confirmed, not confirmed, or exploratory."""
        if self.corrected is None:
            return EXPLORATORY
        return CONFIRMED if self.corrected < two_way.LEVEL and self.gain.value > 0 else NOT_CONFIRMED

    def not_inferior(self, margin: float) -> bool | None:
        """Return whether the whole interval lies above -`margin`; None if there is no interval."""
        return None if self.gain.low is None else self.gain.low > -margin


def paired(after: Found, before: Found, measure: str) -> tuple[Values, Values]:
    """Return the difference of `measure` for each chain of both sides: (K,) and (K, D), see `two_way.gain`."""
    chains = sorted(after.keys() & before.keys())
    sides = []
    for side in (after, before):
        own = np.array([side[chain]["scores"][measure] for chain in chains], dtype=np.float64)
        drawn = np.array([side[chain]["drawn"][measure] for chain in chains], dtype=np.float64)
        sides.append((own, drawn))
    return sides[0][0] - sides[1][0], sides[0][1] - sides[1][1]


def level(found: Found, measure: str, tested: int, least: int) -> Gain:
    """Return the mean of `measure` over chains with its interval; none for fewer than `least` images."""
    own = np.array([one["scores"][measure] for _, one in sorted(found.items())], dtype=np.float64)
    drawn = np.array([one["drawn"][measure] for _, one in sorted(found.items())], dtype=np.float64)
    return gain_of(own, drawn, tested, least)


def compared(
    results: Mapping[tuple[int, str], Found], recipe: EfficiencyRecipe, tested: Mapping[str, int]
) -> list[Comparison]:
    """Return every arm against the real images alone, at every size, and R + R2S and the candidate against copy-paste.

    The confirmatory ones (`recipe.confirmatory`, AP.5 of all abnormal cells as one class) are corrected after Holm.

    Args:
        results: of each size and arm, by chain. recipe: determines the measures. tested: number of test images with a
        cell of each class; under '' of any.
    """
    rows = []
    for (size, arm), found in results.items():
        others = [REAL] if arm != REAL else []
        beside = recipe.arms[arm].kind in ("edited", "exemplar") or arm == recipe.candidate
        others += [PASTED] if beside and arm != PASTED and (size, PASTED) in results else []
        for other in others:
            for measure in measures(recipe):
                observed, drawn = paired(found, results[size, other], measure)
                number = images(measure, tested, recipe.least)
                rows.append(Comparison(size, arm, other, measure, gain_of(observed, drawn, number, recipe.least)))
    return corrected(rows, recipe)


def corrected(rows: Sequence[Comparison], recipe: EfficiencyRecipe) -> list[Comparison]:
    """Return `rows` with the p-values of the confirmatory comparisons corrected; all of them must be present."""
    family = {
        (row.arm, row.against): row.gain.p
        for row in rows
        if row.size == recipe.confirmatory and row.measure == ABNORMAL_AP and row.arm == recipe.candidate
    }
    wanted = {(recipe.candidate, REAL), (recipe.candidate, PASTED)}
    known = {key: p for key, p in family.items() if p is not None}
    if known.keys() != wanted:
        return list(rows)
    earlier = {f"earlier {number}": p for number, p in enumerate(recipe.earlier)}
    by_name = two_way.holm(earlier | {f"{arm}|{against}": p for (arm, against), p in known.items()})
    return [
        replace(row, corrected=by_name.get(f"{row.arm}|{row.against}"))
        if row.size == recipe.confirmatory and row.measure == ABNORMAL_AP
        else row
        for row in rows
    ]


def measures(recipe: EfficiencyRecipe) -> list[str]:
    """Return the measures that are compared: of one class and, for detectors of several, mAP and each class."""
    return [ABNORMAL_AP, *([] if recipe.one_class else ["mAP", *recipe.categories])]


def shown(recipe: EfficiencyRecipe) -> list[str]:
    """Return the measures in the table of scores, those that are compared among them."""
    return [ABNORMAL_AP, *([] if recipe.one_class else [*MEASURES, *recipe.categories])]


def images(measure: str, tested: Mapping[str, int], least: int) -> int:
    """Return the number of images behind `measure`: all abnormal ones, or those with a class.

    For a mean over classes it is the number of the rarest class, but at least `least`.
    """
    if measure == ABNORMAL_AP:
        return tested[""]
    if measure in tested:
        return tested[measure]
    return max(least, min((count for name, count in tested.items() if name and count), default=0))


def gain_of(observed: Values, drawn: Values, tested: int, least: int) -> Gain:
    """Return the gain; without interval if there are too few images."""
    if tested < least or np.isnan(observed).any():
        return Gain(float(observed.mean()), chains=len(observed))
    return two_way.gain(observed, drawn, tested)
