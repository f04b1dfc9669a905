"""The images of a training run, so that it is never continued with others."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from .. import devices
from ..data import content
from ..data.sources import Sample
from . import checkpoint

TRAINED = "training images"
HELD_OUT = "held-out images"
"""On which a run selects its weights, or measures them."""
REFERENCES = "reference images"
"""Cells that a Comparison Detector compares with."""


def noted(
    samples: Sequence[Sample], run: Path, held_out: Sequence[Sample] | None = None, references: str = ""
) -> Sequence[Sample]:
    """Return `samples`; note all images that a training uses in `data.json` of the folder `run`.

    Noted are names, sizes, cells and labels; no pixels are read, since there may be gigabytes of them.

    Args:
        samples: are trained on.
        run: folder of the training.
        held_out: of these is measured; None: there is no measure.
        references: digest of the reference images; empty: there are none.

    Raises UsageError if `run` has checkpoints of a training with others.
    """
    if devices.first():
        found = {TRAINED: content.listing(samples)}
        if held_out is not None:
            found[HELD_OUT] = content.listing(held_out)
        if references:
            found[REFERENCES] = references
        note(found, run)
    return samples


def note(digests: Mapping[str, str], run: Path) -> None:
    """Note the `digests` of a training's images, by what they are for, in `data.json` of the folder `run`.

    Raises UsageError if `run` has checkpoints of a training with others.
    """
    content.pinned(digests, run, bool(checkpoint.found(run / "checkpoints")))
