"""Settings of a benchmark. Imports no torch."""

from pydantic import BaseModel, ConfigDict, Field

from ..errors import UsageError
from ..synthesis.settings import COMMAND, PipelineSettings

SMALLEST = 256
"""Pixels of the smallest image in which a cell is edited."""


class BenchmarkSettings(BaseModel):
    """Settings of a benchmark in addition to those of both stages."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    counts: tuple[int, ...] = Field(default=(8, 16, 32), min_length=1, description="images of a run")
    sides: tuple[int, ...] = Field(default=(512, 1024, 2048), description="of an image, pixels")
    cells: int = Field(default=8, ge=1, le=64, description="cells edited in an image, at most as many as fit")
    repeats: int = Field(default=3, ge=1, le=100, description="of what is compared; medians are given")
    paper_steps: int = Field(default=25, ge=1, le=500, description="of the paper's recipe, to which it is compared")
    pipeline: PipelineSettings = COMMAND

    def check(self) -> None:
        """Raise UsageError for invalid numbers."""
        if min(self.counts) < 1 or max(self.counts) > 100_000:
            raise UsageError(f"--counts {','.join(map(str, self.counts))}: 1 to 100,000 images")
        for side in (*self.sides, self.pipeline.normal.size):
            if side < SMALLEST or side % 64:
                raise UsageError(f"--sides {side}: multiples of 64 from {SMALLEST} pixels on")


def quick(settings: BenchmarkSettings) -> BenchmarkSettings:
    """Return `settings` for a run of minutes: few, small images and few steps. Do not report its figures."""
    pipeline = settings.pipeline
    few = {
        "normal": pipeline.normal.model_copy(update={"size": SMALLEST, "steps": min(pipeline.normal.steps, 4)}),
        "cell": pipeline.cell.model_copy(update={"steps": min(pipeline.cell.steps, 4)}),
    }
    update = {"counts": (1, 2), "sides": (SMALLEST, 2 * SMALLEST), "cells": 4, "repeats": 1, "paper_steps": 4}
    return settings.model_copy(update=update | {"pipeline": pipeline.model_copy(update=few)})
