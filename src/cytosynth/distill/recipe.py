"""Recipes of the distillation of both stages. Imports no torch."""

import math
from collections.abc import Mapping
from typing import Literal

from pydantic import Field, model_validator

from ..adapters.distilled import FewStepSampler
from ..bethesda import ABNORMAL, NILM
from ..cell.recipe import CropRecipe
from ..foundation.names import BUNDLED, CC_BY, PAPER_GUIDANCE
from ..normal.recipe import WindowRecipe
from ..training.recipe import Recipe

TIMESTEPS = 1000
"""Of the noise, which phases divide evenly."""


class Distillation(Recipe):
    """What the distillation of both stages shares; the defaults are LCM-LoRA's."""

    rank: int = Field(default=64, ge=1, description="of the LoRA, in every linear and convolutional layer of a block")
    guidance_scale: float = Field(default=PAPER_GUIDANCE, ge=1, description="of the teacher, folded into the weights")
    solver_steps: int = Field(
        default=50, ge=50, multiple_of=50,
        description="timesteps between which the teacher steps; the sampler's 50 are among them",
    )  # fmt: skip
    phases: int | None = Field(
        default=None, ge=1, le=50,
        description="divide the trajectory into N phases, sampled in N steps of DDIM (phased consistency); none: "
        "latent consistency",
    )  # fmt: skip
    steps: int = Field(default=4, ge=1, le=50, description="sampler steps at which it is scored and used")
    loss: Literal["huber", "l2"] = Field(default="huber", description="pseudo-Huber distance, or squared")
    huber: float = Field(default=0.001, gt=0, description="where the pseudo-Huber distance turns from square to linear")
    average: float | None = Field(
        default=0.95, gt=0, lt=1, description="decay of the average of the product B·A, the target; none: no average"
    )

    @model_validator(mode="after")
    def _of_the_product(self) -> "Distillation":
        if self.ema_decay is not None:
            raise ValueError("ema_decay would average A and B separately; `average` is of their product")
        if self.compile:
            raise ValueError("compile=true: not supported here, because teacher, student and target share one network")
        return self

    @model_validator(mode="after")
    def _on_the_grid(self) -> "Distillation":
        """Refuse phases whose edges the solver would cross, or at which the sampler would not stop."""
        phases, total = self.phases, TIMESTEPS
        if phases is None:
            return self
        if total % phases:
            fit = ", ".join(str(number) for number in range(1, 11) if total % number == 0)
            raise ValueError(f"phases={phases}: must divide the {total} timesteps of the noise, for example {fit}")
        if self.solver_steps % phases or total % self.solver_steps:
            raise ValueError(
                f"solver_steps={self.solver_steps}: with phases={phases} it must be a multiple of 50 and of {phases} "
                f"that divides {total}; use solver_steps={math.lcm(50, phases)}"
            )
        if self.steps != phases:
            raise ValueError(f"steps={self.steps}: {phases} phases are sampled in {phases} steps; use steps={phases}")
        return self

    @property
    def sampler(self) -> FewStepSampler:
        """The sampler that visits exactly what is distilled."""
        return "lcm" if self.phases is None else "ddim-trailing"


class NormalDistillRecipe(Distillation, WindowRecipe):
    """Settings of the distillation of stage 1."""

    kind: Literal["distill-normal"] = "distill-normal"
    normal: str = Field(default="none", description="the teacher's adapter: folder, file, run, 'bundled' or 'none'")


class CellDistillRecipe(Distillation, CropRecipe):
    """Settings of the distillation of stage 2.

    An abnormal cell of the data keeps its category; a normal one is to become any, as in an edit.
    """

    kind: Literal["distill-cell"] = "distill-cell"
    cell: str = Field(default=BUNDLED, description="the teacher: folder or run of a synthesizer, or 'bundled'")
    categories: list[str] = [NILM, *ABNORMAL]
    validate_with: str = Field(default="efficientnet-lite0", description="feature network in which a score is taken")
    validate_weights: str | None = Field(default=None, description="file or folder of that network's weights")


_PAPER_NORMAL = NormalDistillRecipe(
    window=512, batch_size=4, gradient_accumulation=4, learning_rate=1e-4, weight_decay=0.0, warmup_steps=100,
    max_steps=4000, mixed_precision="bf16", frozen_dtype="bf16", gradient_checkpointing=True, validate_every=500,
)  # fmt: skip
_PAPER_CELL = CellDistillRecipe(
    batch_size=16, learning_rate=1e-4, weight_decay=0.0, warmup_steps=100, max_steps=4000, inside_weight=3.0,
    validate_every=500,
)  # fmt: skip
NORMAL = {
    "paper": _PAPER_NORMAL,
    "paper-24gb": _PAPER_NORMAL,
    "bundled": NormalDistillRecipe(
        foundation=BUNDLED, normal=BUNDLED, data=CC_BY, window=256, turns=True, rank=8, batch_size=6,
        learning_rate=3e-4, weight_decay=0.0, warmup_steps=50, max_steps=6000, checkpoint_every=100,
        preview_every=200, validate_every=200, mixed_precision="bf16", memory_format="channels_last",
    ),
}  # fmt: skip
CELL = {
    "paper": _PAPER_CELL,
    "paper-24gb": _PAPER_CELL,
    "bundled": CellDistillRecipe(
        foundation=BUNDLED, data=CC_BY, box_scale=(1.3, 2.2), jitter=48, balance=0.7, variants=4, most_cells=500,
        rank=8, batch_size=12, learning_rate=3e-4, weight_decay=0.0, warmup_steps=50, max_steps=6000,
        inside_weight=3.0, checkpoint_every=100, preview_every=200, validate_every=200, validate_count=48,
        mixed_precision="bf16", memory_format="channels_last",
    ),
}  # fmt: skip
PRESETS: dict[str, Mapping[str, NormalDistillRecipe | CellDistillRecipe]] = {"normal": NORMAL, "cell": CELL}
