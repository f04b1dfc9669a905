"""The stopping rule by which the ratio is found."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ...evaluate.statistics import Estimate
from ..gains import HELPS, Runs, gain, verdict


@dataclass(frozen=True)
class Step:
    """One ratio that was tried.

    Attributes:
        ratio: synthetic images over real ones.
        before: the best ratio so far; 0: real images alone.
        gain: over real images alone.
        further: over `before`.
    """

    ratio: float
    before: float
    gain: Estimate
    further: Estimate

    @property
    def significant(self) -> bool:
        """Whether the whole interval of the further gain lies above 0."""
        return verdict(self.further) == HELPS


def walk(
    ratios: Sequence[float], runs: Callable[[float], Runs], measure: str, patience: int = 1
) -> tuple[list[Step], float]:
    """Increase the ratio until a further gain is not significant; return the steps and the best ratio, 0 for none.

    The best ratio is initially 0, the real images alone. A ratio becomes the best when the 95 % interval of its
    gain over the best so far lies above 0. After `patience` ratios in a row of which it holds 0 (or lies below), the
    walk ends. At the first ratio the further gain is the gain over real images alone.

    Args:
        ratios: ascending.
        runs: trains and scores at a ratio, all seeds; called for no ratio beyond the last that is tried.
        measure: the measure that must improve.
        patience: ratios in a row.
    """
    real, best, misses = runs(0.0), 0.0, 0
    steps: list[Step] = []
    for ratio in ratios:
        now = runs(ratio)
        steps.append(Step(ratio, best, gain(now, real, measure), gain(now, runs(best), measure)))
        best, misses = (ratio, 0) if steps[-1].significant else (best, misses + 1)
        if misses == patience:
            break
    return steps, best
