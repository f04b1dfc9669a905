"""Initialising a detector from another one, of any categories or kind: all tensors of equal name and shape."""

from collections.abc import Sequence
from pathlib import Path

from torch import nn

from ..errors import UserError
from ..foundation.names import BUNDLED
from ..io import atomic
from ..io.bundled import model_folder
from . import model


def is_detector(weights: str) -> bool:
    """Return whether `weights` names a detector: 'bundled', the folder of one, or a run."""
    return weights == BUNDLED or (_folder(weights) / "config.json").is_file()


def identity(weights: str) -> str:
    """Return 16 hexadecimal digits of the file of the detector `weights`; empty if it names none."""
    return atomic.fingerprint(_folder(weights) / model.WEIGHTS)[:16] if is_detector(weights) else ""


def pretrained(weights: str, backbone: str) -> bool:
    """Return whether the detector `weights` is on ImageNet weights, and so is a detector initialised from it.

    That determines how images are normalised and that batch norm is frozen. Raises UserError if its backbone is
    another.
    """
    config = model.configuration(_folder(weights))
    if config.backbone != backbone:
        raise UserError(f"weights={weights}: the detector's backbone is {config.backbone}, not {backbone}")
    return config.pretrained


def start(network: nn.Module, weights: str, categories: Sequence[str]) -> str:
    """Copy into `network` every tensor of the detector `weights` that has the same name and shape there.

    Tensors with a row for each category are copied only if the categories are the same, in the same order.

    Args:
        network: a detector, untrained, of the same backbone.
        weights: 'bundled' (NILM and four abnormal categories), or the folder or run of a detector.
        categories: what the network is to find.

    Returns a line that says how many that were. Raises UserError if nothing fits.
    """
    other = model.as_saved(_folder(weights))
    own, given = network.state_dict(), other.network.state_dict()
    apart = set() if tuple(categories) == other.config.categories else _by_category(other.config)
    fitting = {
        name: value
        for name, value in given.items()
        if name in own and own[name].shape == value.shape and name not in apart
    }
    if not fitting:
        raise UserError(f"weights={weights}: no layer of that {other.config.architecture} fits by name and shape")
    network.load_state_dict(fitting, strict=False)
    return (
        f"{len(fitting)} of {len(own)} tensors are initialised from that {other.config.architecture}, "
        f"{len(own) - len(fitting)} at random; {len(given) - len(fitting)} of its tensors are not used"
    )


def _by_category(config: model.DetectorConfig) -> set[str]:
    """Return the names of the tensors whose shape depends on the number of categories."""
    more = config.model_copy(update={"categories": (*config.categories, "one more")})
    one, other = (model.build(each).state_dict() for each in (config, more))
    return {name for name, value in one.items() if name not in other or other[name].shape != value.shape}


def _folder(weights: str) -> Path:
    return model_folder(weights, "detector")
