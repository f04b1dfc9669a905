"""Checks of an untrusted configuration: bounds before its network is built, a small run afterwards."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import UserError, of_the_machine
from . import samplers, sampling
from .model import Foundation

LAYERS = 100
"""Maximum number of layers of a block or an encoder; Stable Diffusion 1.5 has 12."""
LARGEST = 100_000
"""Maximum of all other numbers; CLIP's vocabulary has 49,408 words, and a million channels would need terabytes."""
SIDES = 3
"""Maximum number of sides of a size."""
SIDE = 64
"""Side of the test image, pixels: the smallest whose latents can be halved three times."""


def bounded(config: Mapping[str, Any], where: str) -> None:
    """Raise UserError if `config` has more layers, channels or noise steps than can be built."""
    for key, value in config.items():
        limit = LAYERS if "layers" in key else LARGEST
        most = max(_numbers(value), default=0)
        if most > limit:
            raise UserError(f"{where}: {key} is {str(most)[:20]}; at most {limit} is expected")
        if key.endswith("_size") and isinstance(value, list) and len(value) > SIDES:  # they are multiplied
            raise UserError(f"{where}: {key} has {len(value)} sides; at most {SIDES} are expected")


def _numbers(value: Any) -> Iterable[float]:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple):
        for one in value:
            yield from _numbers(one)
    elif isinstance(value, int | float):
        yield value


@torch.no_grad()
def autoencode(model: Foundation, where: str) -> None:
    """Encode a text and a grey image and decode it again; raise UserError if that fails or changes its size."""
    try:
        model.encode_text([""])
    except Exception as error:  # noqa: BLE001 - which of many, is for the damage to say
        raise _refused(f"{where}: text encoder or tokenizer", error) from None
    grey = np.full((1, SIDE, SIDE, 3), 128, dtype=np.uint8)
    try:
        latents = model.encode_pixels(grey)
        again = model.decode_latents(latents)
    except Exception as error:  # noqa: BLE001
        raise _refused(f"{where}: vae", error) from None
    expected = (model.channels, SIDE // model.factor, SIDE // model.factor)
    if latents.shape[1:] != expected or again.shape != grey.shape:
        raise UserError(
            f"{where}: vae: {SIDE}x{SIDE} pixels become latents of {tuple(latents.shape[1:])}; its configuration says "
            f"{expected}"
        )


@torch.no_grad()
def denoise(model: Foundation, where: str, grounding: dict[str, Tensor] | None = None) -> None:
    """Take one denoising step for SIDE pixels a side; raise UserError if that fails or gives NaN."""
    side, device = SIDE // model.factor, model.device
    extra = model.unet.config.in_channels - model.channels
    try:
        text = model.encode_text([""])
        noise = sampling.noise((1, model.channels, side, side), 0).to(device)
        channels = torch.zeros(1, extra, side, side, device=device) if extra else None
        one = sampling.guided(model.unet, text, text, guidance_scale=1.0, extra_channels=channels, grounding=grounding)
        sampling.sample(one, samplers.build("ddim", model.scheduler), noise, steps=1)
    except Exception as error:  # noqa: BLE001
        raise _refused(f"{where}: unet or scheduler", error) from None


def _refused(where: str, error: Exception) -> UserError:
    if of_the_machine(error):
        raise error
    return UserError(f"{where}: {' '.join(str(error).split())[:200]}")
