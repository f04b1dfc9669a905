"""Contrastive denoising (section 3.3 of DINO): recover boxes from a little noise, reject them under more."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from . import boxes

NEAR, FAR = 1.0, 2.0
"""Lambda 1 and 2: a corner of a positive moves by less than the first, of a negative by between both, times half a
side of the box."""
WRONG_LABELS = 0.5
"""Half of this share of the queries get a random label."""


class Truth(NamedTuple):
    """What is to be found on one image: labels (n,) from 0 and boxes (n, 4) as fractions."""

    labels: Tensor
    boxes: Tensor


class Noised(NamedTuple):
    """Denoising queries: groups one after the other, each `size` positives and then as many negatives.

    Attributes:
        labels: (images, queries) from 0, some of them wrong.
        boxes: (images, queries, 4) with noise; the corners of a negative may have crossed, which leaves it no side.
        real: (images, queries) false where an image has fewer objects than `size`.
        groups: how many.
        size: the most objects an image of the batch has.
    """

    labels: Tensor
    boxes: Tensor
    real: Tensor
    groups: int
    size: int

    def pairs(self, image: int) -> tuple[Tensor, Tensor]:
        """Return which queries of an image are its positives, and the object of each; all others are no object."""
        objects = self.real[image, : self.size].nonzero()[:, 0]
        starts = torch.arange(self.groups, device=objects.device)[:, None] * (2 * self.size)
        return (starts + objects).flatten(), objects.repeat(self.groups)


def noised(truth: Sequence[Truth], categories: int, number: int) -> Noised | None:
    """Return denoising queries for a batch, about `number` positives an image; None if there is no object.

    The noise is drawn from torch's global generator.
    """
    size = max(len(image.labels) for image in truth)
    if size == 0:
        return None
    groups = max(number // size, 1)
    labels = torch.stack([_filled(image.labels, size) for image in truth]).repeat(1, 2 * groups)
    known = torch.stack([_filled(image.boxes, size) for image in truth]).repeat(1, 2 * groups, 1)
    counts = torch.tensor([len(image.labels) for image in truth], device=known.device)
    place = torch.arange(labels.shape[1], device=known.device)
    real = (place % size)[None] < counts[:, None]
    wrong = torch.rand(labels.shape, device=known.device) < WRONG_LABELS / 2
    labels = torch.where(wrong, torch.randint_like(labels, categories), labels)
    negative = (place // size % 2)[None, :, None]
    share = negative * NEAR + torch.rand_like(known) * torch.where(negative == 1, FAR - NEAR, NEAR)
    sign = torch.randint_like(known, 2) * 2 - 1
    moved = boxes.corners(known) + sign * share * known[..., 2:].repeat(1, 1, 2) / 2
    return Noised(labels, _centred(moved.clamp(0, 1)), real, groups, size)


def seen(noise: Noised | None, queries: Tensor) -> Tensor:
    """Return (images, n, n): which query (row) may attend to which (column), denoising queries first.

    Those of a group see each other and the matching ones; the matching ones see only themselves, as a denoising query
    tells where an object is. What is not real is seen by none.

    Args:
        noise: the denoising queries, if any.
        queries: (images, queries) which matching queries are real.
    """
    real, group = queries, torch.full(queries.shape[1:], -1, device=queries.device)
    if noise is not None:
        real = torch.cat([noise.real, real], dim=1)
        place = torch.arange(noise.real.shape[1], device=real.device)
        group = torch.cat([place // (2 * noise.size), group])
    allowed = (group[:, None] == group[None]) | (group == -1)[None]
    itself = torch.eye(len(group), dtype=torch.bool, device=real.device)  # else a softmax over nothing
    return (allowed[None] & real[:, None]) | itself


def _filled(values: Tensor, size: int) -> Tensor:
    return torch.cat([values, values.new_zeros(size - len(values), *values.shape[1:])])


def _centred(moved: Tensor) -> Tensor:
    return torch.cat([(moved[..., :2] + moved[..., 2:]) / 2, moved[..., 2:] - moved[..., :2]], dim=-1)
