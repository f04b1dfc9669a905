"""Recipes of the cell classifier: the paper's ResNet-50 (Section IV-B), and EfficientNet-Lite on ImageNet features."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from ..bethesda import CATEGORIES
from ..data.sources import Source
from ..registry import CLASSIFIERS
from ..training.recipe import Recipe


class ClassifierRecipe(Recipe):
    """Settings of `train features`: a network fitted to cell classes.

    The paper names ResNet-50 and that it was trained on cervical cytopathology, no more; the settings are ours.
    """

    kind: Literal["features"] = "features"
    architecture: Annotated[str, AfterValidator(CLASSIFIERS.known)] = "resnet50"
    start: str | None = Field(
        default=None,
        description="initial weights: 'imagenet' for an EfficientNet, or a safetensors file; none: random",
    )
    categories: list[str] = Field(
        default=list(CATEGORIES), min_length=2, description="classes; other cells are left out"
    )
    data: list[Source] = [Source(root="abnormal", split="train")]
    size: int = Field(default=224, ge=32, description="side of the crops, pixels")
    enlarged: int | None = Field(default=None, ge=32, description="side to which crops are enlarged for the network")
    context: float = Field(
        default=1.5, ge=1, le=8, description="side of the crop around a cell relative to the cell's longer side"
    )
    views: int = Field(
        default=1, ge=1, le=8, description="number of flips and rotations over which probabilities are averaged"
    )
    folds: int = Field(
        default=1, ge=1, le=20,
        description="cross-fitting: number of folds of images; each classifier is trained on all but one",
    )  # fmt: skip
    fold: int | None = Field(default=None, ge=0, description="train only the classifier that leaves out this fold")
    even_images: bool = Field(
        default=False, description="within a class, sample an image first and then one of its cells"
    )
    turns: bool = Field(default=True, description="train on all eight flips and rotations")
    shift: int = Field(default=0, ge=0, description="maximum shift of a crop off its cell, pixels")
    jitter: float = Field(default=0.0, ge=0, le=0.5, description="random change of brightness and of each stain")
    blur: float = Field(default=0.0, ge=0, le=1, description="share of samples that are blurred")
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)

    @model_validator(mode="after")
    def _fold_exists(self) -> "ClassifierRecipe":
        if self.fold is not None and self.fold >= self.folds:
            raise ValueError(f"fold={self.fold}: must be from 0 to {self.folds - 1} (folds={self.folds})")
        return self


_PAPER = ClassifierRecipe(
    shift=16, jitter=0.1, blur=0.2, batch_size=64, optimizer="sgd", learning_rate=0.05, weight_decay=1e-4,
    lr_schedule="cosine", warmup_steps=500, max_steps=20_000, max_grad_norm=5.0, checkpoint_every=1000,
    preview_every=1000,
)  # fmt: skip
_BUNDLED = ClassifierRecipe(
    data=[Source(root="cric", scale=0.5)], size=64, shift=6, jitter=0.1, blur=0.3, label_smoothing=0.05, batch_size=32,
    optimizer="adamw", learning_rate=5e-4, weight_decay=5e-2, lr_schedule="cosine", warmup_steps=30, max_steps=600,
    max_grad_norm=5.0, checkpoint_every=100, preview_every=200,
)  # fmt: skip
PRESETS = {"paper": _PAPER, "paper-24gb": _PAPER, "bundled": _BUNDLED}


def preset(name: str, architecture: str = "resnet50") -> ClassifierRecipe:
    """Return the recipe of `architecture` in the preset `name`; raise UsageError for one that is not registered."""
    changes = {"architecture": CLASSIFIERS.check(architecture), **CLASSIFIERS.settings(architecture, name)}
    return PRESETS[name].model_copy(update=changes)
