"""Beginning a detector from another one: whatever both have by name and shape, be it of other categories or kind."""

from pathlib import Path

from torch import nn

from ..errors import UserError
from ..foundation.load import bundled
from ..foundation.recipe import BUNDLED
from . import model


def is_detector(weights: str) -> bool:
    """Return whether `weights` names a detector: 'bundled', or the folder of one."""
    return weights == BUNDLED or (Path(weights) / "config.json").is_file()


def start(network: nn.Module, backbone: str, weights: str) -> tuple[int, int]:
    """Copy into `network` every tensor of the detector `weights` that has the same name and shape there.

    Args:
        network: a detector, untrained.
        backbone: its backbone, which must be that of the other.
        weights: 'bundled' (the NILM detector), or the folder of a detector.

    Returns how many numbers were copied, and how many `network` has. Raises UserError where the backbones differ or
    nothing fits.
    """
    other = model.load(bundled("detector") if weights == BUNDLED else Path(weights))
    if other.config.backbone != backbone:
        raise UserError(f"weights={weights}: a detector on {other.config.backbone}, not on {backbone}")
    own, given = network.state_dict(), other.network.state_dict()
    fitting = {name: value for name, value in given.items() if name in own and own[name].shape == value.shape}
    if not fitting:
        raise UserError(f"weights={weights}: nothing of that {other.config.architecture} fits by name and shape")
    network.load_state_dict(fitting, strict=False)
    return sum(value.numel() for value in fitting.values()), sum(value.numel() for value in own.values())
