"""Recipes of the bundled foundation."""

from typing import Literal

from pydantic import Field, model_validator

from ...data.sources import Source
from ...training.recipe import Recipe
from ..names import CC_BY


class AutoencoderRecipe(Recipe):
    """Settings of the autoencoder."""

    kind: Literal["autoencoder"] = "autoencoder"
    data: list[Source]
    crops: list[int] = Field(default=[64, 128, 256], description="sides of the training crops, chosen at random")
    latent_channels: int = Field(default=4, ge=1, description="number of latent channels C")
    block_out_channels: list[int] = Field(
        default=[16, 32, 64, 128], description="channels of each level; each level but one halves the image"
    )
    layers_per_block: int = 1
    norm_num_groups: int = 8
    gradient_weight: float = 0.5
    chroma_weight: float = Field(default=1.0, ge=0, description="L1 between colour differences: without it stains grey")
    kl_weight: float = 1e-4
    equivariance: float = Field(default=0.25, ge=0, le=1, description="share of steps with a changed latent")


class DecoderRecipe(Recipe):
    """Settings of the sharpening of a decoder; its encoder stays as it is, so that cached latents stay valid."""

    kind: Literal["decoder"] = "decoder"
    encoder: str = Field(default="", description="hash of the frozen encoder; filled in automatically")
    data: list[Source]
    crops: list[int] = Field(default=[128], description="sides of the training crops, chosen at random")
    gradient_weight: float = 0.5
    chroma_weight: float = Field(default=1.0, ge=0)
    perceptual_weight: float = Field(
        default=0.3, ge=0, description="weight of the distance in features of EfficientNet-Lite1"
    )
    adversarial_start: int = Field(
        default=300, ge=0, description="step from which the discriminator trains the decoder"
    )
    adversarial_weight: float = Field(default=0.5, ge=0, description="maximum of the adaptive weight")
    discriminator_channels: int = Field(default=32, ge=1)
    discriminator_halvings: int = Field(
        default=2,
        ge=1,
        le=5,
        description="strided layers of the discriminator, which see patches of 10, 22, 46 ... pixels",
    )
    r1_weight: float = Field(
        default=0.1, ge=0, description="weight of the squared gradient of the scores of real images (R1)"
    )
    r1_share: float = Field(
        default=0.25, gt=0, le=1, description="share of the steps with R1, whose weight is increased accordingly"
    )
    regenerated: str | None = Field(
        default=None,
        description="safetensors file of latents that a generator made of training images, and of sampled ones "
        "(examples/regenerate.py): the decoder is trained on these too; none: on encoded ones alone",
    )
    regenerated_digest: str = Field(default="", description="hash of that file; filled in automatically")

    @model_validator(mode="after")
    def _fits(self) -> "DecoderRecipe":
        if min(self.crops) < (least := 2 ** (self.discriminator_halvings + 1)):
            raise ValueError(
                f"discriminator_halvings {self.discriminator_halvings}: needs crops of at least {least} pixels, not "
                f"{min(self.crops)}"
            )
        return self


class TextRecipe(Recipe):
    """Settings of the text encoder."""

    kind: Literal["text"] = "text"
    data: list[Source]
    crop: int = Field(default=96, ge=32, description="side of the crops around cells, pixels")
    restain: float = Field(default=0.1, ge=0, lt=1, description="random change of each stain's strength")
    text_channels: int = 96
    text_layers: int = 2


class DenoiserRecipe(Recipe):
    """Settings of the denoiser."""

    kind: Literal["denoiser"] = "denoiser"
    encoder: str = Field(default="", description="hash of the encoder that made the latents; filled in automatically")
    text: str = Field(default="", description="hash of the frozen text encoder; filled in automatically")
    start: str | None = Field(default=None, description="foundation whose denoiser is the initialisation; none: random")
    data: list[Source]
    augment_copies: int = Field(
        default=1, ge=1, le=64, description="number of varied copies of an image, with `augment`"
    )
    cell_share: float = Field(
        default=0.5, ge=0, le=1, description="share of crops around an abnormal cell, with categories equally frequent"
    )
    crops: list[int] = Field(default=[32, 48], description="sides of the latent crops, used in turn")
    block_out_channels: list[int] = [64, 112, 160, 160]
    attention_levels: list[int] = Field(default=[2, 3], description="levels with transformer blocks, 0 the finest")
    layers_per_block: int = 1
    heads: int = 2
    norm_num_groups: int = 8
    caption_dropout: float = Field(default=0.1, ge=0, le=1)
    min_snr_gamma: float | None = 5.0
    offset_noise: float = Field(default=0.0, ge=0)


AUTOENCODER = AutoencoderRecipe(
    data=CC_BY, crops=[128], batch_size=8, learning_rate=5e-4, warmup_steps=50,
    betas=(0.9, 0.99), weight_decay=0.0, max_steps=100_000, memory_format="channels_last", ema_decay=0.998,
    checkpoint_every=100, preview_every=500, log_every=20,
)  # fmt: skip

DECODER = DecoderRecipe(
    data=CC_BY, batch_size=8, learning_rate=2e-4, betas=(0.5, 0.9), weight_decay=0.0, max_steps=100_000,
    memory_format="channels_last", ema_decay=0.998, checkpoint_every=100, preview_every=500,
    log_every=20, validate_every=100,
)  # fmt: skip
TEXT = TextRecipe(
    data=CC_BY, batch_size=64, learning_rate=1e-3, warmup_steps=50, weight_decay=1e-2, max_steps=800,
    lr_schedule="cosine", checkpoint_every=200, preview_every=100_000, log_every=50,
)  # fmt: skip
DENOISER = DenoiserRecipe(
    data=CC_BY, crops=[32], batch_size=16, learning_rate=3e-4,
    warmup_steps=200, weight_decay=1e-3, max_steps=100_000, mixed_precision="bf16", memory_format="channels_last",
    ema_decay=0.9995, checkpoint_every=250, preview_every=500, log_every=50,
)  # fmt: skip
