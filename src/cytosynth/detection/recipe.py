"""Recipes of the cell detectors (Section IV-C)."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, field_validator

from ..bethesda import CATEGORIES, NILM
from ..data.sources import Source
from ..registry import BACKBONES, DETECTORS
from ..training.recipe import Recipe

NO_WEIGHTS = "none"
TORCHVISION = "torchvision"


class DetectorRecipe(Recipe):
    """Settings of a detector; the defaults are the paper's Faster R-CNN (Section IV-C)."""

    kind: Literal["detector"] = "detector"
    architecture: str = "faster-rcnn"
    backbone: Annotated[str, AfterValidator(BACKBONES.known)] = "resnet50"
    weights: str = Field(
        default=NO_WEIGHTS,
        description="initial weights: of ResNet-50 on ImageNet ('torchvision', fetched, or a safetensors file; for "
        "DINO also one of its authors' R50 4-scale checkpoint) or of EfficientNet-Lite ('imagenet'); another detector "
        "('bundled', or a folder), of which all layers are used that fit; 'none'",
    )
    categories: list[str] = [NILM]
    data: list[Source] = [Source(root="fields", split="train")]
    synthetic: list[Source] = Field(default=[], description="synthetic images that are trained on beside `data`")
    synthetic_share: float | None = Field(
        default=None, ge=0, le=1, description="share of the windows that are of synthetic images; none: as of images"
    )
    synthetic_weight: float = Field(
        default=1.0, gt=0, le=10, description="of a synthetic image in the loss, that of a real one being 1"
    )
    epochs: int | None = Field(
        default=None, ge=1, description="passes over the data; at most max_steps optimiser steps"
    )
    window: int | None = Field(default=None, ge=64, description="side of random training windows; none: whole images")
    turns: bool = Field(default=False, description="train on all eight flips and rotations")
    jitter: float = Field(default=0.0, ge=0, le=0.5, description="random change of brightness and of each stain")
    blur: float = Field(default=0.0, ge=0, le=1, description="share of samples that are blurred")
    references: str | None = Field(
        default=None,
        description="Comparison Detector: folder, relative to --data-root, with a folder of reference cells per class; "
        "none: cells of the training data",
    )
    shots: int = Field(default=3, ge=1, le=50, description="Comparison Detector: reference cells per class")

    @field_validator("architecture")
    @classmethod
    def _known(cls, name: str) -> str:
        if name not in DETECTORS:
            raise ValueError(f"choose one of {', '.join(DETECTORS)}")
        return name


# Section IV-C: batch 2, 20 epochs, SGD at 2e-4 (Faster R-CNN) and 1e-3 (RetinaNet), AdamW at 1e-4 (DINO). What it
# does not say is torchvision's: momentum 0.9, weight decay 1e-4, a backbone that begins from ImageNet, gradients as
# they are, which no norm reaches that is cut at 1e9.
_PAPER = DetectorRecipe(
    batch_size=2, epochs=20, max_steps=1_000_000, optimizer="sgd", weight_decay=1e-4, max_grad_norm=1e9,
    weights=TORCHVISION, checkpoint_every=1000, preview_every=1000,
)  # fmt: skip
_SHORT = DetectorRecipe(
    backbone="efficientnet-lite0", weights="imagenet", data=[Source(root="cric", scale=0.5)], window=256, turns=True,
    jitter=0.15, blur=0.5, batch_size=4, optimizer="adamw", learning_rate=1e-3, weight_decay=1e-2, warmup_steps=50,
    max_steps=800, lr_schedule="cosine", max_grad_norm=5.0, ema_decay=0.99, checkpoint_every=100, preview_every=600,
)  # fmt: skip
_BUNDLED = _SHORT.model_copy(
    update={"categories": list(CATEGORIES), "max_steps": 6000, "ema_decay": 0.998, "validate_every": 600}
)
_PAPER_24GB = _PAPER.model_copy(update={"validate_every": 1000})
PRESETS = {"paper": _PAPER, "paper-24gb": _PAPER_24GB, "bundled": _BUNDLED}
"""What the architectures share; what each sets differently is in `registry.DETECTORS`.

`bundled` makes the bundled detector: NILM and the four abnormal categories, the best weights by held-out images.
"""
COMPARED = PRESETS | {"bundled": _SHORT}
"""From these begin trainings that are compared with each other: short ones on a CPU, whose averages are shorter too."""


def preset(name: str, architecture: str = "faster-rcnn") -> DetectorRecipe:
    """Return the recipe of `architecture` in the preset `name`; raise UsageError if it is not registered."""
    return _of(PRESETS[name], name, architecture)


def _of(shared: DetectorRecipe, name: str, architecture: str) -> DetectorRecipe:
    changes = {"architecture": DETECTORS.check(architecture), **DETECTORS.settings(architecture, name)}
    return shared.model_copy(update=changes)


def compared(
    name: str,
    architecture: str,
    changes: Mapping[str, Any],
    *,
    categories: Sequence[str],
    data: Sequence[Source],
    seed: int,
    steps: int,
) -> DetectorRecipe:
    """Return the recipe of one of several trainings that are compared: of fixed length, nothing chosen on the way.

    Args:
        name: of the preset in `COMPARED`.
        architecture: a name of `registry.DETECTORS`.
        changes: settings instead of the recipe's.
        categories: what is detected.
        data: what is trained on.
        seed: of the training.
        steps: its length.
    """
    fixed = {
        "categories": list(categories), "data": list(data), "seed": seed, "epochs": None, "max_steps": steps,
        "validate_every": 0,
    }  # fmt: skip
    base = _of(COMPARED[name], name, architecture).model_dump()
    return DetectorRecipe.model_validate(base | dict(changes) | fixed)
