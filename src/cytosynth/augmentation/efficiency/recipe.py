"""Recipes of `experiment efficiency`: arms, sizes, chains. Imports no torch."""

import hashlib
import json
import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ...bethesda import ABNORMAL, NILM, ONE_CLASS
from ...cell.settings import EditSettings
from ...data.sources import Source
from ...foundation.names import BUNDLED
from ...normal.settings import GenerateSettings
from ...registry import DETECTORS
from ...synthesis.pasting.settings import PasteSettings
from ...synthesis.settings import PipelineSettings

REAL, FIELDS, EDITED, PASTED, STRONG = "R", "R + S", "R + R2S", "R + copy-paste", "R + strong augmentation"
Kind = Literal["none", "fields", "edited", "pasted", "exemplar"]
On = Literal["tuning", "test"]
IDLE: dict[Kind, tuple[str, ...]] = {
    "none": ("like", "keep_abnormal", "gate", "strength", "hard", "share", "weight", "first"),
    "fields": ("like", "keep_abnormal", "strength"),
    "edited": ("like", "strength"),
    "pasted": ("keep_abnormal", "gate", "strength"),
    "exemplar": ("keep_abnormal",),
}
"""Settings of an arm that change nothing, by its kind."""
ROLES = ("foundation", "normal", "cell", "detector", "gate", "fast_normal", "fast_cell")


def slug(arm: str) -> str:
    """Return the name of the folder of an arm."""
    return re.sub("[^a-z0-9]+", "-", arm.lower()).strip("-")


class Strategy(BaseModel):
    """One arm: the training data in addition to the real images, and how they are used."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    kind: Kind = Field(
        description="none; fields (drawn, cells edited); edited (real normal images); pasted (real cells pasted in); "
        "exemplar (edits that begin from a pasted real cell)"
    )
    ratio: float = Field(default=2.0, gt=0, le=100, description="synthetic images over the N real ones")
    like: str = Field(default=EDITED, description="pasted, exemplar: the arm whose images, places and counts are taken")
    keep_abnormal: bool = Field(
        default=False,
        description="edited: edit all N images, not only the normal ones; their annotated abnormal cells stay",
    )
    gate: str = Field(default="none", description="none, nucleus, or the folder of a cell classifier")
    strength: tuple[float, float] = Field(default=(0.3, 0.6), description="exemplar: least and greatest of an edit")
    hard: bool = Field(default=False, description="more cells of the categories that R misses on the tuning images")
    share: float | None = Field(
        default=None, ge=0, le=1, description="of the windows, that are synthetic; none: as of images"
    )
    weight: float = Field(default=1.0, gt=0, le=10, description="of a synthetic image in the loss")
    first: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="share of the steps on synthetic images alone; the rest is on real ones alone",
    )
    augmentation: Literal["usual", "strong"] = "usual"
    weights: str = Field(
        default="", description="initial weights of its detector, as `train detector` takes them; empty: as of all arms"
    )

    @model_validator(mode="after")
    def _fits(self) -> "Strategy":
        low, high = self.strength
        if not 0 < low <= high <= 1:
            raise ValueError(f"strength {[low, high]}: must be above 0, ascending, and at most 1")
        given = [name for name, field in type(self).model_fields.items() if getattr(self, name) != field.default]
        if idle := [name for name in IDLE[self.kind] if name in given]:
            raise ValueError(f"{', '.join(idle)}: no effect on an arm of kind {self.kind}; leave it out")
        if self.first and (idle := [name for name in ("share", "weight") if name in given]):
            raise ValueError(
                f"{', '.join(idle)}: no effect with first={self.first:g}, which trains on synthetic and on real images "
                "one after the other; give one or the other"
            )
        if self.kind in ("pasted", "exemplar") and self.hard:
            raise ValueError(f"kind {self.kind} takes its categories from the arm that it is like; set `hard` there")
        return self

    def steps_first(self, steps: int) -> int:
        """Return how many of `steps` are on synthetic images alone."""
        return round(self.first * steps)

    @property
    def key(self) -> str:
        """Name of its synthetic images, which arms that differ only in training share."""
        made = self.model_dump(mode="json", exclude={"share", "weight", "first", "augmentation", "weights"})
        if not self.keep_abnormal:
            del made["keep_abnormal"]  # keys as before there was this setting
        return f"{self.kind}-{hashlib.sha256(json.dumps(made, sort_keys=True).encode()).hexdigest()[:8]}"


ARMS = {
    REAL: Strategy(kind="none"),
    FIELDS: Strategy(kind="fields"),
    EDITED: Strategy(kind="edited"),
    PASTED: Strategy(kind="pasted"),
    STRONG: Strategy(kind="none", augmentation="strong"),
}
STRONGER: dict[str, Any] = {
    "jitter": 0.3, "blur": 0.5,
    "augment": {"mpp": 0.49, "variations": [
        {"name": "stain", "share": 0.7, "strength": [1, 4]}, {"name": "stain-hue", "share": 0.7, "strength": [1, 4]},
        {"name": "thickness", "share": 0.3, "strength": [1, 3]}, {"name": "defocus", "share": 0.3, "strength": [1, 3]},
        {"name": "vignetting", "share": 0.3, "strength": [1, 3]},
        {"name": "white-balance", "share": 0.5, "strength": [1, 4]},
        {"name": "sensor-noise", "share": 0.3, "strength": [1, 3]}, {"name": "jpeg", "share": 0.3, "strength": [1, 3]},
    ]},
}  # fmt: skip
"""Settings of `train detector` in an arm with strong augmentation, over the usual ones."""


class EfficiencyRecipe(BaseModel):
    """Settings of `experiment efficiency`; docs/protocol.md explains them."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    title: str
    generator: Literal["public", "own"] = Field(
        description="public: no model has seen an image of `real`; own: the models may have seen those of their row"
    )
    preset: Literal["paper", "bundled"] = Field(default="bundled", description="preset of the detector's recipe")
    architecture: str = "faster-rcnn"
    arms: dict[str, Strategy] = Field(default=ARMS, min_length=1)
    sizes: list[int] = Field(min_length=1, description="numbers of real images, ascending")
    confirmatory: int | None = Field(default=8, description="the size of the confirmatory comparisons; none: none")
    candidate: str = Field(
        default=EDITED,
        description=f"the arm whose comparisons with {REAL} and {PASTED} at the confirmatory size are confirmatory",
    )
    earlier: list[Annotated[float, Field(ge=0, le=1)]] = Field(
        default=[],
        description="p-values of confirmatory comparisons made before on the same test images: corrected with",
    )
    chains: int = Field(
        default=5, ge=1, description="number of nested random orders of the images, each with its own seed"
    )
    seed: int = Field(default=0, ge=0, lt=2**31, description="random seed of the first chain")
    steps: int = Field(ge=1, description="optimiser steps of every training")
    curve: list[int] = Field(default=[], description="steps at which --check-steps scores; none: six up to `steps`")
    training: dict[str, Any] = Field(default={}, description="settings of `train detector`, the same for all arms")
    stronger: dict[str, Any] = Field(default=STRONGER, description="further settings for strong augmentation")
    categories: list[str] = Field(default=list(ABNORMAL), min_length=1)
    one_class: bool = Field(description="train on all abnormal cells as one class")
    real: Source = Field(description="the lab's own images, from which subsets are sampled")
    test: Source = Field(description="test images, scored once")
    tuning: Source = Field(description="images for decisions on steps, power and strategies")
    tuning_images: int = Field(default=40, ge=1, description="number of tuning images, by hash of their names")
    models: dict[str, str] = Field(
        default=dict.fromkeys(("foundation", "normal", "cell", "detector"), BUNDLED),
        description="models that make the sets, by role; fast_normal and fast_cell are distilled weights, which set "
        "sampler, steps and guidance; {chain} and {n} in a name are replaced by those of the row",
    )
    making: PipelineSettings = PipelineSettings()
    pasting: PasteSettings = PasteSettings()
    draws: int = Field(default=1000, ge=10, description="bootstrap resamples of test images")
    margin: float = Field(default=0.02, gt=0, le=1, description="margin of non-inferiority, in AP.5")
    least: int = Field(
        default=10, ge=2, description="number of test images with a class, below which it has no interval"
    )

    @model_validator(mode="after")
    def _fits(self) -> "EfficiencyRecipe":
        if self.architecture not in DETECTORS:
            raise ValueError(f"unknown detector {self.architecture!r}; choose one of {', '.join(DETECTORS)}")
        if self.making.keep_abnormal:
            raise ValueError("making.keep_abnormal: no effect; set keep_abnormal of an arm of kind edited")
        if REAL not in self.arms or self.arms[REAL].kind != "none":
            raise ValueError(f"arms: {REAL!r} (real images alone) is missing, with which the others are compared")
        if self.sizes[0] < 2 or any(b <= a for a, b in zip(self.sizes, self.sizes[1:], strict=False)):
            raise ValueError(f"sizes {self.sizes}: must be 2 or more, and ascending")
        if self.confirmatory is not None and self.confirmatory not in self.sizes:
            raise ValueError(f"confirmatory {self.confirmatory}: not among the sizes {self.sizes}")
        others = [name for name in self.arms if name not in (REAL, PASTED)]
        if self.candidate not in [*others, EDITED]:
            raise ValueError(f"candidate: {self.candidate!r} is no arm to confirm; choose one of {', '.join(others)}")
        if self.candidate != EDITED and self.confirmatory is not None and PASTED not in self.arms:
            raise ValueError(
                f"candidate: is compared with {PASTED!r}, which is not among the arms; set confirmatory=null"
            )
        for stage in ("normal", "cell"):
            own = [role for role in ("foundation", stage) if self.models.get(role, BUNDLED) != BUNDLED]
            if own and self.models.get(f"fast_{stage}") == BUNDLED:
                raise ValueError(
                    f"models: fast_{stage}: the bundled few-step weights fit the bundled models only, not {own[0]} "
                    f"{self.models[own[0]]}; distil yours, or leave fast_{stage} out"
                )
        folders = [slug(name) for name in self.arms]
        if "" in folders or len(set(folders)) < len(folders):
            raise ValueError(f"arms {list(self.arms)}: names must differ in their letters and digits, and have some")
        for name, arm in self.arms.items():
            if arm.first and not 0 < arm.steps_first(self.steps) < self.steps:
                least = 1 / self.steps
                raise ValueError(
                    f"arms: {name!r}: first={arm.first:g} is {arm.steps_first(self.steps)} of {self.steps} steps, so "
                    "there are no two phases; "
                    + (f"choose {least:g} to {1 - least:g}" if self.steps > 1 else "train for more steps")
                )
            if arm.kind in ("pasted", "exemplar") and (
                arm.like not in self.arms or self.arms[arm.like].kind != "edited"
            ):
                raise ValueError(f"arms: {name!r} is like {arm.like!r}, which is not an arm of kind 'edited'")
            if arm.kind == "exemplar" and self.arms[arm.like].keep_abnormal:
                raise ValueError(
                    f"arms: {name!r} is like {arm.like!r}, which keeps abnormal cells; an arm of kind exemplar edits "
                    "pasted cells alone: name an arm without keep_abnormal"
                )
        return self

    @property
    def divides(self) -> bool:
        """Whether the tuning images are taken out of the real ones, because both are from one part."""
        return (self.real.root, self.real.split) == (self.tuning.root, self.tuning.split)

    @property
    def classes(self) -> list[str]:
        """What the detectors are trained to find."""
        return [ONE_CLASS] if self.one_class else self.categories


_CRIC = Source(root="cric", scale=0.5, split="train")
_TRAINING: dict[str, Any] = {
    "window": 256, "batch_size": 4, "lr_schedule": "constant", "ema_decay": 0.995, "warmup_steps": 50,
    "checkpoint_every": 200, "preview_every": 100_000,
}  # fmt: skip
_MAKING = PipelineSettings(
    normal=GenerateSettings(size=512, sampler="dpm++2m", steps=12), min_cells=4,
    cell=EditSettings(sampler="dpm++2m", steps=12),
)  # fmt: skip
_PUBLIC = EfficiencyRecipe(
    title="Few images of a lab, public generator", generator="public", sizes=[4, 8, 16], steps=400, one_class=True,
    training=_TRAINING, real=_CRIC.model_copy(update={"split": "centre"}),
    test=_CRIC.model_copy(update={"split": "test"}), tuning=_CRIC, making=_MAKING,
)  # fmt: skip
_BESIDE: dict[str, Any] = {"share": 0.5, "augmentation": "strong"}
_FAST = dict.fromkeys(("foundation", "normal", "cell", "detector", "fast_normal", "fast_cell"), BUNDLED)
PRESETS = {
    "public": _PUBLIC,
    "few": _PUBLIC.model_copy(update={
        "sizes": [2], "seed": 2, "confirmatory": 2, "candidate": FIELDS, "models": _FAST,
        "arms": {
            REAL: Strategy(kind="none", augmentation="strong"), FIELDS: Strategy(kind="fields", ratio=24, **_BESIDE),
            EDITED: Strategy(kind="edited", ratio=8, **_BESIDE), PASTED: Strategy(kind="pasted", ratio=8, **_BESIDE),
        },
        "making": _MAKING.model_copy(update={
            "category_weights": {NILM: 4.0} | dict.fromkeys(ABNORMAL, 1.0), "min_cells": 8, "max_cells": 12,
            "precision": "bf16",
        }),
    }),
    "rounds": EfficiencyRecipe(
        title="Rounds inside the training part", generator="own", sizes=[8], steps=400, one_class=True,
        training=_TRAINING, real=_CRIC, test=_CRIC.model_copy(update={"split": "test"}), tuning=_CRIC, making=_MAKING,
    ),
    "own": EfficiencyRecipe(
        title="All images of a lab, generator of its own", generator="own", sizes=[142], confirmatory=None, steps=3000,
        one_class=False, training=_TRAINING, real=_CRIC, test=_CRIC.model_copy(update={"split": "test"}),
        tuning=_CRIC.model_copy(update={"split": "val"}), making=_MAKING,
        arms={name: arm.model_copy(update={"ratio": 1.0}) for name, arm in ARMS.items()},
    ),
}  # fmt: skip
"""The settings of docs/protocol.md; `few` is its third run. And rounds of measure and change, in which tuning images
are taken out of the real ones and nothing else is looked at; detectors stand on EfficientNet-Lite0 with ImageNet
weights."""
