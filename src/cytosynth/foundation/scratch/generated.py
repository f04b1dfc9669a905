"""Latents that stage 1 generated, on which a decoder is trained beside images: they are smoother than encoded ones.

There is no original that their images could be compared with. A discriminator asks for the texture of real images; the
decoder as it was says, at an eighth of the resolution, what they show.
"""

import hashlib
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from torch import Tensor

from ...data.image_files import Pixels
from ...errors import UserError
from ...io import tensors
from ..pixels import to_pixels
from . import sharpness

KEY = "latents"
"""Name of the tensor in a file of latents."""
COARSE = 8
"""Pixels of which the mean is to stay."""


def read(path: Path, vae: AutoencoderKL) -> Tensor:
    """Return the (n, C, h, w) scaled latents in the safetensors file `path`, in float32.

    Raises UserError if they are missing, not finite, or not latents of `vae`.
    """
    found = tensors.read(path).get(KEY)
    channels = vae.config.latent_channels
    if found is None or found.ndim != 4 or found.shape[1] != channels or not len(found):
        shape = "none" if found is None else str(tuple(found.shape))
        raise UserError(f"{path}: expected a tensor {KEY!r} of (n, {channels}, h, w) latents, got {shape}")
    if not found.isfinite().all():
        raise UserError(f"{path}: {KEY!r} contains NaN or infinity; generate the latents again")
    return found.float()


def digest(latents: Tensor) -> str:
    """Return 16 hexadecimal digits of the values of `latents`."""
    return hashlib.sha256(latents.contiguous().numpy().tobytes()).hexdigest()[:16]


class Generated:
    """Crops of generated latents, and their images as the decoder first showed them."""

    def __init__(self, latents: Tensor, vae: AutoencoderKL) -> None:
        """Keep `latents` (n, C, h, w), scaled, and a copy of the decoder of `vae` as it is."""
        self.latents, self.first = latents, deepcopy(vae).requires_grad_(False).eval()

    def batch(self, rng: np.random.Generator, count: int, side: int) -> Tensor:
        """Return `count` crops (count, C, side, side) of latents, flipped and turned at random.

        Raises UserError if the latents are smaller.
        """
        height, width = self.latents.shape[2:]
        if min(height, width) < side:
            raise UserError(f"generated latents of {height}x{width} are smaller than the crops of {side}x{side}")
        crops = []
        for index in rng.integers(len(self.latents), size=count):
            y, x = int(rng.integers(height - side + 1)), int(rng.integers(width - side + 1))
            crop, turn = self.latents[index, :, y : y + side, x : x + side], int(rng.integers(8))
            crops.append(torch.rot90(crop.flip(2) if turn >= 4 else crop, turn % 4, (1, 2)))
        return torch.stack(crops)

    def place(self, device: torch.device) -> None:
        """Move the first decoder to `device`."""
        self.first.to(device)

    def moved(self, latents: Tensor, images: Tensor) -> Tensor:
        """Return the mean absolute difference, at a coarse scale, of (n, 3, h, w) `images` from the first ones."""
        with torch.no_grad():
            before = decode(self.first, latents)
        return (F.avg_pool2d(images, COARSE) - F.avg_pool2d(before, COARSE)).abs().mean()

    @torch.no_grad()
    def distance(self, vae: AutoencoderKL, real: Sequence[Pixels]) -> float:
        """Return by how many octaves the power of generated images is off that of `real` ones, mean over bands.

        As many images of each, and sides alike.
        """
        side = min(min(image.shape[:2]) for image in real)
        made = [to_pixels(decode(vae, one[None].to(vae.device)))[0] for one in self.latents[: len(real)]]
        side = min(side, *(min(image.shape[:2]) for image in made))
        ours, theirs = (
            np.mean([sharpness.octaves(sharpness.brightness(image[:side, :side])) for image in images], axis=0)
            for images in (made, real)
        )
        return float(np.abs(np.log2(np.maximum(ours, 1e-12) / np.maximum(theirs, 1e-12))).mean())


def decode(vae: AutoencoderKL, latents: Tensor) -> Tensor:
    """Return the (n, 3, h, w) images in -1..1 of scaled `latents` (n, C, h/factor, w/factor)."""
    images: Tensor = vae.decode(latents / vae.config.scaling_factor).sample
    return images.float()
