"""A training within something longer that was asked to stop ends that too."""

from .loop import Outcome


def whole(outcome: Outcome) -> Outcome:
    """Return `outcome` of a training that came to its end; raise KeyboardInterrupt for one that was asked to stop."""
    if outcome.stopped or not outcome.finished:
        raise KeyboardInterrupt
    return outcome
