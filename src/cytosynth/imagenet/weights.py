"""Weights of feature networks: safetensors, or the published .pth release that is known by its hash."""

import hashlib
import io
from pathlib import Path

import torch
from torch import Tensor, nn

from ..errors import UserError
from ..io import tensors
from ..io.tensors import CONVERT, SUFFIX


def read(path: Path, known: str) -> dict[str, Tensor]:
    """Return the tensors in the file at `path`.

    Args:
        path: a `.safetensors` file, or a `.pth` one whose SHA-256 is `known`; that one is read by PyTorch's
            unpickler for weights, which runs no code of the file.
        known: hexadecimal SHA-256 of the original release.

    Raises UserError for any other pickle, and for a file that is missing or damaged.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file; weights are one file, .safetensors or the release's .pth")
    if path.suffix == SUFFIX:
        return tensors.read(path)
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != known:
        raise UserError(
            f"{path}: a pickle can run code when it is opened, and this is not the known release "
            f"(SHA-256 {known[:16]}...); {CONVERT}"
        )
    state: dict[str, Tensor] = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    return state


def fill(network: nn.Module, state: dict[str, Tensor], path: Path) -> None:
    """Put `state` into `network`; raise UserError naming `path` and what does not fit."""
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise misfit(error, path) from None


def misfit(error: RuntimeError, path: Path) -> UserError:
    """Return what to raise when PyTorch says that the weights at `path` are another network's."""
    lines = [line.strip() for line in str(error).splitlines()[1:]] or [str(error)]
    return UserError(f"{path}: not weights of this network ({lines[0][:160]})")
