"""Recipes of the Abnormal Cell Synthesizer (Section IV-A)."""

from typing import Literal

from pydantic import Field

from ..bethesda import ABNORMAL
from ..data.sources import Source
from ..foundation.names import BUNDLED, CC_BY, STABLE_DIFFUSION, PredictionType
from ..training.recipe import Recipe


class CropRecipe(Recipe):
    """Settings of every training on patches around cells: their data, and how many are scored."""

    foundation: str = STABLE_DIFFUSION
    prediction_type: PredictionType | None = Field(
        default=None, description="what the foundation's U-Net predicts; none: as its files state"
    )
    data: list[Source] = [Source(root="abnormal", split="train")]
    categories: list[str] = list(ABNORMAL)
    box_scale: tuple[float, float] = Field(
        default=(1.0, 1.0), description="range of the factor by which annotated boxes are enlarged"
    )
    jitter: int = Field(
        default=0, ge=0, le=96, description="maximum offset of the cell from the patch's centre, pixels"
    )
    balance: float = Field(
        default=0.0, ge=0, le=1, description="0: natural frequency of the classes; 1: all classes equally frequent"
    )
    image_balance: float = Field(
        default=0.0, ge=0, le=1, description="0: all cells of a category as often; 1: all images that hold it as often"
    )
    most_cells: int | None = Field(default=None, ge=1, description="maximum number of cells of a category")
    variants: int = Field(
        default=1, ge=1, le=64, description="number of encoded crops per cell, each with its own rotation and offset"
    )
    augment_copies: int = Field(
        default=1, ge=1, le=64, description="number of varied copies of an image, with `augment`"
    )
    inside_weight: float = Field(default=1.0, ge=1, description="weight of the loss inside the box; equation 1 has 1")
    nucleus: bool = Field(default=False, description="the size of the nucleus is a condition too; not in the paper")
    validate_count: int = Field(
        default=64, ge=1, description="number of held-out cells for a score, classes equally frequent"
    )
    gradient_checkpointing: bool = False


class CellRecipe(CropRecipe):
    """Settings of the Abnormal Cell Synthesizer; the defaults are the paper's."""

    kind: Literal["cell"] = "cell"
    trainable: Literal["gated", "all"] = Field(
        default="gated", description="the new layers and first convolution, or the whole U-Net"
    )
    zoom: float = Field(
        default=1.0, ge=1, le=4,
        description="factor by which the part of a patch about the region is enlarged before it is encoded "
        "(cell/close_up.py); 1: the paper's",
    )  # fmt: skip
    decoder: str | None = Field(
        default=None,
        description="folder of an autoencoder with the foundation's encoder, whose decoder goes with the weights: of "
        "`train foundation --part decoder` on enlarged images; none: the foundation's",
    )  # fmt: skip
    caption_dropout: float = Field(default=0.1, ge=0, le=1)
    box_dropout: float = Field(default=0.1, ge=0, le=1)
    nucleus_dropout: float = Field(default=0.15, ge=0, le=1, description="of the size of the nucleus, with `nucleus`")
    joint_dropout: float = Field(
        default=0.0, ge=0, le=1,
        description="share of samples without prompt and token, as in the unconditional pass of guidance",
    )  # fmt: skip
    min_snr_gamma: float | None = None
    gate_rate: float = Field(
        default=1.0, ge=1, description="learning rate of the gates, which start at 0, relative to the others'"
    )


JOINT = 0.1
"""Guidance needs samples without both: dropped independently, both are absent in one sample of a hundred."""
PAPER = CellRecipe(
    max_steps=50_000, batch_size=4, learning_rate=1e-4, optimizer="adamw", joint_dropout=JOINT, checkpoint_every=1000
)
BUNDLED_RECIPE = CellRecipe(
    foundation=BUNDLED, data=CC_BY, categories=["NILM", *ABNORMAL], trainable="all", box_scale=(1.3, 2.2), jitter=48,
    zoom=2.0, balance=0.7, image_balance=0.5, variants=6, most_cells=500, nucleus=True,
    batch_size=12, learning_rate=3e-4, weight_decay=1e-3, warmup_steps=100, max_steps=20_000,
    ema_decay=0.999, inside_weight=3.0, min_snr_gamma=5.0, gate_rate=30.0, checkpoint_every=250, preview_every=500,
    validate_every=500, joint_dropout=JOINT, mixed_precision="bf16", memory_format="channels_last",
)  # fmt: skip
PAPER_24GB = PAPER.model_copy(update={"validate_every": 2500})
"""In fp32: patches are too small to gain from bf16 (docs/gpu.md)."""
PRESETS = {"paper": PAPER, "paper-24gb": PAPER_24GB, "bundled": BUNDLED_RECIPE}
