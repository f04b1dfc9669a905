"""Faster R-CNN with a feature pyramid (the paper's [37]): torchvision's, on any backbone."""

from typing import Any

from torch import nn
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.ops import MultiScaleRoIAlign

from . import backbones
from .architecture import Architecture
from .backbones.backbone import Anchors

SIDE = 7
"""Of a pooled proposal."""


def build(backbone: str, categories: int, pretrained: bool = False) -> FasterRCNN:
    """Return an untrained Faster R-CNN for `categories` kinds of cell (background is added).

    On `resnet50` it is torchvision's R50-FPN. Images are not resized.
    """
    base = backbones.load(backbone)
    pyramid = base.pyramid(pretrained, nn.BatchNorm2d)
    network = FasterRCNN(
        pyramid,
        rpn_anchor_generator=generator(base.anchors),
        box_roi_pool=MultiScaleRoIAlign(list(base.levels), SIDE, 2),
        box_head=TwoMLPHead(pyramid.out_channels * SIDE**2, base.hidden),
        box_predictor=FastRCNNPredictor(base.hidden, categories + 1),
        box_batch_size_per_image=base.proposals,
        **limits(),
    )
    network.transform = base.normalise(pretrained)
    return network


def generator(anchors: Anchors) -> AnchorGenerator:
    """Return torchvision's generator of `anchors`."""
    return AnchorGenerator(anchors.sizes, (anchors.ratios,) * len(anchors.sizes))


def limits() -> dict[str, Any]:
    """Return how many proposals and detections an image may have, and from which score on."""
    return {
        "box_detections_per_img": 300,
        "rpn_pre_nms_top_n_train": 1000,
        "rpn_post_nms_top_n_train": 500,
        "rpn_pre_nms_top_n_test": 1000,
        "rpn_post_nms_top_n_test": 500,
        "box_score_thresh": 0.05,
        "box_nms_thresh": 0.5,
    }


ARCHITECTURE = Architecture(build)
