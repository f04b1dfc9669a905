"""A perceptual loss: how far two images are apart in the features of a network trained on ImageNet.

EfficientNet-Lite1 at four depths (strides 2 to 16). EfficientNet-Lite0 measures distances elsewhere in this package,
so it is not taken here: no network is both loss and measure.
"""

from itertools import accumulate
from operator import mul

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...imagenet import efficientnet_lite

NETWORK = "efficientnet-lite1"
STRIDES = (2, 4, 8, 16)
"""Of the features that are compared, each before the network halves them again."""


class Perceptual(nn.Module):
    """The squared distance of normalised features (Zhang et al. 2018, without learnt weights), summed over depths."""

    def __init__(self) -> None:
        """Load the network and freeze it."""
        super().__init__()
        network = efficientnet_lite.load(NETWORK)
        self.stem = nn.Sequential(network._conv_stem, network._bn0, network._swish)
        strides = list(accumulate((_stride(block) for block in network._blocks), mul, initial=2))[1:]
        self.ends = tuple(max(at for at, stride in enumerate(strides) if stride == wanted) for wanted in STRIDES)
        self.blocks = nn.ModuleList(network._blocks[: self.ends[-1] + 1])
        self.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> "Perceptual":
        """Stay in evaluation mode: the statistics of its batch norm are ImageNet's."""
        return super().train(False)

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        """Return the distance of (n, 3, height, width) images in -1..1, mean over images and places."""
        with torch.no_grad():
            wanted = self.normalised(target)
        distances = [(a - b).square().sum(1).mean() for a, b in zip(self.normalised(output), wanted, strict=True)]
        return torch.stack(distances).sum()

    def normalised(self, images: Tensor) -> list[Tensor]:
        """Return the maps at each of `STRIDES`, of unit length over channels."""
        found = []
        maps = self.stem(efficientnet_lite.prepare((images + 1) / 2))
        for at, block in enumerate(self.blocks):
            maps = block(maps)
            if at in self.ends:
                found.append(F.normalize(maps.float(), dim=1))
        return found


def _stride(block: nn.Module) -> int:
    stride: int | list[int] = block._block_args.stride  # type: ignore[assignment]
    return stride if isinstance(stride, int) else stride[0]
