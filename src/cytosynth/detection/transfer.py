"""Initialising a detector from another one, of any categories or kind: all tensors of equal name and shape."""

from pathlib import Path

from torch import nn

from ..errors import UserError
from ..foundation.names import BUNDLED
from ..io.bundled import model_folder
from . import model


def is_detector(weights: str) -> bool:
    """Return whether `weights` names a detector: 'bundled', or the folder of one."""
    return weights == BUNDLED or (Path(weights) / "config.json").is_file()


def pretrained(weights: str, backbone: str) -> bool:
    """Return whether the detector `weights` is on ImageNet weights, and so is a detector initialised from it.

    That determines how images are normalised and that batch norm is frozen. Raises UserError if its backbone is
    another.
    """
    config = model.configuration(_folder(weights))
    if config.backbone != backbone:
        raise UserError(f"weights={weights}: the detector's backbone is {config.backbone}, not {backbone}")
    return config.pretrained


def start(network: nn.Module, weights: str) -> str:
    """Copy into `network` every tensor of the detector `weights` that has the same name and shape there.

    Args:
        network: a detector, untrained, of the same backbone.
        weights: 'bundled' (NILM and four abnormal categories), or the folder of a detector.

    Returns a line that says how many that were. Raises UserError if nothing fits.
    """
    other = model.load(_folder(weights))
    own, given = network.state_dict(), other.network.state_dict()
    fitting = {name: value for name, value in given.items() if name in own and own[name].shape == value.shape}
    if not fitting:
        raise UserError(f"weights={weights}: no layer of that {other.config.architecture} fits by name and shape")
    network.load_state_dict(fitting, strict=False)
    return (
        f"{len(fitting)} of {len(own)} tensors are initialised from that {other.config.architecture}, "
        f"{len(own) - len(fitting)} at random; {len(given) - len(fitting)} of its tensors are not used"
    )


def _folder(weights: str) -> Path:
    return model_folder(weights, "detector")
