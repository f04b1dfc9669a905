"""Settings of the robustness benchmark. Imports no torch."""

from pydantic import BaseModel, ConfigDict, Field, field_validator

from ..data.sources import Source
from ..registry import VARIATIONS
from ..variation.catalogue import variation

CLEAN = "clean"


class RobustnessRecipe(BaseModel):
    """Settings of the robustness benchmark: images, variations and scores."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    data: Source
    mpp: float = Field(default=0.49, gt=0.05, le=5, description="micrometres per pixel after scaling")
    variations: list[str] = list(VARIATIONS)
    strengths: list[int] = Field(default=[1, 2, 3, 4, 5], min_length=1)
    limit: int | None = Field(default=None, ge=1, description="the first N images; none: all")
    seed: int = Field(default=0, ge=0, lt=2**63, description="random seed of the variations and of the bootstrap")
    draws: int = Field(default=100, ge=10, description="bootstrap resamples of the images")
    false_positives: float = Field(
        default=1.0, gt=0, description="false positives per image and category at which recall is measured"
    )
    threshold: float = Field(
        default=0.3, ge=0, le=1, description="score threshold at which a cell counts as found for flips"
    )

    @field_validator("variations")
    @classmethod
    def _known(cls, names: list[str]) -> list[str]:
        for name in names:
            if name not in VARIATIONS:
                raise ValueError(f"unknown variation {name!r}; choose one of {', '.join(VARIATIONS)}")
        return names

    @field_validator("strengths")
    @classmethod
    def _within(cls, strengths: list[int]) -> list[int]:
        if min(strengths) < 1 or max(strengths) > 5 or len(set(strengths)) < len(strengths):
            raise ValueError("strengths must be different whole numbers from 1 to 5")
        return sorted(strengths)

    def conditions(self) -> list[str]:
        """Return the names of all conditions, 'clean' first, then `variation-strength`."""
        return [CLEAN, *(f"{name}-{strength}" for name in self.variations for strength in self.strengths)]


def parsed(condition: str) -> tuple[str, int]:
    """Return variation and strength of a `condition` other than 'clean'."""
    name, _, strength = condition.rpartition("-")
    return variation(name).name, int(strength)
