"""Boxes in DINO's form: (centre x, centre y, width, height) as fractions of their image."""

import math

import torch
from torch import Tensor
from torchvision.ops import box_convert

SMALLEST = 1e-3
"""Fractions nearer to 0 or 1 have the logit of this one, as in the authors' code."""


def fractions(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Return (n, 4) pixel `boxes` (xyxy) of an image of `size` (height, width) as fractions (cxcywh)."""
    height, width = size
    centred: Tensor = box_convert(boxes, "xyxy", "cxcywh")
    return centred / boxes.new_tensor([width, height, width, height])


def pixels(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Return (n, 4) fractions (cxcywh) as pixel boxes (xyxy) that end at the edges of an image of `size`."""
    height, width = size
    edges = boxes.new_tensor([width, height, width, height])
    return torch.minimum((corners(boxes) * edges).clamp(min=0), edges)


def corners(boxes: Tensor) -> Tensor:
    """Return (..., 4) cxcywh boxes as xyxy."""
    return torch.cat([boxes[..., :2] - boxes[..., 2:] / 2, boxes[..., :2] + boxes[..., 2:] / 2], dim=-1)


def logits(values: Tensor) -> Tensor:
    """Return the inverse of the sigmoid, finite for every value."""
    return torch.log(values.clamp(SMALLEST, 1) / (1 - values).clamp(SMALLEST, 1))


def sine(values: Tensor, features: int, temperature: float) -> Tensor:
    """Return `features` sines and cosines in turn of each of (..., n) `values` in 0..1: (..., n features)."""
    powers = torch.arange(features, device=values.device).div(2, rounding_mode="floor") * 2 / features
    angles = values[..., None] * (2 * math.pi / temperature**powers)
    waves = torch.stack([angles[..., 0::2].sin(), angles[..., 1::2].cos()], dim=-1)
    return waves.flatten(-3)
