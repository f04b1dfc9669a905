"""The parts of an architecture besides its network, so that the trainer needs no special cases."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from ..data.sources import Sample
from ..registry import DETECTORS
from .recipe import DetectorRecipe

Build = Callable[[str, int, bool], nn.Module]
"""Backbone, number of categories, whether ImageNet weights are used: the untrained network.

It is torchvision's kind: called with images ((3, h, w) in 0..1) and targets (`boxes` xyxy, `labels` from 1) it returns
losses by name while training, and with images alone, in evaluation, `boxes`, `labels` and `scores` of each.
"""


@dataclass(frozen=True)
class Architecture:
    """One architecture of `registry.DETECTORS`.

    Attributes:
        build: makes its network.
        start: puts ImageNet weights by name or file into the network, and returns a line that says so; None: the
            backbone's own way.
        prepare: gives the network what it needs of the training data before it trains.
        references: returns a digest of the images that `prepare` reads besides the training data; empty: none.
        backbone: prefix of the names of the parameters that begin from ImageNet weights.
        rate: factor on their learning rate; None: the backbone's own.
        fractions: whether its boxes are fractions of what it saw in training, which decides the side of its tiles.
    """

    build: Build
    start: Callable[[Any, str], str] | None = None
    prepare: Callable[[Any, DetectorRecipe, Sequence[Sample], Path], None] | None = None
    references: Callable[[DetectorRecipe, Path], str] | None = None
    backbone: str = "backbone.body."
    rate: float | None = None
    fractions: bool = False


def load(name: str) -> Architecture:
    """Return the architecture `name`; raise UsageError if there is no such."""
    found: Architecture = DETECTORS.load(name)
    return found
