"""EfficientNet-Lite0 to Lite2 with ImageNet weights that need no model hub; features at strides 8, 16 and 32."""

from pathlib import Path

from torch import Tensor, nn
from torchvision.ops import FeaturePyramidNetwork

from ...errors import UserError
from ...imagenet import efficientnet_lite, weights
from ..recipe import NO_WEIGHTS
from .backbone import Anchors, Backbone

CHANNELS = 64
LEVELS = ("0", "1", "2")
ANCHORS = Anchors(((28, 42), (60, 90), (128, 180)), (0.75, 1.0, 1.33))
RATE = 0.3
"""A third of the rate of heads that are trained from scratch."""
DEVIATION = efficientnet_lite.DEVIATION / 255


def lite0() -> Backbone:
    """Return the backbone EfficientNet-Lite0."""
    return _backbone("efficientnet-lite0")


def lite1() -> Backbone:
    """Return the backbone EfficientNet-Lite1."""
    return _backbone("efficientnet-lite1")


def lite2() -> Backbone:
    """Return the backbone EfficientNet-Lite2."""
    return _backbone("efficientnet-lite2")


def _backbone(name: str) -> Backbone:
    """Return the backbone `name`; heads are small, for a CPU."""
    return Backbone(
        pyramid=lambda pretrained, norm: Pyramid(name, pretrained),
        single_stage=lambda pretrained: Pyramid(name, pretrained),
        stages=lambda pretrained: Stages(name, pretrained),
        start=lambda body, given: start(name, body, given),
        imagenet=efficientnet_lite.PACKAGE,
        transform={"image_mean": [efficientnet_lite.MEAN / 255] * 3, "image_std": [DEVIATION] * 3},
        levels=LEVELS, anchors=ANCHORS, single_stage_anchors=ANCHORS, hidden=128, proposals=64, reference_side=64,
        transformer="small", rate=RATE,
    )  # fmt: skip


class Stages(nn.Module):
    """The maps at strides 8, 16 and 32; `body` names its modules as the package does."""

    def __init__(self, name: str, pretrained: bool) -> None:
        """Build it with random weights."""
        super().__init__()
        self.body = efficientnet_lite.Stages(name, frozen=pretrained)
        self.channels = self.body.channels

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return the maps, finest first, of (n, 3, h, w) `images`."""
        maps: list[Tensor] = self.body(images)
        return maps


class Pyramid(nn.Module):
    """The maps at strides 8, 16 and 32, with a feature pyramid."""

    def __init__(self, name: str, pretrained: bool) -> None:
        """Build it with random weights."""
        super().__init__()
        self.body = efficientnet_lite.Stages(name, frozen=pretrained)
        self.fpn = FeaturePyramidNetwork(list(self.body.channels), CHANNELS)
        self.out_channels = CHANNELS

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Return the maps "0", "1" and "2", finest first, of (n, 3, h, w) `images`."""
        levels: dict[str, Tensor] = self.fpn(dict(zip(LEVELS, self.body(images), strict=True)))
        return levels


def start(name: str, body: nn.Module, given: str) -> None:
    """Put ImageNet weights into `body`, the stages of `name`.

    Args:
        name: efficientnet-lite0 ...
        body: its modules are named as the package's.
        given: 'imagenet' (the package's) or the path of a file: safetensors, or the release by its hash.

    Raises UserError for a file that does not fit.
    """
    if given != efficientnet_lite.PACKAGE and not Path(given).is_file():
        raise UserError(
            f"weights: {given}: no such file; give {NO_WEIGHTS}, {efficientnet_lite.PACKAGE} or a file for {name}"
        )
    path = None if given == efficientnet_lite.PACKAGE else Path(given)
    head = ("_conv_head.", "_bn1.", "_fc.")
    state = {key: value for key, value in efficientnet_lite.read(name, path).items() if not key.startswith(head)}
    weights.fill(body, state, Path(given))
