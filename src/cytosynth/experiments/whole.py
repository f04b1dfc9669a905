"""A training within an experiment that was asked to stop ends the experiment too."""

from ..training.loop import Outcome


def whole(outcome: Outcome) -> Outcome:
    """Return `outcome` of a training that came to its end; raise KeyboardInterrupt for one that was asked to stop."""
    if outcome.stopped or not outcome.finished:
        raise KeyboardInterrupt
    return outcome
