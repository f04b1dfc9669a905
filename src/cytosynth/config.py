"""Typed settings: `--set key=value` on top of a preset, reading and writing YAML, and the fixed settings of a run."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import yaml
from pydantic import BaseModel, ValidationError, model_validator

from .errors import UsageError
from .io import atomic, plain
from .io.plain import portable

RESUMABLE = frozenset(
    {"max_steps", "log_every", "checkpoint_every", "keep_checkpoints", "preview_every", "tensorboard", "data_root"}
)
"""Settings that may change between two calls of the same run."""


R = TypeVar("R", bound=BaseModel)


class Settings(BaseModel):
    """Settings whose keys were renamed: files with the old keys are still read, `--set` names the new one."""

    RENAMED: ClassVar[Mapping[str, str]] = {}

    @model_validator(mode="before")
    @classmethod
    def _by_new_names(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        return {cls.RENAMED.get(key, key): value for key, value in values.items()}


def assignments(settings: Mapping[str, Any]) -> list[str]:
    """Return `settings` in the syntax of `--set`."""
    return [f"{key}={yaml.safe_dump(value, default_flow_style=True).strip()}" for key, value in settings.items()]


def override(recipe: R, settings: Sequence[str]) -> R:
    """Return `recipe` with `key=value` settings applied (values are YAML; dots reach nested fields).

    Raises UsageError naming the setting that does not exist or does not fit.
    """
    values = recipe.model_dump()
    for setting in settings:
        key, separator, text = setting.partition("=")
        if not separator:
            raise UsageError(f"--set {setting}: expected key=value")
        new = getattr(type(recipe), "RENAMED", {}).get(key.strip())
        if new:
            raise UsageError(f"--set {key}: this setting is now called {new}")
        target: Any = values
        *parents, last = key.strip().split(".")
        for number, part in enumerate([*parents, last]):
            if not isinstance(target, dict) or part not in target:
                above = ".".join(parents[:number])
                known = (
                    f"choose one of {', '.join(sorted(target))}" if isinstance(target, dict) else "it is a single value"
                )
                raise UsageError(f"--set {key}: unknown setting{f' of {above}' if above else ''}; {known}")
            if number < len(parents):
                target = target[part]
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
    """Return `recipe` as YAML, one setting per line, in the order of its definition."""
    return yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def read(kind: type[R], path: Path) -> R:
    """Return the recipe in the file at `path`; raise UsageError for what is none."""
    try:
        values = plain.from_yaml(plain.text(path))
    except (OSError, ValueError) as error:
        raise UsageError(f"{path}: not a valid recipe ({str(error)[:120]})") from None
    return validated(kind, values, str(path))


def _first_difference(old: BaseModel | Mapping[str, Any], new: BaseModel | Mapping[str, Any]) -> str:
    before, after = (one.model_dump() if isinstance(one, BaseModel) else one for one in (old, new))
    free = RESUMABLE - ({"max_steps"} if before.get("lr_schedule") == "cosine" else set())
    changed = (name for name, value in after.items() if name not in free and before.get(name) != value)
    return next((f"{name}={before.get(name)!r}, now {after[name]!r}" for name in changed), "")


def pin(
    wanted: BaseModel | Mapping[str, Any],
    file: Path,
    differs: Callable[[Any, Any], str] = _first_difference,
    begun: bool = True,
) -> None:
    """Write the settings that a run may not change to `file`; if it exists and the run has `begun`, check them against
    it.

    Of absolute paths only the last part is written and compared.

    Args:
        wanted: settings, written as YAML, or plain values, written as JSON.
        file: in the folder of the run.
        differs: describes the difference of the second of two: default, the first value that differs, except those of
            `RESUMABLE`. begun: whether the run has results.

    Raises UsageError if something differs.
    """
    new = _portable(wanted) if isinstance(wanted, BaseModel) else wanted
    if begun and file.exists():
        old = _portable(read(type(wanted), file)) if isinstance(wanted, BaseModel) else plain.load(file)
        if said := differs(old, new):
            raise UsageError(f"{file}: this run was started with {said}; use another folder")
    if isinstance(new, BaseModel):
        atomic.write_text(file, dump(new))  # settings that may change did
    elif not (begun and file.exists()):
        atomic.write_json(file, dict(new))


def _portable(settings: R) -> R:
    return validated(type(settings), portable(settings.model_dump()), "recipe")
