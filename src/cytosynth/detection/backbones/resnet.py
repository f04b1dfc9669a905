"""ResNet-50, torchvision's: a feature pyramid or its stages, and where its ImageNet weights come from."""

from collections.abc import Sequence
from pathlib import Path
from urllib.error import URLError

from torch import Tensor, nn
from torchvision.models import ResNet50_Weights
from torchvision.models import resnet50 as torchvision_resnet50
from torchvision.models._utils import IntermediateLayerGetter
from torchvision.models.detection.backbone_utils import BackboneWithFPN, resnet_fpn_backbone
from torchvision.models.resnet import ResNet
from torchvision.ops import FrozenBatchNorm2d
from torchvision.ops.feature_pyramid_network import ExtraFPNBlock, LastLevelP6P7

from ...errors import EnvironmentProblem, UserError
from ...io import tensors
from ..recipe import NO_WEIGHTS, TORCHVISION
from .backbone import Anchors, Backbone, Norm, group_norm

IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
OTHERWISE = (
    f"give a safetensors file of them with --set weights=FILE, or train from scratch with --set weights={NO_WEIGHTS}"
)


def backbone() -> Backbone:
    """Return the backbone: for two-stage detectors on P2 to P5, for RetinaNet on P3 to P7, as torchvision's own."""
    return Backbone(
        pyramid=pyramid,
        single_stage=lambda pretrained: pyramid(pretrained, nn.BatchNorm2d, (2, 3, 4), LastLevelP6P7(256, 256)),
        stages=stages, start=start, imagenet=TORCHVISION, transform=IMAGENET, levels=("0", "1", "2", "3"),
        anchors=Anchors(tuple((size,) for size in (16, 32, 64, 128, 256)), (0.5, 1.0, 2.0)),
        single_stage_anchors=None, hidden=1024, proposals=512, reference_side=224, transformer="large",
    )  # fmt: skip


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


def pyramid(
    pretrained: bool, norm: Norm, levels: Sequence[int] = (1, 2, 3, 4), extra: ExtraFPNBlock | None = None
) -> BackboneWithFPN:
    """Return the network with a feature pyramid of 256 channels, weights random.

    Where `pretrained` weights are to be put in, batch norm is frozen and so are the stem and the first stage, as
    in torchvision's own detectors; `norm` is for networks that begin from scratch.
    """
    return resnet_fpn_backbone(
        backbone_name="resnet50", weights=None, norm_layer=FrozenBatchNorm2d if pretrained else norm,
        trainable_layers=3 if pretrained else 5, returned_layers=list(levels), extra_blocks=extra,
    )  # fmt: skip


def stages(pretrained: bool) -> Stages:
    """Return the three stages from stride 8 on, weights random.

    With `pretrained` weights to come, what `pyramid` freezes is frozen here too; else the norm is by groups.
    """
    network = torchvision_resnet50(weights=None, norm_layer=FrozenBatchNorm2d if pretrained else group_norm)
    if pretrained:
        for part in (network.conv1, network.layer1):
            part.requires_grad_(False)
    return Stages(network, {"layer2": 512, "layer3": 1024, "layer4": 2048})


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
        raise UserError(f"weights: {path}: no such file; give {NO_WEIGHTS}, {TORCHVISION} or a safetensors file")
    if path.suffix != tensors.SUFFIX:
        raise UserError(f"{path}: not .safetensors; a pickle can run code when it is opened: {tensors.CONVERT}")
    return tensors.read(path)
