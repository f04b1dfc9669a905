"""Settings of the pipeline and of its two stages. Imports no torch, so that a mistake is answered at once."""

import math
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from .bethesda import ABNORMAL
from .errors import UsageError
from .training.recipe import Source

SamplerName = Literal["ddim", "dpm++2m", "unipc", "euler", "lcm", "tcd"]
DISTILLED = ("lcm", "tcd")
"""Samplers of models distilled for few steps; they know 50 timesteps."""
Precision = Literal["fp32", "bf16", "fp16"]
Choice = Literal["random", "score", "size", "isolation"]


class GenerateSettings(BaseModel):
    """Settings of stage 1; the defaults are the paper's."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    size: int = Field(default=1024, ge=64, multiple_of=64, description="side of a field, pixels")
    sampler: SamplerName = "ddim"
    steps: int = Field(default=25, ge=1, le=500)
    guidance_scale: float = Field(default=5.0, ge=1)
    guidance_rescale: float = Field(default=0.0, ge=0, le=1)
    prompt: str | None = Field(default=None, description="none: the one with which the adapter was trained")


class EditSettings(BaseModel):
    """Settings of stage 2; steps and guidance are the paper's."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    sampler: SamplerName = "ddim"
    steps: int = Field(default=25, ge=1, le=500)
    guidance_scale: float = Field(default=5.0, ge=1)
    guidance_rescale: float = Field(default=0.0, ge=0, le=1)
    box_scale: float | None = Field(
        default=None, ge=0.5, le=8, description="edited region over the detected box; none: as the model was trained"
    )
    strength: float = Field(default=1.0, gt=0, le=1, description="share of the timesteps that z_T goes; 1: all of them")
    paste: Literal["box", "patch"] = Field(
        default="box", description="put back the edited region alone, or the whole decoded patch as the paper does"
    )
    feather: int = Field(default=8, ge=0, le=64, description="blend inside the region's edge (paste=box), pixels")
    grain: float | None = Field(
        default=None, ge=0, le=2,
        description="fine texture added inside the region (paste=box) over what the autoencoder loses around it; "
        "none: 1 on real images, 0 on generated fields, which have none to lose",
    )  # fmt: skip
    batch: int = Field(default=4, ge=1, le=1024, description="cells denoised at a time, of one image or of several")


class GateSettings(BaseModel):
    """What an edited cell must be to be kept, where there is a gate (`--gate`); all but nucleus and seam need a judge.

    The defaults are judgements, not the paper's, which keeps every cell.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    tries: int = Field(default=3, ge=1, le=100, description="edits of a cell, each of another seed, until one is kept")
    top: int = Field(
        default=2, ge=0, description="the category is among the judge's so many likeliest (0: does not count)"
    )
    probability: float = Field(default=0.5, gt=0, le=1, description="or has at least this probability")
    less_normal: bool = Field(
        default=True, description="NILM must be less likely than before the edit, and no longer the likeliest class"
    )
    seam: float | None = Field(default=1.5, gt=0, description="greatest seam ratio (cell/seam.py); none: any")
    copy_percentile: float = Field(
        default=1.0, ge=0, le=100,
        description="a copy is nearer to a crop of `reference` than this percentile of its crops are to each other",
    )  # fmt: skip
    nucleus: bool = Field(
        default=False, description="a nucleus lies at the middle of the box; without a judge always asked for"
    )
    reference: list[Source] = Field(
        default=[], description="the synthesizer's training data, below --data-root; none: no search for copies"
    )


class PipelineSettings(BaseModel):
    """What a run is asked for, but its number of images; the defaults are the paper's (Section IV)."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    seed: int = Field(default=0, ge=0, lt=2**63)
    normal: GenerateSettings = GenerateSettings()
    cell: EditSettings = EditSettings()
    threshold: float = Field(default=0.5, ge=0, le=1, description="least score of a detected NILM cell")
    fewest: int = Field(default=1, ge=0, description="least number of cells to edit in an image")
    most: int = Field(default=8, ge=1, description="greatest number of cells to edit in an image")
    choice: Choice = Field(default="random", description="which cells first: random, best score, largest, loneliest")
    mix: dict[str, float] = Field(default=dict.fromkeys(ABNORMAL, 1.0), description="weight of each category")
    counts: dict[str, int] = Field(default={}, description="cells of each category in the whole run, instead of mix")
    gate: GateSettings = GateSettings()
    scale: float = Field(default=1.0, gt=0, le=8, description="factor on the user's images before editing")
    precision: Precision = Field(
        default="fp32",
        description="of the diffusion networks; bf16 or fp16 takes half the memory, and less time on a GPU",
    )


def check(settings: PipelineSettings, images: int | None = None) -> None:
    """Raise UsageError for settings that contradict each other, or that `images` images cannot meet."""
    if settings.fewest > settings.most:
        raise UsageError(f"at least {settings.fewest} cells but at most {settings.most}")
    if not settings.mix or min(settings.mix.values()) < 0 or not 0 < sum(settings.mix.values()) < math.inf:
        raise UsageError(
            f"mix {settings.mix}: weights must not be negative, one must be above 0, and their sum be a number"
        )
    for stage, chosen in (("normal", settings.normal), ("cell", settings.cell)):
        if chosen.sampler in DISTILLED and chosen.steps > 50:
            raise UsageError(f"{stage}.steps={chosen.steps}: {chosen.sampler} takes at most 50")
    for name, asked in (("mix", settings.mix), ("counts", settings.counts)):
        unknown = sorted(set(asked) - set(ABNORMAL))
        if unknown:
            raise UsageError(f"{name}: no category {unknown[0]!r}; there are {', '.join(ABNORMAL)}")
    if settings.counts and min(settings.counts.values()) < 1:
        raise UsageError(f"counts {settings.counts}: whole numbers above 0 are needed")
    total = sum(settings.counts.values())
    if images is not None and total > images * settings.most:
        raise UsageError(
            f"counts: {total} cells are asked for, {images} images of at most {settings.most} hold "
            f"{images * settings.most}; ask for more images, or raise most"
        )
