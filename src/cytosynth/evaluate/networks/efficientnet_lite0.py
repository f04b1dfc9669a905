"""EfficientNet-Lite0 trained on ImageNet, from packages of the Python registry: works without a model hub."""

from pathlib import Path

from efficientnet_lite_pytorch import EfficientNet
from torch import Tensor, nn

from ...imagenet import efficientnet_lite
from . import resize
from .network import Network

SIDE = 224


class Features(nn.Module):
    """The network without its classifier: (n, 3, 224, 224) to the mean of its last 1280 channels."""

    def __init__(self, network: EfficientNet) -> None:
        """Keep `network`."""
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        """Return (n, 1280) features."""
        maps: Tensor = self.network.extract_features(images)
        return maps.mean(dim=(2, 3))


def load(path: Path | None) -> Network:
    """Return the network with the weights at `path`; where None, those of the package."""
    return Network(
        title="D (EfficientNet-Lite0)",
        dimension=1280,
        module=Features(efficientnet_lite.load("efficientnet-lite0", path)),
        prepare=lambda pixels: (resize.clean(pixels, SIDE) - efficientnet_lite.MEAN) / efficientnet_lite.DEVIATION,
        preprocessing="clean-fid 224, (x - 127) / 128",
    )
