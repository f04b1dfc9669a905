"""Mixed query selection (section 3.4 of DINO): positions come from the image, contents are learnt."""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from transformers.models.deformable_detr.modeling_deformable_detr import DeformableDetrMLPPredictionHead

from . import boxes
from .encoder import Grid
from .sizes import Sizes

FIRST_SIDE = 0.05
"""Side of the boxes proposed at the finest level, as a fraction of the image; every further level doubles it."""
MARGIN = 0.01
"""Tokens whose centre is nearer to the image's edge propose nothing."""


class Queries(NamedTuple):
    """The queries of a batch.

    Attributes:
        content: (images, queries, width).
        references: (images, queries, 4) boxes they begin from, without gradient.
        logits: (images, queries, categories) of the tokens that proposed those boxes; learn by the encoder's loss.
        boxes: (images, queries, 4) the same boxes with gradient.
        real: (images, queries) false where an image has fewer tokens than queries.
    """

    content: Tensor
    references: Tensor
    logits: Tensor
    boxes: Tensor
    real: Tensor


def class_head(width: int, categories: int) -> nn.Linear:
    """Return a classifier that gives every category 0.01 at the start, as focal loss needs it."""
    head = nn.Linear(width, categories)
    nn.init.constant_(head.bias, -math.log(99))
    return head


def box_head(width: int) -> nn.Module:
    """Return the MLP of three layers that says how to change a box; at the start, not at all."""
    head: nn.Module = DeformableDetrMLPPredictionHead(width, width, 4, 3)
    last = head.get_submodule("layers.2")
    for parameter in last.parameters():
        nn.init.zeros_(parameter)
    return head


class Selection(nn.Module):
    """Every token proposes a box; the most promising ones place the queries, whose content is learnt."""

    def __init__(self, sizes: Sizes, categories: int) -> None:
        """Take the number of queries from `sizes`."""
        super().__init__()
        self.enc_output = nn.Linear(sizes.width, sizes.width)
        self.enc_output_norm = nn.LayerNorm(sizes.width)
        self.class_embed = class_head(sizes.width, categories)
        self.bbox_embed = box_head(sizes.width)
        self.content = nn.Embedding(sizes.queries, sizes.width)

    def forward(self, tokens: Tensor, grid: Grid) -> Queries:
        """Return the queries of a batch from its (images, tokens, width) `tokens`."""
        proposals, valid = propose(grid)
        features = self.enc_output_norm(self.enc_output(tokens.masked_fill(~valid[..., None], 0.0)))
        logits = self.class_embed(features).float()
        best = logits.amax(dim=-1).masked_fill(~valid, -math.inf)
        chosen = best.topk(min(len(self.content.weight), tokens.shape[1]), dim=1).indices
        changed = self.bbox_embed(features).float() + boxes.logits(proposals)
        found = _gathered(changed, chosen).sigmoid()
        content = self.content.weight[: chosen.shape[1]].expand(len(tokens), -1, -1)
        real = valid.gather(1, chosen)
        return Queries(content, found.detach(), _gathered(logits, chosen), found, real)


def propose(grid: Grid) -> tuple[Tensor, Tensor]:
    """Return the box (images, tokens, 4) of each token, and whether it may propose one."""
    sides = [
        grid.centres.new_full((height * width,), FIRST_SIDE * 2**level)
        for level, (height, width) in enumerate(grid.shapes)
    ]
    side = torch.cat(sides).expand(len(grid.centres), -1)[..., None]
    proposals = torch.cat([grid.centres, side, side], dim=-1)
    return proposals, grid.real & ((proposals > MARGIN) & (proposals < 1 - MARGIN)).all(dim=-1)


def _gathered(values: Tensor, chosen: Tensor) -> Tensor:
    return values.gather(1, chosen[..., None].expand(-1, -1, values.shape[-1]))
