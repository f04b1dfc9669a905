"""Between bytes and the tensors that an autoencoder reads."""

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Tensor


def to_tensor(pixels: np.ndarray) -> Tensor:
    """Return (n, height, width, 3) bytes as (n, 3, height, width) floats in -1..1."""
    return scaled(torch.from_numpy(np.array(pixels)))


def scaled(pixels: Tensor) -> Tensor:
    """Return a tensor of (n, height, width, 3) bytes as (n, 3, height, width) floats in -1..1, channels last."""
    return pixels.permute(0, 3, 1, 2).float() / 127.5 - 1


def to_pixels(tensor: Tensor) -> np.ndarray:
    """Return (n, 3, height, width) floats in -1..1 as (n, height, width, 3) bytes."""
    scaled = (tensor.float() * 127.5 + 127.5).round().clamp(0, 255)
    return np.asarray(scaled.to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy())


def scale_factor(vae: AutoencoderKL) -> int:
    """Return the pixels, along each axis, per pixel of the latents of `vae`: 8 in Stable Diffusion."""
    return int(2 ** (len(vae.config.block_out_channels) - 1))


def whole(extent: int, vae: AutoencoderKL) -> int:
    """Return `extent` cut to a multiple of the scale factor of `vae`."""
    return extent // scale_factor(vae) * scale_factor(vae)
