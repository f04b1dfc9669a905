"""Checkpoints: safetensors and JSON only, complete or absent, verified by hash when read."""

import hashlib
import json
import shutil
from collections.abc import Container, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from ..errors import UsageError
from ..io import atomic, plain

STATE = "state.json"
UNSIGNED = {"step", "sha256", "extra"}
"""`state.json` of the first versions, which has no hash of itself. Their runs can be continued."""
PARTS = ("weights", "optimizer", "ema")
"""The files of tensors."""


@dataclass
class Checkpoint:
    """The whole state of a run after `step` optimiser steps."""

    step: int
    weights: dict[str, Tensor]
    optimizer: dict[str, Tensor]
    ema: dict[str, Tensor]
    extra: dict[str, Any]


def save(folder: Path, checkpoint: Checkpoint, keep: int) -> Path:
    """Write `checkpoint` under `folder`, then `prune`; return its folder."""
    path = folder / _name(checkpoint.step)
    with atomic.folder(path) as part:
        for name in PARTS:
            tensors: dict[str, Tensor] = getattr(checkpoint, name)
            save_file({k: v.detach().cpu().contiguous() for k, v in tensors.items()}, part / f"{name}.safetensors")
        hashes = {file.name: atomic.sha256(file) for file in sorted(part.iterdir())}
        state = {"step": checkpoint.step, "sha256": hashes, "extra": checkpoint.extra}
        atomic.write_json(part / STATE, {"of_state": _digest(state)} | state)
    prune(folder, checkpoint.step, keep)
    return path


def prune(folder: Path, step: int, keep: int) -> None:
    """Remove the checkpoints under `folder` except the newest `keep` up to the current `step`.

    Later ones are damaged, since the run did not continue from them, and are removed too.
    """
    kept = [path for path in found(folder) if path.name <= _name(step)][-keep:]
    for other in (set(found(folder)) - set(kept)) | set(folder.glob(".step-*.old")):
        shutil.rmtree(other)


def _name(step: int) -> str:
    return f"step-{step:08d}"


def found(folder: Path) -> list[Path]:
    """Return the checkpoint folders under `folder`, oldest first."""
    return sorted(path for path in folder.glob("step-*") if path.is_dir())


def newest(folder: Path) -> tuple[Checkpoint | None, list[str]]:
    """Return the newest intact checkpoint, and a line for each newer damaged one."""
    complaints: list[str] = []
    for path in reversed(found(folder)):
        try:
            return _read(path), complaints
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, SafetensorError) as error:
            reason = str(error) if isinstance(error, Damaged) else f"unreadable ({type(error).__name__})"
            complaints.append(f"{path}: {reason}; using the previous one")
    return None, complaints


class Damaged(ValueError):
    """A checkpoint with a damaged file."""


def _read(path: Path) -> Checkpoint:
    """Return the checkpoint in the folder `path`; raise Damaged if it is not as it was written."""
    files = [f"{name}.safetensors" for name in PARTS]
    if not all((path / name).is_file() for name in (STATE, *files)):
        raise Damaged(f"{STATE}, {', '.join(files)}: not all of them are files")
    state = plain.from_json(plain.text(path / STATE))
    if state.keys() != UNSIGNED and state.pop("of_state") != _digest(state):
        raise Damaged(f"{STATE} does not match its hash")
    if type(state["step"]) is not int or not isinstance(state["extra"], dict) or state["sha256"].keys() != set(files):
        raise Damaged(f"{STATE} is not that of a checkpoint")
    for name in files:
        if atomic.sha256(path / name) != state["sha256"][name]:
            raise Damaged(f"{name} does not match its hash")
    loaded = {name: load_file(path / f"{name}.safetensors") for name in PARTS}
    return Checkpoint(step=state["step"], extra=state["extra"], **loaded)


def _digest(state: Mapping[str, Any]) -> str:
    """Return the hash of all of `state.json` except this field."""
    return hashlib.sha256(json.dumps(state, sort_keys=True).encode()).hexdigest()


def fingerprint(module: torch.nn.Module, trained: Container[str]) -> str:
    """Return 16 hexadecimal digits that identify the weights of `module`, except those named in `trained`."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        if name not in trained:
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()[:16]


def same_frozen(saved: Checkpoint, now: str, run: Path) -> None:
    """Raise UsageError when `run` was started with other frozen weights than those whose fingerprint is `now`."""
    if saved.extra.get("frozen", now) != now:
        raise UsageError(
            f"{run}: was started with other frozen weights (foundation, encoder, backbone); use another folder"
        )


def flatten_optimizer(optimizer: torch.optim.Optimizer, prefix: str = "") -> dict[str, Tensor]:
    """Return the optimiser's state as tensors named `<prefix><parameter index>.<field>`."""
    state = optimizer.state_dict()["state"]
    return {
        f"{prefix}{index}.{field}": value if isinstance(value, Tensor) else torch.tensor(value)
        for index, fields in state.items()
        for field, value in fields.items()
        if value is not None
    }


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor], prefix: str = "") -> None:
    """Put the state of `flatten_optimizer` with that `prefix` back into `optimizer`.

    Each tensor gets the memory format of its parameter, which fused optimisers rely on.
    """
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        index, _, field = key.removeprefix(prefix).partition(".")
        if key.startswith(prefix) and index.isdecimal():
            like = parameters[int(index)]
            held = torch.empty_like(like, dtype=value.dtype).copy_(value) if value.shape == like.shape else value
            state.setdefault(int(index), {})[field] = held
    whole = optimizer.state_dict()
    whole["state"] = state
    optimizer.load_state_dict(whole)
