"""Settings of the pipeline and of its two stages. Imports no torch, so that a mistake is answered at once."""

import math

from pydantic import BaseModel, ConfigDict, Field

from ..bethesda import ABNORMAL
from ..cell.settings import Choice, EditSettings, GateSettings
from ..errors import UsageError
from ..foundation.names import DISTILLED, Precision
from ..normal.settings import GenerateSettings


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
