"""RetinaNet (Lin et al. 2017, the paper's [48]): torchvision's, on ResNet-50 or a small ResNet."""

from typing import Any

from torch import Tensor
from torchvision.models.detection import RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

from . import backbone as bodies
from .recipe import Backbone

LIMITS = {"score_thresh": 0.05, "nms_thresh": 0.5, "detections_per_img": 300}


def build(backbone: Backbone, categories: int, pretrained: bool = False) -> RetinaNet:
    """Return an untrained RetinaNet for `categories` kinds of cell.

    `resnet50` is torchvision's R50-FPN on levels P3 to P7, with frozen batch norm where it begins from `pretrained`
    weights; `small` is for nuclei of about 10 pixels on a CPU. Images are not resized.
    """
    if backbone == "resnet50":
        body = bodies.resnet50(pretrained, levels=(2, 3, 4), extra=LastLevelP6P7(256, 256))
        network = CellRetinaNet(body, categories, **LIMITS)
    else:
        anchors = AnchorGenerator(((28, 42), (60, 90)), ((0.75, 1.33),) * 2)
        network = CellRetinaNet(bodies.small(), categories, anchor_generator=anchors, **LIMITS)
    network.transform = bodies.AsGiven(pretrained)
    return network


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
