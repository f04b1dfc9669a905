"""Recipes of Tables II and III: detectors trained with and without synthetic images. Imports no torch."""

from typing import Any, ClassVar, Literal

from pydantic import ConfigDict, Field, model_validator

from ..bethesda import ABNORMAL
from ..cell.settings import EditSettings
from ..config import Settings
from ..data.sources import Source
from ..foundation.names import BUNDLED, STABLE_DIFFUSION
from ..normal.settings import GenerateSettings
from ..registry import DETECTORS
from ..synthesis.settings import PipelineSettings

REAL, CUSTOM, REAL_TO_SYNTHETIC, OURS = "R", "R + S (CD)", "R + R2S", "R + S"
TRAINING_SETS = {
    REAL: "real images alone",
    CUSTOM: "and fields by Custom Diffusion, their cells edited",
    REAL_TO_SYNTHETIC: "and real normal images, their cells edited",
    OURS: "and fields by LoRA, their cells edited",
}
"""Training sets of a detector, by the names of Tables II and III."""


class AugmentationRecipe(Settings):
    """Settings of Tables II and III: which detectors, on which training sets of real and synthetic images, how long."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    RENAMED: ClassVar = {"mixes": "training_sets"}
    title: str
    preset: Literal["paper", "bundled"] = Field(description="preset of each detector's recipe")
    detectors: list[str] = Field(min_length=1)
    alone: list[str] = Field(default=[], description="detectors that are trained only on real images")
    training_sets: list[str] = Field(
        min_length=1, description=f"of {', '.join(TRAINING_SETS)}; must include real images alone"
    )
    seeds: list[int] = Field(default=[0, 1, 2], min_length=1, description="of training")
    epochs: int = Field(default=20, ge=1, description="epochs over the real images of the shorter training")
    steps: int | None = Field(
        default=None, ge=1, description="optimiser steps of the shorter training, instead of epochs"
    )
    categories: list[str] = list(ABNORMAL)
    training: dict[str, Any] = Field(default={}, description="settings of `train detector`, the same for all")
    by_detector: dict[str, dict[str, Any]] = Field(default={}, description="the same for one detector")
    real: list[Source] = Field(min_length=1, description="real training images")
    test: Source = Field(description="real test images, which no model was trained or chosen on")
    sets: dict[str, str | None] = Field(
        default=dict.fromkeys((CUSTOM, REAL_TO_SYNTHETIC, OURS)),
        description="existing synthetic data sets, by training set; none: made in the run folder",
    )
    count: int = Field(default=5000, ge=1, description="number of images of a synthetic data set that is made")
    making: PipelineSettings = Field(
        default=PipelineSettings(), description="settings of a synthetic data set that is made"
    )
    normals: Source = Field(
        default=Source(root="normal", split="train"),
        description="real images of which those without abnormal cells are edited (R2S), over and over up to `count`",
    )
    models: dict[str, str | None] = Field(
        default={"foundation": BUNDLED, "normal": BUNDLED, "custom-diffusion": None, "cell": BUNDLED,
                 "detector": BUNDLED},
        description="models that make the sets; custom-diffusion none: trained first",
    )  # fmt: skip
    adapter: dict[str, Any] = Field(default={}, description="settings of `train normal` for that Custom Diffusion")
    draws: int = Field(default=200, ge=10, description="bootstrap resamples of test images for the intervals")
    commands: dict[str, str] = Field(
        default={},
        description="detectors of other programs by name: a command with {train}, {images} and {results}, and if it "
        "wants {annotations}, {seed} and {steps} (docs/robustness.md)",
    )

    @model_validator(mode="after")
    def _known(self) -> "AugmentationRecipe":
        for kind, given, known in (
            ("training set", self.training_sets, TRAINING_SETS),
            ("detector", [*self.detectors, *self.alone], [*DETECTORS, *self.commands]),
            ("set", self.sets, TRAINING_SETS),
        ):  # fmt: skip
            unknown = [name for name in given if name not in known]
            if unknown:
                raise ValueError(f"unknown {kind} {unknown[0]!r}; choose one of {', '.join(known)}")
        if REAL not in self.training_sets:
            raise ValueError(f"training_sets: {REAL!r} is missing, with which the others are compared")
        return self


_MODELS: dict[str, str | None] = {
    "foundation": STABLE_DIFFUSION, "normal": "runs/normal/best", "custom-diffusion": "runs/cd/best",
    "cell": "runs/cell/weights", "detector": "runs/nilm/weights",
}  # fmt: skip
_CRIC = Source(root="cric", scale=0.5, split="train")
TABLE2 = {
    "paper": AugmentationRecipe(
        title="Table II", preset="paper", detectors=["faster-rcnn", "retinanet", "dino"],
        training_sets=list(TRAINING_SETS),
        real=[Source(root="abnormal", split="train")], test=Source(root="abnormal", split="test"), models=_MODELS,
    ),
    "bundled": AugmentationRecipe(
        title="Table II", preset="bundled", detectors=["faster-rcnn", "retinanet", "dino", "comparison-detector"],
        training_sets=list(TRAINING_SETS), steps=500,
        training={"window": 192, "lr_schedule": "constant", "weights": BUNDLED, "ema_decay": 0.98},
        by_detector={"dino": {"window": 256, "batch_size": 2}},
        real=[_CRIC], test=_CRIC.model_copy(update={"split": "test"}), normals=_CRIC,
        count=40,
        making=PipelineSettings(
            normal=GenerateSettings(size=512, sampler="dpm++2m", steps=12), min_cells=4,
            cell=EditSettings(sampler="dpm++2m", steps=12),
        ),
        adapter={"max_steps": 200, "window": 256, "batch_size": 4, "warmup_steps": 30, "validate_every": 0},
    ),
}  # fmt: skip
TABLE3 = {
    "paper": TABLE2["paper"].model_copy(
        update={
            "title": "Table III", "detectors": ["comparison-detector", "faster-rcnn", "retinanet", "dino"],
            "alone": ["comparison-detector"], "training_sets": [REAL, OURS],
            "real": [Source(root="comparison-database", split="train")],
            "test": Source(root="comparison-database", split="test"),
        }
    ),
    "bundled": TABLE2["bundled"].model_copy(
        update={
            "title": "Table III", "alone": ["comparison-detector"], "training_sets": [REAL, OURS],
            "detectors": ["comparison-detector", "faster-rcnn", "retinanet", "dino"],
            "real": [Source(root="comparison-database", split="train")],
            "test": Source(root="comparison-database", split="test"),
        }
    ),
}  # fmt: skip
