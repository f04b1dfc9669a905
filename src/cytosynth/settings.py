"""Settings of the pipeline and of its two stages. Imports no torch, so that a mistake is answered at once."""

from pydantic import BaseModel, ConfigDict, Field

from .bethesda import ABNORMAL, NORMAL_PROMPT
from .errors import UsageError


class GenerateSettings(BaseModel):
    """Settings of stage 1; the defaults are the paper's."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    size: int = Field(default=1024, ge=64, multiple_of=64, description="side of a field, pixels")
    steps: int = Field(default=25, ge=1, le=500)
    guidance_scale: float = Field(default=5.0, ge=1)
    guidance_rescale: float = Field(default=0.0, ge=0, le=1)
    prompt: str = NORMAL_PROMPT


class EditSettings(BaseModel):
    """Settings of stage 2; steps and guidance are the paper's."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    steps: int = Field(default=25, ge=1, le=500)
    guidance_scale: float = Field(default=5.0, ge=1)
    guidance_rescale: float = Field(default=0.0, ge=0, le=1)
    box_scale: float | None = Field(
        default=None, ge=0.5, le=8, description="edited region over the detected box; none: as the model was trained"
    )
    feather: int = Field(default=8, ge=0, le=64, description="blend inside the region's edge, pixels")
    batch: int = Field(default=4, ge=1, description="cells denoised at a time")


class PipelineSettings(BaseModel):
    """What a run is asked for, but its number of images; the defaults are the paper's (Section IV)."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    seed: int = Field(default=0, ge=0, lt=2**63)
    normal: GenerateSettings = GenerateSettings()
    cell: EditSettings = EditSettings()
    threshold: float = Field(default=0.5, ge=0, le=1, description="least score of a detected NILM cell")
    fewest: int = Field(default=1, ge=0, description="least number of cells to edit in an image")
    most: int = Field(default=8, ge=1, description="greatest number of cells to edit in an image")
    mix: dict[str, float] = Field(default=dict.fromkeys(ABNORMAL, 1.0), description="weight of each category")
    scale: float = Field(default=1.0, gt=0, le=8, description="factor on the user's images before editing")


def check(settings: PipelineSettings) -> None:
    """Raise UsageError for settings that contradict each other."""
    if settings.fewest > settings.most:
        raise UsageError(f"at least {settings.fewest} cells but at most {settings.most}")
    if not settings.mix or min(settings.mix.values()) < 0 or sum(settings.mix.values()) <= 0:
        raise UsageError(f"mix {settings.mix}: weights must not be negative, and one must be above 0")
    unknown = sorted(set(settings.mix) - set(ABNORMAL))
    if unknown:
        raise UsageError(f"mix: no category {unknown[0]!r}; there are {', '.join(ABNORMAL)}")
