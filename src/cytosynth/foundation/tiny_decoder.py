"""A tiny decoder (TAESD, https://github.com/madebyollin/taesd) instead of an autoencoder's own.

It decodes the same latents in a fraction of the time and memory, and loses fine structure.
"""

import math
from pathlib import Path

import torch
from diffusers import AutoencoderTiny
from huggingface_hub import snapshot_download

from ..errors import EnvironmentProblem, UserError, of_the_machine
from ..io.tensors import weights_digest
from . import hub, load
from .model import Foundation

SIDE = 8
"""Side of the test latents."""


def attach(model: Foundation, source: str) -> str:
    """Use the diffusers `AutoencoderTiny` in `source`, a folder or a hub id, to decode the latents of `model`.

    Returns the digest of its decoder. Raises UserError where there is no such network or it is for other latents,
    EnvironmentProblem where the hub cannot be reached.
    """
    tiny = load.part(AutoencoderTiny, Path(source) if Path(source).is_dir() else _fetched(source))
    scale = tiny.config.scaling_factor
    if isinstance(scale, bool) or not isinstance(scale, int | float) or not 0 < abs(scale) < math.inf:
        raise UserError(f"{source}: scaling_factor {scale!r}; a number other than 0 is expected")
    try:
        with torch.no_grad():
            decoded = tiny.decode(torch.zeros(1, model.channels, SIDE, SIDE)).sample
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        if of_the_machine(error):
            raise
        said = " ".join(str(error).split())[:120]
        raise UserError(f"{source}: does not decode latents of {model.channels} channels ({said})") from None
    expected = (3, SIDE * model.factor, SIDE * model.factor)
    if decoded.shape[1:] != expected:
        raise UserError(
            f"{source}: {SIDE}x{SIDE} latents become {tuple(decoded.shape[1:])}; those of {model.name} are to become "
            f"{expected}"
        )
    model.tiny_decoder = tiny.requires_grad_(False).eval()
    return weights_digest(tiny.decoder, beside=scale)


def _fetched(source: str) -> Path:
    """Return the folder of the hub's cache that holds the repository `source`, fetched where it is not there."""
    if source.count("/") != 1 or source.startswith((".", "/")):
        raise UserError(f"{source}: no such folder, and not a hub id (owner/name)")
    wanted = ["config.json", "*.safetensors"]
    try:
        return Path(snapshot_download(source, allow_patterns=wanted, local_files_only=not hub.reachable()))
    except (OSError, ValueError) as error:
        said = " ".join(str(error).split())[:160]
        raise EnvironmentProblem(f"{source}: not in the hub's cache, nor can it be fetched ({said})") from None
