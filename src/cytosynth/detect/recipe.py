"""Recipes of the cell detectors (Section IV-C)."""

from typing import Literal

from pydantic import Field

from ..bethesda import NILM
from ..training.recipe import Recipe, Source

Backbone = Literal["resnet50", "small"]


class DetectorRecipe(Recipe):
    """Settings of a detector; the defaults are the paper's Faster R-CNN (Section IV-C)."""

    kind: Literal["detector"] = "detector"
    architecture: Literal["faster-rcnn"] = "faster-rcnn"
    backbone: Backbone = "resnet50"
    categories: list[str] = [NILM]
    data: list[Source] = [Source(root="fields", split="train")]
    window: int | None = Field(default=None, ge=64, description="side of random training windows; none: whole images")
    turns: bool = Field(default=False, description="train on all eight flips and turns")
    jitter: float = Field(default=0.0, ge=0, le=0.5, description="random change of brightness and of each stain")
    blur: float = Field(default=0.0, ge=0, le=1, description="share of samples that are softened")


PAPER = DetectorRecipe(
    batch_size=2, optimizer="sgd", learning_rate=2e-4, weight_decay=1e-4, max_steps=30_000, checkpoint_every=1000,
    preview_every=1000,
)  # fmt: skip
BUNDLED_RECIPE = DetectorRecipe(
    backbone="small", data=[Source(root="cric", scale=0.5)], window=320, turns=True, jitter=0.15, blur=0.5,
    batch_size=4, optimizer="adamw", learning_rate=1e-3, weight_decay=1e-2, warmup_steps=50, max_steps=800,
    lr_schedule="cosine", max_grad_norm=5.0, checkpoint_every=200, preview_every=250,
)  # fmt: skip
PRESETS = {"paper": PAPER, "bundled": BUNDLED_RECIPE}
