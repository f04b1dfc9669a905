"""ResNet-50 fitted to cell classes by `train features`: the network of FID@Cytopathology (Table I, Section IV-B)."""

from pathlib import Path

from . import cytology
from .network import Network


def load(path: Path | None) -> Network:
    """Return the network in the folder `path`, see `cytology.load`."""
    return cytology.load(path, "cytology-resnet50", "resnet50", "ID@Cytopathology")
