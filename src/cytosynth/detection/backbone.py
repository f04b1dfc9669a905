"""What the detectors of torchvision share here: the backbone, where its weights come from, and images as they are."""

from collections.abc import Callable, Sequence
from pathlib import Path
from urllib.error import URLError

from torch import Tensor, nn
from torchvision.models import ResNet50_Weights
from torchvision.models import resnet50 as torchvision_resnet50
from torchvision.models._utils import IntermediateLayerGetter
from torchvision.models.detection.backbone_utils import BackboneWithFPN, resnet_fpn_backbone
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision.models.resnet import BasicBlock, ResNet
from torchvision.ops import FrozenBatchNorm2d
from torchvision.ops.feature_pyramid_network import ExtraFPNBlock

from ..errors import EnvironmentProblem, UserError
from ..io import tensors
from .recipe import NO_WEIGHTS, TORCHVISION, Backbone

Norm = Callable[[int], nn.Module]
SMALL_CHANNELS = 64
IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
BRIGHT_FIELD = {"image_mean": [0.8] * 3, "image_std": [0.2] * 3}
OTHERWISE = f"--set weights=FILE takes a safetensors file of them, --set weights={NO_WEIGHTS} starts from scratch"


class AsGiven(GeneralizedRCNNTransform):  # type: ignore[misc]
    """Normalises and batches images without resizing them; torchvision's `_skip_resize` does so in training alone."""

    def __init__(self, pretrained: bool) -> None:
        """Normalise as ImageNet weights expect it, or by the mean and deviation of a bright field."""
        super().__init__(min_size=0, max_size=0, **(IMAGENET if pretrained else BRIGHT_FIELD))

    def resize(self, image: Tensor, target: dict[str, Tensor] | None = None) -> tuple[Tensor, dict[str, Tensor] | None]:
        """Return both unchanged."""
        return image, target


class Stages(nn.Module):
    """The last stages of a ResNet, without a pyramid; `body` names its modules as torchvision does."""

    def __init__(self, network: ResNet, channels: dict[str, int]) -> None:
        """Take the wanted stages of `network` by name, and how many channels each has."""
        super().__init__()
        self.body = IntermediateLayerGetter(network, {name: name for name in channels})
        self.channels = tuple(channels.values())

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return the maps of the stages, finest first, of (n, 3, h, w) `images`."""
        return list(self.body(images).values())


def small(norm: Norm = nn.BatchNorm2d) -> BackboneWithFPN:
    """Return a ResNet of two stages with one block each, features at strides 8 and 16: nuclei of 10 pixels on a CPU."""
    return BackboneWithFPN(_two_stages(norm), {"layer2": "0"}, [128], SMALL_CHANNELS)


def _two_stages(norm: Norm) -> ResNet:
    network = ResNet(BasicBlock, [1, 1, 1, 1], norm_layer=norm)
    del network.layer3, network.layer4, network.fc
    return network


def resnet50(
    pretrained: bool,
    norm: Norm = nn.BatchNorm2d,
    levels: Sequence[int] = (1, 2, 3, 4),
    extra: ExtraFPNBlock | None = None,
) -> BackboneWithFPN:
    """Return torchvision's ResNet-50 with a feature pyramid of 256 channels, weights random.

    Where `pretrained` weights are to be put in, batch norm is frozen and so are the stem and the first stage, as
    in torchvision's own detectors; `norm` is for networks that begin from nothing.
    """
    return resnet_fpn_backbone(
        backbone_name="resnet50", weights=None, norm_layer=FrozenBatchNorm2d if pretrained else norm,
        trainable_layers=3 if pretrained else 5, returned_layers=list(levels), extra_blocks=extra,
    )  # fmt: skip


def stages(backbone: Backbone, pretrained: bool) -> Stages:
    """Return the stages from stride 8 on: three of ResNet-50, or the one of the small ResNet; weights random.

    With `pretrained` weights to come, what `resnet50` freezes is frozen here too; else the norm is by groups.
    """
    if backbone == "small":
        return Stages(_two_stages(group_norm), {"layer2": 128})
    network = torchvision_resnet50(weights=None, norm_layer=FrozenBatchNorm2d if pretrained else group_norm)
    if pretrained:
        for part in (network.conv1, network.layer1):
            part.requires_grad_(False)
    return Stages(network, {"layer2": 512, "layer3": 1024, "layer4": 2048})


def group_norm(channels: int) -> nn.GroupNorm:
    """Return group norm, which treats an image the same whatever else is in its batch."""
    return nn.GroupNorm(32, channels)


def start(body: nn.Module, weights: str) -> None:
    """Put ImageNet weights into `body`, the ResNet-50 of a detector.

    Args:
        body: its modules are named as torchvision's.
        weights: 'torchvision' (fetched, or from its cache; by hash) or the path of a safetensors file.

    Raises EnvironmentProblem when torchvision's weights cannot be fetched, UserError for a file that does not fit.
    """
    state = _fetched() if weights == TORCHVISION else read(Path(weights))
    try:
        body.load_state_dict({key: value for key, value in state.items() if not key.startswith("fc.")})
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines()[1:]] or [str(error)]
        raise UserError(f"{weights}: not weights of torchvision's ResNet-50 ({lines[0][:160]})") from None


def _fetched() -> dict[str, Tensor]:
    try:
        state: dict[str, Tensor] = ResNet50_Weights.IMAGENET1K_V1.get_state_dict(
            progress=True, check_hash=True, weights_only=True
        )
    except (URLError, OSError) as error:
        reason = getattr(error, "reason", None) or error
        raise EnvironmentProblem(
            f"torchvision's ResNet-50 weights cannot be fetched ({str(reason)[:80]}); {OTHERWISE}"
        ) from None
    return state


def read(path: Path) -> dict[str, Tensor]:
    """Return the weights in a safetensors file; raise UserError for anything else."""
    if not path.is_file():
        raise UserError(f"weights: {path}: no such file; there are {NO_WEIGHTS}, {TORCHVISION} or a safetensors file")
    if path.suffix != tensors.SUFFIX:
        raise UserError(f"{path}: not .safetensors; a pickle can run code when it is opened: {tensors.CONVERT}")
    return tensors.read(path)
