"""Typed recipes: every setting of a training run, with its bounds, and `--set key=value` on top."""

from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from ..variation.centre import Centre

MixedPrecision = Annotated[
    Literal["no", "fp16", "bf16"], BeforeValidator(lambda value: "no" if value is False else value)
]
"""Of accelerate's autocast; YAML reads a bare `no` as false."""


class Recipe(BaseModel):
    """Settings of every training run; each trainer adds its own fields."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    seed: int = Field(default=0, ge=0, lt=2**63)
    max_steps: int = Field(default=1000, ge=1, description="optimiser steps")
    batch_size: int = Field(default=1, ge=1, description="samples per process and micro-step")
    gradient_accumulation: int = Field(default=1, ge=1)
    learning_rate: float = Field(default=1e-4, gt=0)
    lr_schedule: Literal["constant", "cosine"] = "constant"
    warmup_steps: int = Field(default=0, ge=0)
    optimizer: Literal["adam", "adamw", "sgd"] = "adamw"
    betas: tuple[float, float] = Field(default=(0.9, 0.999), description="coefficients of Adam and AdamW")
    weight_decay: float = Field(default=1e-2, ge=0)
    max_grad_norm: float = Field(default=1.0, gt=0)
    mixed_precision: MixedPrecision = "no"
    memory_format: Literal["contiguous", "channels_last"] = Field(
        default="contiguous",
        description="memory layout of weights and images; which is faster depends on network and machine",
    )
    compile: bool = Field(
        default=False,
        description="torch.compile the networks; resume is then exact on one machine and PyTorch version only",
    )
    ema_decay: float | None = Field(default=None, gt=0, lt=1)
    log_every: int = Field(default=10, ge=1)
    checkpoint_every: int = Field(default=500, ge=1)
    keep_checkpoints: int = Field(default=2, ge=1)
    preview_every: int = Field(default=500, ge=1)
    validate_every: int = Field(
        default=0, ge=0, description="steps between scores on held-out data; 0: no best is kept"
    )
    tensorboard: bool = Field(
        default=False, description="also write losses and scores for TensorBoard, to RUN/tensorboard"
    )
    patience: int | None = Field(default=None, ge=1, description="stop after N scores in a row without an improvement")
    augment: Centre | None = Field(
        default=None, description="variations of stain, optics and artefacts applied to training images"
    )
