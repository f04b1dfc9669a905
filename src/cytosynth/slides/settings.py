"""Settings of a slide. Imports no torch, so that a mistake is reported at once."""

from pathlib import Path
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from ..errors import UsageError
from ..synthesis.settings import PipelineSettings

WindowsName = Literal["shifted", "overlapping"]
WINDOWS: Final = {
    "shifted": "SpotDiffusion: adjacent windows, shifted at every step (arXiv 2407.15507)",
    "overlapping": "MultiDiffusion: windows that overlap by half, averaged; four times the cost (arXiv 2302.08113)",
}
ONE_STEP: Final = ("ddim", "euler", "lcm", "tcd", "ddim-trailing")
"""Samplers that need only the latents of the previous step: earlier steps of a moving window are not available."""
FULL, DISC = "full", "disc"


class SlideSettings(BaseModel):
    """Settings of a slide in addition to those of both stages."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    width: int = Field(ge=256, le=2**20, description="pixels")
    height: int = Field(ge=256, le=2**20, description="pixels")
    windows: WindowsName = "shifted"
    density_map: str = Field(
        default=FULL, description="cell density: full, disc (a liquid-based preparation), or a grey image"
    )
    compression: Literal["lossless", "jpeg"] = "lossless"
    quality: int = Field(default=90, ge=50, le=100, description="of JPEG")
    ome: bool = Field(default=False, description="also write an OME-TIFF")
    pipeline: PipelineSettings = PipelineSettings()

    def check(self) -> None:
        """Raise UsageError for settings that do not fit a slide."""
        both = self.pipeline
        if both.normal.sampler not in ONE_STEP:
            raise UsageError(
                f"--sampler {both.normal.sampler}: needs earlier steps of its window, but windows move; "
                f"for slides choose one of {', '.join(ONE_STEP)}"
            )
        if both.choice == "isolation":
            raise UsageError(
                "choice=isolation compares all pairs of cells, too many on a slide; choose random, score or size"
            )
        if both.keep_abnormal:
            raise UsageError("keep_abnormal=true: is of annotated images; a slide has no annotated cells, leave it out")
        if both.normal.low_frequencies:
            raise UsageError("normal.low_frequencies=true: is of fields; a slide has no such pattern, leave it out")
        if both.vary or both.style:
            raise UsageError("vary, style: work on images, not on a slide; leave them out of settings and plan")
        if both.cell.paste != "box":
            raise UsageError("cell.paste=patch: not supported on slides; use cell.paste=box")
        if self.density_map not in (FULL, DISC) and not Path(self.density_map).is_file():
            raise UsageError(f"--density-map {self.density_map}: expected full, disc or an image file")
        if min(self.width, self.height) < both.normal.size:
            raise UsageError(
                f"{self.width}x{self.height}: smaller than one field ({both.normal.size}); use `cytosynth synthesize`"
            )
