"""Recipes of the Normal Image Generator (Section IV-A)."""

from typing import Literal

from pydantic import Field

from ..bethesda import NORMAL_PROMPT
from ..foundation.recipe import BUNDLED, CC_BY, STABLE_DIFFUSION
from ..training.recipe import Recipe, Source


class NormalRecipe(Recipe):
    """Settings of the Normal Image Generator; the defaults are the paper's."""

    kind: Literal["normal"] = "normal"
    foundation: str = STABLE_DIFFUSION
    adapter: Literal["lora"] = "lora"
    rank: int = Field(default=8, ge=1)
    data: list[Source] = [Source(root="normal", split="train")]
    window: int = Field(default=1024, multiple_of=64, description="side of the training windows, pixels")
    turns: bool = Field(default=False, description="train on all eight flips and turns")
    prompt: str = NORMAL_PROMPT
    caption_dropout: float = Field(default=0.0, ge=0, le=1, description="share of samples with the empty prompt")
    min_snr_gamma: float | None = None
    offset_noise: float = Field(default=0.0, ge=0)
    gradient_checkpointing: bool = False


PAPER = NormalRecipe(max_steps=5000, batch_size=1, learning_rate=1e-4, optimizer="adam", weight_decay=0.0)
BUNDLED_RECIPE = NormalRecipe(
    foundation=BUNDLED, data=CC_BY, window=384, turns=True, batch_size=6, learning_rate=1e-4,
    optimizer="adam", weight_decay=0.0, max_steps=2000, warmup_steps=50, ema_decay=0.999, min_snr_gamma=5.0,
    checkpoint_every=200, preview_every=200,
)  # fmt: skip
PRESETS = {"paper": PAPER, "bundled": BUNDLED_RECIPE}
