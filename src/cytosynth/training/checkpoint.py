"""Checkpoints: safetensors and JSON only, complete or absent, verified by hash when read."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from ..data import atomic

STATE = "state.json"


@dataclass
class Checkpoint:
    """The whole state of a run after `step` optimiser steps."""

    step: int
    weights: dict[str, Tensor]
    optimizer: dict[str, Tensor]
    ema: dict[str, Tensor]
    extra: dict[str, Any]


def save(folder: Path, checkpoint: Checkpoint, keep: int) -> Path:
    """Write `checkpoint` under `folder`, then remove all but the newest `keep`; return its folder."""
    path = folder / f"step-{checkpoint.step:08d}"
    with atomic.folder(path) as part:
        parts = {"weights": checkpoint.weights, "optimizer": checkpoint.optimizer, "ema": checkpoint.ema}
        for name, tensors in parts.items():
            save_file({k: v.detach().cpu().contiguous() for k, v in tensors.items()}, part / f"{name}.safetensors")
        hashes = {file.name: atomic.sha256(file) for file in sorted(part.iterdir())}
        atomic.write_json(part / STATE, {"step": checkpoint.step, "sha256": hashes, "extra": checkpoint.extra})
    for old in found(folder)[:-keep]:
        shutil.rmtree(old)
    return path


def found(folder: Path) -> list[Path]:
    """Return the checkpoint folders under `folder`, oldest first."""
    return sorted(path for path in folder.glob("step-*") if path.is_dir())


def newest(folder: Path) -> tuple[Checkpoint | None, list[str]]:
    """Return the newest checkpoint that is whole, and a line for each newer one that is not."""
    complaints = []
    for path in reversed(found(folder)):
        problem = _damage(path)
        if problem:
            complaints.append(f"{path}: {problem}; using the one before")
            continue
        state = json.loads((path / STATE).read_text())
        loaded = {name: load_file(path / f"{name}.safetensors") for name in ("weights", "optimizer", "ema")}
        return Checkpoint(step=state["step"], extra=state["extra"], **loaded), complaints
    return None, complaints


def _damage(path: Path) -> str | None:
    try:
        hashes: Mapping[str, str] = json.loads((path / STATE).read_text())["sha256"]
        for name, expected in hashes.items():
            if atomic.sha256(path / name) != expected:
                return f"{name} does not match its hash"
    except (OSError, ValueError, KeyError, TypeError) as error:
        return f"unreadable ({type(error).__name__})"
    return None


def flatten_optimizer(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return the optimiser's state as tensors named `<parameter index>.<field>`."""
    state = optimizer.state_dict()["state"]
    return {
        f"{index}.{field}": value if isinstance(value, Tensor) else torch.tensor(value)
        for index, fields in state.items()
        for field, value in fields.items()
        if value is not None
    }


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Put the state of `flatten_optimizer` back into `optimizer`."""
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        index, field = key.split(".", 1)
        state.setdefault(int(index), {})[field] = value
    whole = optimizer.state_dict()
    whole["state"] = state
    optimizer.load_state_dict(whole)
