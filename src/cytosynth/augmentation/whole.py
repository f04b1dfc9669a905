"""A training within something longer that was asked to stop ends that too."""

from ..errors import UsageError
from ..training.loop import Outcome


def whole(outcome: Outcome, steps: int | None = None) -> Outcome:
    """Return `outcome` of a training that came to its end, after `steps` where that is said.

    Raises KeyboardInterrupt for one that was asked to stop, UsageError for one that had gone further before.
    """
    if outcome.stopped or not outcome.finished:
        raise KeyboardInterrupt
    if steps is not None and outcome.step != steps:
        raise UsageError(
            f"{outcome.weights.parent}: trained for {outcome.step} steps, but {steps} are requested; use another folder"
        )
    return outcome
