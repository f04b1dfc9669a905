"""The training images of a run, so that it is never continued with others."""

from collections.abc import Sequence
from pathlib import Path

from .. import devices
from ..data import content
from ..data.sources import Sample
from . import checkpoint


def noted(samples: Sequence[Sample], run: Path) -> Sequence[Sample]:
    """Return `samples`; note their names, sizes, cells and labels in `data.json` of the folder `run`.

    No pixels are read, since there may be gigabytes of them. Raises UsageError if `run` has checkpoints of a training
    on others.
    """
    if devices.first():
        note(content.listing(samples), run)
    return samples


def note(digest: str, run: Path) -> None:
    """Note the `digest` of the training images in `data.json` of the folder `run`.

    Raises UsageError if `run` has checkpoints of a training on others.
    """
    content.pinned({"training images": digest}, run, bool(checkpoint.found(run / "checkpoints")))
