"""RetinaNet (Lin et al. 2017, the paper's [48]): torchvision's, on any backbone."""

from typing import Any

from torch import Tensor
from torchvision.models.detection import RetinaNet

from . import backbones
from .faster_rcnn import generator

LIMITS = {"score_thresh": 0.05, "nms_thresh": 0.5, "detections_per_img": 300}


def build(backbone: str, categories: int, pretrained: bool = False) -> RetinaNet:
    """Return an untrained RetinaNet for `categories` kinds of cell.

    On `resnet50` it is torchvision's R50-FPN on levels P3 to P7. Images are not resized.
    """
    base = backbones.load(backbone)
    anchors = generator(base.single_stage_anchors) if base.single_stage_anchors else None
    network = CellRetinaNet(base.single_stage(pretrained), categories, anchor_generator=anchors, **LIMITS)
    network.transform = base.normalise(pretrained)
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
