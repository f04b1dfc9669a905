"""The decoder, which looks forward twice (section 3.5 of DINO): a layer's box also teaches the layer before."""

import torch
from torch import Tensor, nn
from transformers.models.deformable_detr.modeling_deformable_detr import (
    DeformableDetrDecoderLayer,
    DeformableDetrMLPPredictionHead,
)

from . import boxes
from .encoder import Grid
from .queries import box_head, class_head
from .sizes import Sizes

TEMPERATURE = 10_000.0
"""Of the position embedding of queries, in the authors' code."""


class Decoder(nn.Module):
    """Refines boxes layer by layer; all layers share the heads that classify and move them."""

    def __init__(self, sizes: Sizes, categories: int) -> None:
        """Start with boxes that stay where they are."""
        super().__init__()
        self.sizes = sizes
        self.layers = nn.ModuleList(DeformableDetrDecoderLayer(sizes.layers) for _ in range(sizes.decoder_layers))
        self.norm = nn.LayerNorm(sizes.width)
        self.ref_point_head = DeformableDetrMLPPredictionHead(2 * sizes.width, sizes.width, sizes.width, 2)
        self.class_embed = class_head(sizes.width, categories)
        self.bbox_embed = box_head(sizes.width)

    def forward(
        self, content: Tensor, references: Tensor, seen: Tensor, tokens: Tensor, grid: Grid
    ) -> tuple[Tensor, Tensor]:
        """Return logits (layers, images, queries, categories) and boxes (layers, images, queries, 4).

        Args:
            content: (images, queries, width).
            references: (images, queries, 4), where the queries begin.
            seen: (images, queries, queries) whether a query (row) may attend to another (column).
            tokens: (images, tokens, width) of the encoder.
            grid: where these lie.

        With d_i what layer i says of the box b_{i-1} it begins from: b'_i = b_{i-1} + d_i (in logits), b_i = b'_i
        without gradient, and the box that layer i is trained with is b'_{i-1} + d_i.
        """
        found, classes = [], []
        ratios = torch.cat([grid.ratios, grid.ratios], dim=-1)[:, None]
        refined = references
        for layer in self.layers:
            # Unlike the authors', the embedded box is not scaled by the padding: it would tell of the batch.
            waves = boxes.sine(references[..., [1, 0, 2, 3]], self.sizes.width // 2, TEMPERATURE)
            content = layer(
                content, self.ref_point_head(waves), references[:, :, None] * ratios,
                encoder_hidden_states=tokens, encoder_attention_mask=grid.real, attention_mask=seen[:, None],
                **grid.attention,
            )  # fmt: skip
            normed = self.norm(content)
            classes.append(self.class_embed(normed).float())
            found.append((self.bbox_embed(normed).float() + boxes.logits(refined)).sigmoid())
            # The next layer begins from the change before the norm, as in the authors' code.
            refined = (self.bbox_embed(content).float() + boxes.logits(references)).sigmoid()
            references = refined.detach()
        return torch.stack(classes), torch.stack(found)
