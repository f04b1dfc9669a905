"""Typed recipes: every setting of a training run, with its bounds, and `--set key=value` on top."""

from collections.abc import Sequence
from pathlib import Path, PurePath
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from ..data import atomic, plain
from ..errors import UsageError

RESUMABLE = frozenset(
    {"max_steps", "log_every", "checkpoint_every", "keep_checkpoints", "preview_every", "tensorboard", "data_root"}
)
"""Settings that may change between two calls of the same run."""


MixedPrecision = Annotated[
    Literal["no", "fp16", "bf16"], BeforeValidator(lambda value: "no" if value is False else value)
]
"""Of accelerate's autocast; YAML reads a bare `no` as false."""


class Source(BaseModel):
    """One data set of a recipe: a folder with `annotations.json` (COCO) and `images/`."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    root: str = Field(description="folder, relative to --data-root")
    scale: float = Field(default=1.0, gt=0, le=8, description="factor that brings it to the working scale")
    split: str = Field(default="train", description="part of split.json to use, or 'all'")


class Recipe(BaseModel):
    """What every training run shares; each trainer adds its own fields."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    seed: int = Field(default=0, ge=0, lt=2**63)
    max_steps: int = Field(default=1000, ge=1, description="optimiser steps")
    batch_size: int = Field(default=1, ge=1, description="samples per process and micro-step")
    gradient_accumulation: int = Field(default=1, ge=1)
    learning_rate: float = Field(default=1e-4, gt=0)
    lr_schedule: Literal["constant", "cosine"] = "constant"
    warmup_steps: int = Field(default=0, ge=0)
    optimizer: Literal["adam", "adamw", "sgd"] = "adamw"
    weight_decay: float = Field(default=1e-2, ge=0)
    max_grad_norm: float = Field(default=1.0, gt=0)
    mixed_precision: MixedPrecision = "no"
    ema_decay: float | None = Field(default=None, gt=0, lt=1)
    log_every: int = Field(default=10, ge=1)
    checkpoint_every: int = Field(default=500, ge=1)
    keep_checkpoints: int = Field(default=2, ge=1)
    preview_every: int = Field(default=500, ge=1)
    validate_every: int = Field(
        default=0, ge=0, description="steps between scores on held-out data; 0: no best is kept"
    )
    tensorboard: bool = Field(default=False, description="losses and scores for TensorBoard too, in RUN/tensorboard")
    patience: int | None = Field(default=None, ge=1, description="stop after so many scores in a row without a better")


R = TypeVar("R", bound=BaseModel)


def override(recipe: R, settings: Sequence[str]) -> R:
    """Return `recipe` with `key=value` settings applied (values are YAML; dots reach nested fields).

    Raises UsageError naming the setting that does not exist or does not fit.
    """
    values = recipe.model_dump()
    for setting in settings:
        key, separator, text = setting.partition("=")
        if not separator:
            raise UsageError(f"--set {setting}: expected key=value")
        target: Any = values
        *parents, last = key.strip().split(".")
        for parent in parents:
            target = target.get(parent) if isinstance(target, dict) else None
        if not isinstance(target, dict) or last not in target:
            raise UsageError(f"--set {key}: no such setting; there are {', '.join(sorted(values))}")
        try:
            target[last] = plain.from_yaml(text)
        except ValueError as error:
            raise UsageError(f"--set {setting[:80]}: the value is not YAML ({str(error)[:120]})") from None
    return validated(type(recipe), values, "--set")


def validated(kind: type[R], values: Any, source: str) -> R:
    """Return `values` as a `kind`, or raise UsageError naming `source`, the field and what it needs."""
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise UsageError(f"{source}: {field[:80]}: {first['msg']} (got {repr(first.get('input'))[:120]})") from None


def dump(recipe: BaseModel) -> str:
    """Return `recipe` as YAML, one setting a line, in the order of its definition."""
    return yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def read(kind: type[R], path: Path) -> R:
    """Return the recipe in the file at `path`; raise UsageError for what is none."""
    try:
        values = plain.from_yaml(plain.text(path))
    except (OSError, ValueError) as error:
        raise UsageError(f"{path}: not a recipe ({str(error)[:120]})") from None
    return validated(kind, values, str(path))


def portable(value: Any) -> Any:
    """Return the plain `value` with the absolute paths in it cut to their last part: where they lay is nobody's."""
    if isinstance(value, dict):
        return {key: portable(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [portable(inner) for inner in value]
    return PurePath(value).name if isinstance(value, str) and PurePath(value).is_absolute() else value


def pin(recipe: R, path: Path, begun: bool = True) -> R:
    """Write `recipe` to `path`, or, where one is there and the run has `begun`, make sure that this is the same run.

    Absolute paths are neither written nor compared but by their last part. Raises UsageError naming the first setting
    that differs, except those of `RESUMABLE`.
    """
    wanted = validated(type(recipe), portable(recipe.model_dump()), "recipe")
    if begun and path.exists():
        old = portable(read(type(recipe), path).model_dump())
        bound = {"max_steps"} if old.get("lr_schedule") == "cosine" else set()
        for key, value in portable(wanted.model_dump()).items():
            if key not in RESUMABLE - bound and old[key] != value:
                raise UsageError(
                    f"{path}: this run was started with {key}={old[key]!r}, now {value!r}; "
                    "use another folder or the old value"
                )
    atomic.write_text(path, dump(wanted))
    return recipe
