"""Losses on pixels: L1, on differences of neighbours at three scales, and on differences of colour."""

from typing import Protocol

import torch.nn.functional as F
from torch import Tensor

from ...training.task import Losses


class Weights(Protocol):
    """Weights of the losses other than L1."""

    gradient_weight: float
    chroma_weight: float


def pixel_losses(output: Tensor, target: Tensor) -> Losses:
    """Return the L1, gradient and colour losses of (n, 3, height, width) images in -1..1."""
    return {
        "l1": (output - target).abs().mean(),
        "gradient": gradient_loss(output, target),
        "chroma": (output.diff(dim=1) - target.diff(dim=1)).abs().mean(),
    }


def weighted(losses: Losses, weights: Weights) -> Tensor:
    """Return the sum of `pixel_losses` by the `weights` of a recipe."""
    return losses["l1"] + weights.gradient_weight * losses["gradient"] + weights.chroma_weight * losses["chroma"]


def gradient_loss(output: Tensor, target: Tensor, scales: int = 3) -> Tensor:
    """Return the mean L1 distance between horizontal and vertical differences at `scales` halvings."""
    total = output.new_zeros(())
    for scale in range(scales):
        if scale:
            output, target = F.avg_pool2d(output, 2), F.avg_pool2d(target, 2)
        for axis in (2, 3):
            total = total + (output.diff(dim=axis) - target.diff(dim=axis)).abs().mean()
    return total / scales
