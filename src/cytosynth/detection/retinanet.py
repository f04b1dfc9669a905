"""RetinaNet (Lin et al. 2017, the paper's [48]): torchvision's, on any backbone."""

from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.detection import RetinaNet

from . import backbones
from .architecture import Architecture
from .faster_rcnn import generator

WIDE = 256
"""Channels for which torchvision's initialisation of the head is made."""
LIMITS = {"score_thresh": 0.05, "nms_thresh": 0.5, "detections_per_img": 300}


def build(backbone: str, categories: int, pretrained: bool = False) -> RetinaNet:
    """Return an untrained RetinaNet for `categories` kinds of cell.

    On `resnet50` it is torchvision's R50-FPN on levels P3 to P7. Images are not resized.
    """
    base = backbones.load(backbone)
    anchors = generator(base.single_stage_anchors) if base.single_stage_anchors else None
    pyramid = base.single_stage(pretrained)
    network = CellRetinaNet(pyramid, categories, anchor_generator=anchors, **LIMITS)
    if pyramid.out_channels < WIDE:
        _enliven(network.head)
    network.transform = base.normalise(pretrained)
    return network


@torch.no_grad()
def _enliven(head: nn.Module) -> None:
    """Initialise the convolutions of both towers of `head` by their width (He et al. 2015), not the last layers.

    torchvision uses a standard deviation of 0.01 for all, made for 256 channels, where a layer passes on 0.34 of its
    input. With 64 channels a layer passes on 0.17, and four of them a thousandth: for hundreds of steps the head
    predicts only its prior.
    """
    for tower in ("classification_head.conv", "regression_head.conv"):
        for module in head.get_submodule(tower).modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")


class CellRetinaNet(RetinaNet):  # type: ignore[misc]
    """RetinaNet whose labels count from 1, as those of the other detectors; torchvision's has a dead class 0."""

    def compute_loss(
        self, targets: list[dict[str, Tensor]], head_outputs: dict[str, Tensor], anchors: list[Tensor]
    ) -> dict[str, Tensor]:
        """Return the focal loss `classification` and the L1 loss `bbox_regression`."""
        shifted = [{**target, "labels": target["labels"] - 1} for target in targets]
        losses: dict[str, Tensor] = super().compute_loss(shifted, head_outputs, anchors)
        return losses

    def postprocess_detections(self, *outputs: Any) -> list[dict[str, Tensor]]:
        """Return boxes, scores and labels of each image."""
        found = super().postprocess_detections(*outputs)
        return [{**image, "labels": image["labels"] + 1} for image in found]


ARCHITECTURE = Architecture(build)
