"""Settings of `evaluate steps`. Imports no torch."""

from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict, Field

from ..adapters import distilled
from ..bethesda import ABNORMAL
from ..cell.settings import EditSettings
from ..data.sources import Source
from ..normal.settings import GenerateSettings


class StepsRecipe(BaseModel):
    """All that the images depend on; fixed for a folder."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    real: Source
    seed: int = Field(default=0, ge=0, lt=2**62, description="first seed of the teacher, and seed of the few steps")
    seeds: int = Field(default=3, ge=3, le=20, description="seeds of the teacher, whose spread the few steps must keep")
    steps: list[int] = Field(default=[1, 2, 4, 8], min_length=1, description="sampler steps of the distilled weights")
    windows: int = Field(default=128, ge=10, description="normal windows of each")
    cells: int = Field(default=48, ge=10, description="NILM cells of each, at most; each becomes every category")
    categories: list[str] = Field(default=list(ABNORMAL), min_length=1)
    about: int = Field(default=96, ge=32, le=256, description="side of the compared patches about cells, pixels")
    normal: GenerateSettings = GenerateSettings(size=256)
    cell: EditSettings = EditSettings()
    samplers: dict[distilled.Stage, distilled.FewStepSampler] = Field(
        default={}, description="of the few steps by stage, where it is not lcm"
    )
    models: dict[str, str] = Field(default={}, description="weights' hash of each model by role")

    def few(self, stage: distilled.Stage, steps: int) -> dict[str, object]:
        """Return what few steps of `stage` set: sampler, `steps` and no guidance."""
        sampler = self.samplers.get(stage, "lcm")
        return {"sampler": sampler, "steps": steps, "guidance_scale": 1.0, "guidance_rescale": 0.0}


def taught(fast: Mapping[distilled.Stage, str | None]) -> dict[distilled.Stage, dict[str, float]]:
    """Return the settings of the teachers of the `fast` weights by stage: the guidance scale of their distilled.json.

    Raises UserError if there are no such weights.
    """
    return {
        stage: {"guidance_scale": distilled.place(name, stage)[1].guidance_scale}
        for stage, name in fast.items() if name is not None
    }  # fmt: skip


def samplers(fast: Mapping[distilled.Stage, str | None]) -> dict[distilled.Stage, distilled.FewStepSampler]:
    """Return the samplers of the `fast` weights by stage, of those whose distilled.json says another than lcm.

    Raises UserError if there are no such weights.
    """
    found = {stage: distilled.place(name, stage)[1].sampler for stage, name in fast.items() if name is not None}
    return {stage: sampler for stage, sampler in found.items() if sampler != "lcm"}
