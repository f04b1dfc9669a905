"""Latents of training images, encoded once in all eight flips and rotations, and cached on disk."""

import hashlib
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import torch
from accelerate import PartialState
from safetensors.torch import load_file, save
from torch import Tensor

from ..data import augment
from ..data.image_files import Pixels
from ..io import atomic
from ..io.progress import meter
from ..io.tensors import weights_digest
from .model import Foundation


class Shown(Protocol):
    """Anything with pixels."""

    @property
    def pixels(self) -> Pixels:
        """Its (height, width, 3) RGB pixels."""


def encoding_dtype(mixed_precision: str) -> torch.dtype:
    """Return the precision in which a training with this `mixed_precision` encodes its images."""
    return torch.bfloat16 if mixed_precision == "bf16" else torch.float32


@torch.no_grad()
def cached(
    model: Foundation, images: Sequence[Shown], folder: Path, turns: Sequence[int], dtype: torch.dtype = torch.float32
) -> list[list[Tensor]]:
    """Return, for each image and each D4 turn of `turns`, its (C, h/factor, w/factor) scaled latents, float16.

    The encoder works in `dtype`; bfloat16 with channels last takes a fifth of the time on a CPU with AMX.

    Sides are cut to multiples of the factor after turning. They are stored under `folder`, named by the content of the
    images and of the encoder, one file per image, so that a killed run continues. Several processes share the work.
    """
    state = PartialState()
    model.vae.to(state.device)
    narrow = model
    if dtype != torch.float32:
        vae = deepcopy(model.vae).to(dtype).to(memory_format=torch.channels_last)
        narrow = replace(model, vae=vae)
    key = hashlib.sha256(weights_digest(model.vae.encoder, model.vae.quant_conv).encode())
    if narrow is not model:
        key.update(str(dtype).encode())
    paths = []
    for image in images:
        name, pixels = key.copy(), image.pixels
        name.update(str((pixels.shape, list(turns))).encode() + pixels.tobytes())
        paths.append(folder / f"{name.hexdigest()[:24]}.safetensors")
    own = [i for i, path in enumerate(paths) if i % state.num_processes == state.process_index and not path.exists()]
    with meter("encoding images", len(own)) as bar:
        for index in own:
            pixels = images[index].pixels
            tensors = {str(turn): _encode(narrow, pixels, turn) for turn in turns}
            atomic.write_bytes(paths[index], save(tensors))
            bar.advance()
    state.wait_for_everyone()
    loaded = [load_file(path) for path in paths]
    return [[tensors[str(turn)] for turn in turns] for tensors in loaded]


def _encode(model: Foundation, pixels: Pixels, turn: int) -> Tensor:
    turned = augment.d4(pixels, turn)
    height, width = (side // model.factor * model.factor for side in turned.shape[:2])
    return model.encode_pixels(turned[None, :height, :width])[0].half().contiguous().cpu()
