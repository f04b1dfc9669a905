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
        begun = bool(checkpoint.found(run / "checkpoints"))
        content.pinned({"training images": content.listing(samples)}, run, begun)
    return samples
