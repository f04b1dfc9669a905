"""Recipe of `select`. Imports no torch."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ...bethesda import ABNORMAL
from ...data.sources import Source
from ...registry import DETECTORS, EXTRACTORS
from ..recipe import TABLE2

MEASURES = ("mAP", "mAP.5", "mAP.75", "AP.5 abnormal")
TEST = "test"
"""The part of a split that is only for reporting; it is not used here."""


class SelectRecipe(BaseModel):
    """Settings of `select`: candidates, ranking, and the search for the ratio."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    preset: Literal["paper", "bundled"] = Field(description="preset of the detector's recipe")
    architecture: str = "faster-rcnn"
    categories: list[str] = Field(default=list(ABNORMAL), min_length=1)
    training: dict[str, Any] = Field(default={}, description="settings of `train detector`")
    epochs: int = Field(default=20, ge=1, description="epochs over the real images of a training")
    steps: int | None = Field(default=None, ge=1, description="optimiser steps of every training, instead of epochs")
    real: list[Source] = Field(min_length=1, description="real training images")
    validation: Source = Field(description="real validation images; never the test part")
    synthetic: list[str] = Field(default=[], description="synthetic data sets, relative to --data-root")
    detector: str | None = Field(
        default=None, description="folder of the current detector; none: trained first, on the real images"
    )
    command: str | None = Field(
        default=None,
        description="train and predict with another program: a command with {train}, {images} and {results}, "
        "and optionally {annotations}, {seed} and {steps} (docs/robustness.md)",
    )
    uncertainty_weight: float = Field(
        default=0.5,
        ge=0,
        le=1,
        description="weight of the rank by uncertainty; the rest is that of the rank by distance",
    )
    extractor: str = Field(default="efficientnet-lite0", description="feature network of the distance")
    extractor_weights: str | None = Field(default=None, description="file or folder of its weights")
    window: int = Field(default=256, ge=32, description="side of the windows that are compared, pixels")
    neighbours: int = Field(
        default=5, ge=1, description="number of nearest real windows over which distances are averaged"
    )
    ratios: list[float] = Field(
        default=[0.25, 0.5, 1, 2, 4], min_length=1, description="synthetic images over real ones, ascending"
    )
    seeds: list[int] = Field(default=[0, 1, 2], min_length=3, description="of training")
    measure: str = Field(
        default="mAP", description=f"{', '.join(MEASURES)}, or the AP of a category: the measure that must improve"
    )
    patience: int = Field(
        default=1, ge=1, description="stop after N ratios in a row without a significant further gain"
    )
    control: Literal["none", "chosen", "every"] = Field(
        default="chosen", description="as many images at random beside the ranked ones: at the chosen ratio, at each"
    )
    draws: int = Field(default=200, ge=10, description="bootstrap resamples of validation images for the intervals")

    @model_validator(mode="after")
    def _fits(self) -> "SelectRecipe":
        for kind, name, known in (
            ("detector", self.architecture, list(DETECTORS)), ("feature network", self.extractor, list(EXTRACTORS)),
            ("measure", self.measure, [*MEASURES, *self.categories]),
        ):  # fmt: skip
            if name not in known:
                raise ValueError(f"unknown {kind} {name!r}; choose one of {', '.join(known)}")
        if any(source.split == TEST for source in (*self.real, self.validation)):
            raise ValueError("the test part is only for reporting: use 'train' for real and 'val' for validation")
        if self.ratios[0] <= 0 or any(b <= a for a, b in zip(self.ratios, self.ratios[1:], strict=False)):
            raise ValueError(f"ratios {self.ratios}: must be above 0 and ascending")
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds {self.seeds}: must be different")
        return self


_TABLE = TABLE2["bundled"]
PRESETS = {
    "paper": SelectRecipe(
        preset="paper", real=[Source(root="abnormal", split="train")], validation=Source(root="abnormal", split="val"),
    ),
    # The trainings of the bundled Table II.
    "bundled": SelectRecipe(
        preset="bundled", steps=_TABLE.steps, window=160, training=_TABLE.training, real=_TABLE.real,
        validation=_TABLE.test.model_copy(update={"split": "val"}),
    ),
}  # fmt: skip
