"""Recipes of the feature network of FID@Cytopathology (Section IV-B)."""

from typing import Literal

from pydantic import Field

from ..bethesda import CATEGORIES
from ..data.sources import Source
from ..training.recipe import Recipe


class FeatureRecipe(Recipe):
    """Settings of `train features`: ResNet-50 fitted to cell classes.

    The paper names the network and that it was trained on cervical cytopathology, no more; the settings are ours.
    """

    kind: Literal["features"] = "features"
    architecture: Literal["resnet50"] = "resnet50"
    start: str | None = Field(
        default=None, description="safetensors file of torchvision's ResNet-50; none: from nothing"
    )
    categories: list[str] = Field(
        default=list(CATEGORIES), min_length=2, description="classes; other cells are left out"
    )
    data: list[Source] = [Source(root="abnormal", split="train")]
    size: int = Field(default=224, ge=32, description="side of the crops, pixels")
    context: float = Field(default=1.5, ge=1, le=8, description="side of the square around a cell over its longer side")
    turns: bool = Field(default=True, description="train on all eight flips and turns")
    shift: int = Field(default=0, ge=0, description="most pixels by which a crop is moved off its cell")
    jitter: float = Field(default=0.0, ge=0, le=0.5, description="random change of brightness and of each stain")
    blur: float = Field(default=0.0, ge=0, le=1, description="share of samples that are softened")
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)


PAPER = FeatureRecipe(
    shift=16, jitter=0.1, blur=0.2, batch_size=64, optimizer="sgd", learning_rate=0.05, weight_decay=1e-4,
    lr_schedule="cosine", warmup_steps=500, max_steps=20_000, max_grad_norm=5.0, checkpoint_every=1000,
    preview_every=1000,
)  # fmt: skip
BUNDLED_RECIPE = FeatureRecipe(
    data=[Source(root="cric", scale=0.5)], size=64, shift=6, jitter=0.1, blur=0.3, label_smoothing=0.05, batch_size=32,
    optimizer="adamw", learning_rate=5e-4, weight_decay=5e-2, lr_schedule="cosine", warmup_steps=30, max_steps=600,
    max_grad_norm=5.0, checkpoint_every=100, preview_every=200,
)  # fmt: skip
PRESETS = {"paper": PAPER, "bundled": BUNDLED_RECIPE}
