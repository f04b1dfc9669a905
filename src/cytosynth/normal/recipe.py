"""Recipes of the Normal Image Generator (Section IV-A), one for each tuning method."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from ..bethesda import NORMAL_PROMPT
from ..data.sources import Source
from ..foundation.names import BUNDLED, CC_BY, MOST_GUIDANCE, PAPER_GUIDANCE, STABLE_DIFFUSION, PredictionType
from ..registry import ADAPTERS
from ..training.recipe import Recipe

WORD = "<normal-field>"


class WindowRecipe(Recipe):
    """Settings of every training on normal windows: their data, and how the result is scored."""

    foundation: str = STABLE_DIFFUSION
    prediction_type: PredictionType | None = Field(
        default=None, description="what the foundation's U-Net predicts; none: as its files state"
    )
    data: list[Source] = [Source(root="normal", split="train")]
    augment_copies: int = Field(
        default=1, ge=1, le=64, description="number of varied copies of an image, with `augment`"
    )
    window: int = Field(default=1024, multiple_of=64, description="side of the training windows, pixels")
    turns: bool = Field(default=False, description="train on all eight flips and rotations")
    frozen_dtype: Literal["fp32", "bf16", "fp16"] = Field(
        default="fp32", description="precision of frozen weights; other than fp32 needs the same mixed_precision"
    )
    gradient_checkpointing: bool = False
    validate_count: int = Field(default=32, ge=8, description="number of generated and of held-out windows for a score")
    validate_with: str = Field(default="efficientnet-lite0", description="feature network of the score")
    validate_weights: str | None = Field(default=None, description="its weights: file or folder")

    @model_validator(mode="after")
    def _one_precision(self) -> "WindowRecipe":
        if self.frozen_dtype not in ("fp32", self.mixed_precision):
            raise ValueError(f"frozen_dtype={self.frozen_dtype} needs mixed_precision={self.frozen_dtype}")
        return self


class NormalRecipe(WindowRecipe):
    """Settings of the Normal Image Generator; the defaults are the paper's."""

    kind: Literal["normal"] = "normal"
    adapter: Annotated[str, AfterValidator(ADAPTERS.known)] = "lora"
    rank: int = Field(default=8, ge=1, description="of LoRA")
    token: str = Field(default=WORD, min_length=1, description="the new word, for adapters that learn one")
    initializer: str = Field(default="cell", description="the word that initialises it; one token")
    vectors: int = Field(default=1, ge=1, le=64, description="embeddings of the learnt word (textual-inversion)")
    prompt: str = NORMAL_PROMPT
    caption_dropout: float = Field(default=0.0, ge=0, le=1, description="share of samples with the empty prompt")
    guidance_scale: float = Field(
        default=PAPER_GUIDANCE,
        ge=1,
        le=MOST_GUIDANCE,
        description="of previews and scores, and of fields generated with the adapter",
    )
    min_snr_gamma: float | None = None
    offset_noise: float = Field(default=0.0, ge=0)


PRESETS = {
    "paper": NormalRecipe(
        max_steps=5000, batch_size=1, learning_rate=1e-4, optimizer="adam", weight_decay=0.0, validate_every=500
    ),
    "paper-24gb": NormalRecipe(
        max_steps=5000, batch_size=1, learning_rate=1e-4, optimizer="adam", weight_decay=0.0, validate_every=500,
        mixed_precision="bf16",
    ),
    "bundled": NormalRecipe(
        foundation=BUNDLED, data=CC_BY, window=384, turns=True, batch_size=6, optimizer="adam", weight_decay=0.0,
        max_steps=2000, warmup_steps=50, ema_decay=0.999, min_snr_gamma=5.0, guidance_scale=3.0, checkpoint_every=200,
        preview_every=200, validate_every=200,
    ),
}  # fmt: skip
"""What the adapters share; what each sets differently is in `registry.ADAPTERS`."""


def preset(name: str, adapter: str = "lora") -> NormalRecipe:
    """Return the recipe of `adapter` in the preset `name`; raise UsageError for an adapter that is not registered."""
    changes = {"adapter": ADAPTERS.check(adapter), **ADAPTERS.settings(adapter, name)}
    return PRESETS[name].model_copy(update=changes)
