"""How large a DINO is: the authors' R50 4-scale configuration, and one for the bundled scale on a CPU."""

from dataclasses import dataclass
from typing import Final

from transformers import DeformableDetrConfig

FIRST_STRIDE: Final = 8
"""Pixels between the features of the finest level; every further level doubles it."""


@dataclass(frozen=True)
class Sizes:
    """Numbers of everything.

    Attributes:
        width: channels of every token and query (d_model).
        heads: of all attention.
        feedforward: channels within a layer's MLP.
        levels: feature maps, at strides 8, 16, ...
        encoder_layers: of deformable self-attention over all tokens.
        decoder_layers: of self-attention among queries and deformable cross-attention to tokens.
        queries: that look for objects, the most an image can have.
        denoising: denoising queries of each kind (positive, negative), about as many an image.
        encoder_points: places of each level that a head of the encoder looks at.
    """

    width: int
    heads: int
    feedforward: int
    levels: int
    encoder_layers: int
    decoder_layers: int
    queries: int
    denoising: int
    encoder_points: int

    @property
    def layers(self) -> DeformableDetrConfig:
        """The same for transformers' layers; no dropout."""
        config = DeformableDetrConfig(
            d_model=self.width, encoder_attention_heads=self.heads, decoder_attention_heads=self.heads,
            encoder_ffn_dim=self.feedforward, decoder_ffn_dim=self.feedforward, num_feature_levels=self.levels,
            encoder_n_points=self.encoder_points, decoder_n_points=4, dropout=0.0,
        )  # fmt: skip
        config._attn_implementation = "sdpa"
        return config


SIZES: Final[dict[str, Sizes]] = {
    "large": Sizes(
        width=256, heads=8, feedforward=2048, levels=4, encoder_layers=6, decoder_layers=6, queries=900, denoising=100,
        encoder_points=4,
    ),
    "small": Sizes(
        width=128, heads=8, feedforward=256, levels=3, encoder_layers=2, decoder_layers=3, queries=150, denoising=50,
        encoder_points=2,
    ),
}  # fmt: skip
