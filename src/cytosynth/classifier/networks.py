"""The networks of cell classifiers by name: torchvision's, and EfficientNet-Lite with ImageNet weights."""

from pathlib import Path
from typing import Final

from torch import nn
from torchvision import models
from torchvision.ops import FrozenBatchNorm2d

from ..errors import UsageError
from ..imagenet import efficientnet_lite, weights
from ..registry import CLASSIFIERS

LAST: Final = ("fc.", "_fc.", "classifier.", "head.", "heads.")
"""Names of the layer after the features."""
STRIDE_FROZEN: Final = 8
"""Stride up to which an EfficientNet keeps its ImageNet weights, which few images would not improve."""


def build(architecture: str, classes: int) -> nn.Module:
    """Return the network `architecture` with random weights; raise UsageError if there is none of that name.

    Besides those of `registry.CLASSIFIERS`, any classification network of torchvision can be used, not trained.
    """
    make = CLASSIFIERS.load(architecture) if architecture in CLASSIFIERS else of_torchvision
    network: nn.Module = make(architecture, classes)
    return network


def lite(architecture: str, classes: int) -> nn.Module:
    """Return the EfficientNet-Lite `architecture`."""
    network: nn.Module = efficientnet_lite.build(architecture, classes)
    return network


def of_torchvision(architecture: str, classes: int) -> nn.Module:
    """Return torchvision's classification network `architecture`; raise UsageError if there is none."""
    if architecture not in models.list_models(module=models):
        raise UsageError(
            f"architecture {architecture!r}: neither a classification network of torchvision nor one of "
            f"{', '.join(CLASSIFIERS)}"
        )
    found: nn.Module = models.get_model(architecture, weights=None, num_classes=classes)
    return found


def last(network: nn.Module) -> nn.Linear | None:
    """Return the linear layer that reads the features; None if there is none."""
    linear = [module for module in network.modules() if isinstance(module, nn.Linear)]
    return linear[-1] if linear else None


def start(network: nn.Module, architecture: str, given: str) -> None:
    """Load weights into all layers of `network` except the last; those of ImageNet stay partly frozen.

    Args:
        network: untrained.
        architecture: its name.
        given: 'imagenet' (EfficientNet-Lite: its package's), or the path of a safetensors file under the names of
            torchvision or of that package.

    Raises UsageError if there are no such weights, UserError for a file that does not fit.
    """
    known, imagenet = architecture in efficientnet_lite.RELEASES, given == efficientnet_lite.PACKAGE
    if imagenet and not known:
        raise UsageError(f"start={given}: no ImageNet weights available for {architecture}; give a safetensors file")
    path = Path(given)
    state = efficientnet_lite.read(architecture, None if imagenet else path) if known else weights.read(path, known="")
    own = {key: value for key, value in network.state_dict().items() if key.startswith(LAST)}
    weights.fill(network, {key: value for key, value in state.items() if not key.startswith(LAST)} | own, path)
    if imagenet:
        efficientnet_lite.freeze(network, STRIDE_FROZEN)


def frozen(network: nn.Module) -> bool:
    """Return whether `network` has ImageNet weights that keep their statistics, see `start`."""
    return any(isinstance(module, FrozenBatchNorm2d) for module in network.modules())
