"""A small ResNet, from scratch: two stages with one block each, features at strides 8 and 16."""

from torch import nn
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.resnet import BasicBlock, ResNet

from ...errors import UserError
from .backbone import BRIGHT_FIELD, Anchors, Backbone, Norm, group_norm
from .resnet import Stages

CHANNELS = 64
ANCHORS = Anchors(((28, 42), (60, 90)), (0.75, 1.33))


def backbone() -> Backbone:
    """Return the backbone: for nuclei of about 10 pixels, on a CPU."""
    return Backbone(
        pyramid=lambda pretrained, norm: pyramid(norm),
        single_stage=lambda pretrained: pyramid(),
        stages=lambda pretrained: Stages(_two_stages(group_norm), {"layer2": 128}),
        start=_start, imagenet=None, transform=BRIGHT_FIELD, levels=("0", "pool"), anchors=ANCHORS,
        single_stage_anchors=ANCHORS, hidden=128, proposals=64, reference_side=64, transformer="small",
    )  # fmt: skip


def pyramid(norm: Norm = nn.BatchNorm2d) -> BackboneWithFPN:
    """Return the network with a feature pyramid: maps "0" at stride 8 and "pool" at stride 16."""
    return BackboneWithFPN(_two_stages(norm), {"layer2": "0"}, [128], CHANNELS)


def _two_stages(norm: Norm) -> ResNet:
    network = ResNet(BasicBlock, [1, 1, 1, 1], norm_layer=norm)
    del network.layer3, network.layer4, network.fc
    return network


def _start(body: nn.Module, weights: str) -> None:
    raise UserError(f"weights={weights}: the small backbone has no ImageNet weights; use weights=none or a detector")
