"""Settings of stage 1. Imports no torch."""

from pydantic import BaseModel, ConfigDict, Field

from ..foundation.names import EVERY_TIMESTEP, MOST_GUIDANCE, PAPER_GUIDANCE, GuidanceInterval, SamplerName


class GenerateSettings(BaseModel):
    """Settings of stage 1; the defaults are the paper's."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    size: int = Field(default=1024, ge=64, multiple_of=64, description="side of a field, pixels")
    sampler: SamplerName = "ddim"
    steps: int = Field(default=25, ge=1, le=500)
    guidance_scale: float | None = Field(
        default=None,
        ge=1,
        le=MOST_GUIDANCE,
        description=f"none: that of adapter.json; without one {PAPER_GUIDANCE:g}, the paper's",
    )
    guidance_rescale: float = Field(default=0.0, ge=0, le=1)
    guidance_interval: GuidanceInterval = EVERY_TIMESTEP
    low_frequencies: bool | None = Field(
        default=None,
        description="begin with the low frequencies of the adapter's training images instead of with noise alone; "
        "none: if they are next to the adapter",
    )
    batch: int = Field(default=1, ge=1, le=256, description="fields denoised at a time")
    prompt: str | None = Field(default=None, description="none: the prompt that the adapter was trained with")

    @property
    def guidance(self) -> float:
        """The guidance scale; the paper's, if none is set."""
        return PAPER_GUIDANCE if self.guidance_scale is None else self.guidance_scale
