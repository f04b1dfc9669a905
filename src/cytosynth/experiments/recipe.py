"""Recipes of the experiments. Imports no torch."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from ..data.sources import Source
from ..foundation.names import BUNDLED, STABLE_DIFFUSION

UNTUNED = "none"
"""The name for the foundation without an adapter."""
RIVALS = ["lora", "textual-inversion", "svdiff", "custom-diffusion"]


class Table1Recipe(BaseModel):
    """Settings of Table I: the adapters, their training and their evaluation."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    preset: Literal["paper", "bundled"] = Field(description="preset of each adapter's recipe")
    foundation: str
    adapters: list[str] = Field(
        default=[UNTUNED, *RIVALS], min_length=1, description="adapters to train; 'none' is the foundation without one"
    )
    seeds: list[int] = Field(
        default=[0, 1, 2], min_length=1, description="random seeds of training, generation and splits"
    )
    steps: int = Field(default=5000, ge=1, description="optimiser steps, the same for every adapter")
    training: dict[str, Any] = Field(default={}, description="settings of `train normal`, the same for every adapter")
    count: int = Field(ge=1, description="fields generated for each adapter and seed")
    size: int = Field(default=1024, ge=64, multiple_of=64, description="side of a field, pixels")
    window: int | None = Field(default=None, ge=32, description="side of the compared windows; none: whole images")
    real: Source = Field(description="held-out real images, of which windows without abnormal cells are used")
    extractors: list[str] = Field(min_length=1, description="feature networks by name")
    weights: dict[str, str] = Field(default={}, description="file or folder of a feature network's weights, by name")


PAPER = Table1Recipe(
    preset="paper", foundation=STABLE_DIFFUSION, steps=5000, count=1000, real=Source(root="normal", split="test"),
    extractors=["inception-v3", "cytology-resnet50"],
)  # fmt: skip
BUNDLED_RECIPE = Table1Recipe(
    preset="bundled", foundation=BUNDLED, steps=200, count=16, size=512, window=160,
    training={"window": 256, "batch_size": 4, "warmup_steps": 30, "preview_every": 100, "checkpoint_every": 100,
              "validate_every": 100, "validate_count": 16},
    real=Source(root="cric", scale=0.5, split="test"), extractors=["efficientnet-lite0", "cytology-resnet50"],
)  # fmt: skip
PRESETS = {"paper": PAPER, "bundled": BUNDLED_RECIPE}


class SanityRecipe(BaseModel):
    """Settings of the sanity set: images of ellipses on which detectors can be compared in minutes."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    detectors: list[str] = Field(default=["faster-rcnn", "retinanet", "dino"], min_length=1)
    seeds: list[int] = Field(
        default=[0], min_length=1, description="random seeds of training; the images are always the same"
    )
    steps: int = Field(default=300, ge=1, description="optimiser steps, the same for every detector")
    training: dict[str, Any] = Field(
        default={"batch_size": 4, "warmup_steps": 30},
        description="settings of `train detector`, the same for all",
    )
    train: int = Field(default=400, ge=1, description="images to train on")
    val: int = Field(default=20, ge=1, description="validation images")
    test: int = Field(default=100, ge=1, description="unseen images")
    side: int = Field(default=128, ge=64, description="side of an image, pixels")
