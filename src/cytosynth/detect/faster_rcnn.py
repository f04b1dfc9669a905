"""Faster R-CNN with a feature pyramid (the paper's [37]): torchvision's, on ResNet-50 or a small ResNet."""

from typing import Any

from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import BackboneWithFPN, resnet_fpn_backbone
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision.models.resnet import BasicBlock, ResNet
from torchvision.ops import MultiScaleRoIAlign

from .recipe import Backbone


def build(backbone: Backbone, categories: int) -> FasterRCNN:
    """Return an untrained Faster R-CNN for `categories` kinds of cell (background is added).

    `resnet50` is torchvision's R50-FPN; `small` is a ResNet of two stages with one block each, features at
    strides 8 and 16, for nuclei of about 10 pixels on a CPU. Images are not resized.
    """
    network = _resnet50(categories + 1) if backbone == "resnet50" else _small(categories + 1)
    network.transform = AsGiven(min_size=0, max_size=0, image_mean=[0.8] * 3, image_std=[0.2] * 3)
    return network


class AsGiven(GeneralizedRCNNTransform):  # type: ignore[misc]
    """Normalises and batches images without resizing them; torchvision's `_skip_resize` does so in training alone."""

    def resize(self, image: Tensor, target: dict[str, Tensor] | None = None) -> tuple[Tensor, dict[str, Tensor] | None]:
        """Return both unchanged."""
        return image, target


def _resnet50(classes: int) -> FasterRCNN:
    body = resnet_fpn_backbone(backbone_name="resnet50", weights=None, norm_layer=nn.BatchNorm2d, trainable_layers=5)
    anchors = AnchorGenerator(tuple((size,) for size in (16, 32, 64, 128, 256)), ((0.5, 1.0, 2.0),) * 5)
    return FasterRCNN(body, num_classes=classes, rpn_anchor_generator=anchors, **_common())


def _small(classes: int) -> FasterRCNN:
    channels = 64
    network = ResNet(BasicBlock, [1, 1, 1, 1])
    del network.layer3, network.layer4, network.fc
    body = BackboneWithFPN(network, {"layer2": "0"}, [128], channels)
    return FasterRCNN(
        body,
        rpn_anchor_generator=AnchorGenerator(((28, 42), (60, 90)), ((0.75, 1.33),) * 2),
        box_roi_pool=MultiScaleRoIAlign(["0", "pool"], 7, 2),
        box_head=TwoMLPHead(channels * 49, 128),
        box_predictor=FastRCNNPredictor(128, classes),
        box_batch_size_per_image=64,
        **_common(),
    )


def _common() -> dict[str, Any]:
    return {
        "box_detections_per_img": 300,
        "rpn_pre_nms_top_n_train": 1000,
        "rpn_post_nms_top_n_train": 500,
        "rpn_pre_nms_top_n_test": 1000,
        "rpn_post_nms_top_n_test": 500,
        "box_score_thresh": 0.05,
        "box_nms_thresh": 0.5,
    }
