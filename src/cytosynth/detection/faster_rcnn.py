"""Faster R-CNN with a feature pyramid (the paper's [37]): torchvision's, on ResNet-50 or a small ResNet."""

from typing import Any

from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.ops import MultiScaleRoIAlign

from . import backbone as bodies
from .recipe import Backbone


def build(backbone: Backbone, categories: int, pretrained: bool = False) -> FasterRCNN:
    """Return an untrained Faster R-CNN for `categories` kinds of cell (background is added).

    `resnet50` is torchvision's R50-FPN, with frozen batch norm where it begins from `pretrained` weights; `small`
    is for nuclei of about 10 pixels on a CPU. Images are not resized.
    """
    classes = categories + 1
    network = _resnet50(classes, pretrained) if backbone == "resnet50" else _small(classes)
    network.transform = bodies.AsGiven(pretrained)
    return network


def _resnet50(classes: int, pretrained: bool) -> FasterRCNN:
    body = bodies.resnet50(pretrained)
    return FasterRCNN(body, num_classes=classes, rpn_anchor_generator=anchors("resnet50"), **limits())


def _small(classes: int) -> FasterRCNN:
    channels = bodies.SMALL_CHANNELS
    return FasterRCNN(
        bodies.small(),
        rpn_anchor_generator=anchors("small"),
        box_roi_pool=MultiScaleRoIAlign(["0", "pool"], 7, 2),
        box_head=TwoMLPHead(channels * 49, 128),
        box_predictor=FastRCNNPredictor(128, classes),
        box_batch_size_per_image=64,
        **limits(),
    )


def anchors(backbone: Backbone) -> AnchorGenerator:
    """Return the boxes that proposals start from: one size on each level of ResNet-50, two on those of `small`."""
    if backbone == "small":
        return AnchorGenerator(((28, 42), (60, 90)), ((0.75, 1.33),) * 2)
    return AnchorGenerator(tuple((size,) for size in (16, 32, 64, 128, 256)), ((0.5, 1.0, 2.0),) * 5)


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
