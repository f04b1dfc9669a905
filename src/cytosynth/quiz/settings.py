"""Settings of a quiz."""

from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from ..bethesda import CATEGORIES
from ..errors import UsageError

Mode = Literal["class", "origin"]
Kind = Literal["study", "teaching"]
Origin = Literal["real", "synthetic"]
Match = Literal["size", "sharpness"]
REAL: Final[Literal["real"]] = "real"
SYNTHETIC: Final[Literal["synthetic"]] = "synthetic"
CONFIDENCE: Final = ("a guess", "unsure", "fairly sure", "certain")
"""Answers to 'how confident are you?', from 1."""


class QuizSettings(BaseModel):
    """Which cells are shown, how, and to whom.

    Attributes:
        mode: `class` asks for the category, `origin` whether a cell is real or synthetic.
        kind: a `study` page holds no answers, a `teaching` page gives feedback.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    mode: Mode = "class"
    kind: Kind = "study"
    seed: int = Field(ge=0, lt=2**63)
    categories: tuple[str, ...] = Field(default=CATEGORIES, min_length=1)
    per_class: int = Field(default=10, ge=1, le=1000, description="cells of each category and each of both sets")
    blocks: int = Field(default=2, ge=1, le=100, description="parts with a pause between; each has every category")
    readers: int = Field(default=1, ge=1, le=100, description="pages with the same cells in another order")
    side: int = Field(default=128, ge=32, le=512, description="side of the square that is shown, pixels")
    match: tuple[Match, ...] = ()
    real_split: str = "all"
    real_scale: float = Field(default=1.0, gt=0, le=8, description="factor that brings the real images to x20")
    synthetic_scale: float = Field(default=1.0, gt=0, le=8)


def check(settings: QuizSettings, real: bool, synthetic: bool) -> None:
    """Raise UsageError for settings that contradict each other, or for which a set is missing."""
    if settings.per_class % settings.blocks:
        raise UsageError(
            f"--per-class {settings.per_class} cannot be divided into {settings.blocks} blocks; "
            "give a multiple of --blocks"
        )
    if len(set(settings.categories)) < len(settings.categories):
        raise UsageError("--categories: a category is given twice")
    if not real and not synthetic:
        raise UsageError("no cells: give --real DATA, --synthetic DATA or both")
    if not (real and synthetic):
        if settings.mode == "origin":
            raise UsageError("--mode origin needs both --real and --synthetic")
        if settings.match:
            raise UsageError("--match needs both --real and --synthetic: cells of one are matched to the other's")
    if settings.mode == "class" and len(settings.categories) < 2:
        raise UsageError("--mode class needs at least two categories")
