"""The interface of a backbone: features, the sizes of the heads on them, and the normalisation of images."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from torch import Tensor, nn
from torchvision.models.detection.transform import GeneralizedRCNNTransform

Norm = Callable[[int], nn.Module]
BRIGHT_FIELD: Final = {"image_mean": [0.8] * 3, "image_std": [0.2] * 3}
"""Normalisation of images for networks without ImageNet weights."""


@dataclass(frozen=True)
class Anchors:
    """Boxes that proposals start from: sizes (pixels) on each level of a pyramid, and heights over widths."""

    sizes: tuple[tuple[int, ...], ...]
    ratios: tuple[float, ...]


@dataclass(frozen=True)
class Backbone:
    """A backbone, and the values that its heads need.

    With `pretrained`, ImageNet weights will be loaded: batch norm and the first stages are frozen.

    Attributes:
        pyramid: (pretrained, norm of what begins from scratch) to the network of two-stage detectors, which returns
            maps by name, finest first, each of its `out_channels`.
        single_stage: pretrained to that of RetinaNet, the same.
        stages: pretrained to that of DINO, which returns the maps from stride 8 on, finest first, of its `channels`.
        start: puts ImageNet weights, by the name of a recipe or a file, into the `body` of the pyramid or the stages.
        imagenet: the recipe's name of its ImageNet weights; None if there are none.
        transform: how images of 0..1 are normalised with ImageNet weights: `image_mean`, `image_std`.
        levels: maps of the pyramid that proposals are pooled from.
        anchors: of two-stage detectors.
        single_stage_anchors: of RetinaNet.
        hidden: channels of the box head's layers.
        proposals: of an image, that the box head trains on.
        reference_side: pixels of a Comparison Detector's reference cell.
        transformer: of `dino.sizes.SIZES`, for DINO.
        rate: factor on the learning rate of ImageNet weights, except in DINO, which has its own.
    """

    pyramid: Callable[[bool, Norm], Any]
    single_stage: Callable[[bool], Any]
    stages: Callable[[bool], Any]
    start: Callable[[nn.Module, str], None]
    imagenet: str | None
    transform: dict[str, list[float]]
    levels: tuple[str, ...]
    anchors: Anchors
    single_stage_anchors: Anchors | None
    hidden: int
    proposals: int
    reference_side: int
    transformer: str
    rate: float = 1.0

    def normalise(self, pretrained: bool) -> "AsGiven":
        """Return the normalisation of images for this backbone, with or without ImageNet weights."""
        return AsGiven(self.transform if pretrained else BRIGHT_FIELD)


class AsGiven(GeneralizedRCNNTransform):  # type: ignore[misc]
    """Normalises and batches images without resizing them; torchvision's `_skip_resize` does so in training alone."""

    def __init__(self, normalisation: dict[str, Any]) -> None:
        """Normalise by `image_mean` and `image_std`, of images in 0..1."""
        super().__init__(min_size=0, max_size=0, **normalisation)

    def resize(self, image: Tensor, target: dict[str, Tensor] | None = None) -> tuple[Tensor, dict[str, Tensor] | None]:
        """Return both unchanged."""
        return image, target


def group_norm(channels: int) -> nn.GroupNorm:
    """Return group norm, which treats an image the same whatever else is in its batch."""
    return nn.GroupNorm(32, channels)
