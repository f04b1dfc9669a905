"""Settings of `evaluate cells`: the edits and their measurement. Imports no torch."""

from pydantic import BaseModel, ConfigDict, Field

from ...bethesda import ABNORMAL
from ...cell.settings import EditSettings
from ...data.sources import Source
from ...foundation.names import Precision
from ...normal.settings import GenerateSettings


class Editing(BaseModel):
    """All that the pixels of an edited patch depend on, except the cell and its category; fixed for a folder."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    real: Source
    seed: int = Field(default=0, ge=0, lt=2**63)
    cell: EditSettings = EditSettings()
    fields: bool = Field(default=False, description="cells of generated fields are edited, not of the real images")
    normal: GenerateSettings = GenerateSettings()
    threshold: float = Field(default=0.5, ge=0, le=1, description="score threshold of NILM cells in a generated field")
    precision: Precision = Field(default="fp32", description="of the diffusion networks")
    models: dict[str, str] = Field(default={}, description="weights' hash of each model by role")


class Measuring(BaseModel):
    """How the edits are measured; may change between two calls of a run."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    categories: list[str] = Field(default=list(ABNORMAL), min_length=1, description="each cell becomes each of them")
    count: int = Field(default=100, ge=1, description="NILM cells that are edited, at most")
    fields: int = Field(default=0, ge=0, description="generated fields whose cells are edited; 0: those of real images")
    window: int = Field(default=256, ge=32, le=256, description="side of the compared patches, pixels (paper: 256)")
    draws: int = Field(default=200, ge=10, description="bootstrap resamples of images for the intervals")
    fewest: int = Field(default=8, ge=4, description="fewer cells a side are not compared")
