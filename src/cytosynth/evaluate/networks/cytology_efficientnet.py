"""EfficientNet-Lite with ImageNet weights, fitted to cell classes by `train features --architecture ...`."""

from pathlib import Path

from . import cytology
from .network import Network


def load(path: Path | None) -> Network:
    """Return the network in the folder `path`, see `cytology.load`."""
    return cytology.load(path, "cytology-efficientnet", "efficientnet", "D (cytology, EfficientNet)")
