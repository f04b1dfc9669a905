"""DINO's losses: focal classification, L1 and GIoU of boxes, each object matched to one query."""

from collections.abc import Sequence

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn import functional
from torchvision.ops import generalized_box_iou, generalized_box_iou_loss, sigmoid_focal_loss

from .boxes import corners
from .denoising import Noised, Truth

ALPHA, GAMMA = 0.25, 2.0
"""Of focal loss."""
WEIGHTS = {"classification": 1.0, "l1": 5.0, "giou": 2.0}
COSTS = {"classification": 2.0, "l1": 5.0, "giou": 2.0}
NEVER = 1e6
"""Cost of what cannot be matched."""

Pairs = Sequence[tuple[Tensor, Tensor]]
"""Of each image: indices of queries, and of the objects they answer for."""


@torch.no_grad()
def match(logits: Tensor, boxes: Tensor, real: Tensor, truth: Truth) -> tuple[Tensor, Tensor]:
    """Return the cheapest assignment of one image's queries to its objects, each object to one query.

    Args:
        logits: (queries, categories).
        boxes: (queries, 4) as fractions.
        real: (queries,) which can be matched.
        truth: the objects.
    """
    scores = logits.sigmoid()[:, truth.labels]
    positive = -ALPHA * (1 - scores) ** GAMMA * (scores + 1e-8).log()
    negative = -(1 - ALPHA) * scores**GAMMA * (1 - scores + 1e-8).log()
    cost = (
        COSTS["classification"] * (positive - negative)
        + COSTS["l1"] * torch.cdist(boxes, truth.boxes, p=1)
        - COSTS["giou"] * generalized_box_iou(corners(boxes), corners(truth.boxes))
    )
    # A diverged loss is for the training loop to report, not for scipy.
    cost = cost.nan_to_num(NEVER).masked_fill(~real[:, None], NEVER)
    queries, objects = linear_sum_assignment(cost.cpu().numpy())
    return torch.from_numpy(queries).to(boxes.device), torch.from_numpy(objects).to(boxes.device)


def layer(
    logits: Tensor, boxes: Tensor, real: Tensor, truth: Sequence[Truth], pairs: Pairs, count: float
) -> dict[str, Tensor]:
    """Return the weighted losses of one set of predictions (images, queries, ...), given what answers for what.

    Args:
        logits: (images, queries, categories).
        boxes: (images, queries, 4) as fractions.
        real: (images, queries) which count.
        truth: the objects of each image.
        pairs: queries and objects of each image; every other query should find nothing.
        count: objects, by which the sums are divided.
    """
    wanted = torch.zeros_like(logits)
    for image, (queries, objects) in enumerate(pairs):
        wanted[image, queries, truth[image].labels[objects]] = 1.0
    focal = sigmoid_focal_loss(logits, wanted, ALPHA, GAMMA) * real[..., None]
    found = torch.cat([boxes[image, queries] for image, (queries, _) in enumerate(pairs)])
    right = torch.cat([truth[image].boxes[objects] for image, (_, objects) in enumerate(pairs)])
    sums = {
        "classification": focal.sum(),
        "l1": functional.l1_loss(found, right, reduction="sum"),
        "giou": generalized_box_iou_loss(corners(found), corners(right), reduction="sum"),
    }
    return {name: WEIGHTS[name] * value / count for name, value in sums.items()}


def matched(logits: Tensor, boxes: Tensor, real: Tensor, truth: Sequence[Truth]) -> dict[str, Tensor]:
    """Return the losses of predictions that are first matched to the objects; arguments as of `layer`."""
    pairs = [match(*image) for image in zip(logits, boxes, real, truth, strict=True)]
    return layer(logits, boxes, real, truth, pairs, max(sum(len(image.labels) for image in truth), 1))


def denoised(logits: Tensor, boxes: Tensor, noise: Noised, truth: Sequence[Truth]) -> dict[str, Tensor]:
    """Return the losses of denoising queries: positives recover their object, negatives find nothing."""
    pairs = [noise.pairs(image) for image in range(len(truth))]
    count = sum(len(image.labels) for image in truth) * noise.groups
    return layer(logits, boxes, noise.real, truth, pairs, count)


def summed(prefix: str, layers: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Return the losses of several layers added up by name."""
    return {f"{prefix}_{name}": torch.stack([losses[name] for losses in layers]).sum() for name in layers[0]}
