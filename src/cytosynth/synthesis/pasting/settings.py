"""Settings of copy-paste. Imports no torch."""

from pydantic import BaseModel, ConfigDict, Field, model_validator


class PasteSettings(BaseModel):
    """How real cells are cut out and pasted."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    seed: int = Field(default=0, ge=0, lt=2**63)
    context: float = Field(
        default=1.3,
        ge=1,
        le=4,
        description="ellipse that is cut out over the cell's box, less near others",
    )
    feather: float = Field(
        default=0.35, gt=0, le=1, description="outer share of the ellipse's radius in which the mask falls to 0"
    )
    turns: bool = Field(default=True, description="turn and flip each cell at random")
    match: bool = Field(default=True, description="shift the cell's colours to those around its new place")
    min_cells: int = Field(default=1, ge=1, description="minimum number of cells pasted into an image")
    max_cells: int = Field(default=8, ge=1, description="maximum number of cells pasted into an image")

    @model_validator(mode="after")
    def _fits(self) -> "PasteSettings":
        if self.min_cells > self.max_cells:
            raise ValueError(f"min_cells ({self.min_cells}) must not exceed max_cells ({self.max_cells})")
        return self
