"""Latents that a generator made of training images, on which a decoder can be sharpened too (not in the paper).

Sampled latents are smoother than encoded ones, and a decoder that was trained on encoded ones alone makes soft images
of them. So noise is added to the latents of training images, and the generator removes it (SDEdit, arXiv 2108.01073).
The result is as smooth as sampled latents, but its image is known. `examples/regenerate.py` writes the file.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from diffusers import AutoencoderKL
from safetensors import safe_open
from torch import Tensor, stack

from ...errors import UserError
from ...io import atomic, tensors
from ...io.tensors import weights_digest
from ..pixels import scale_factor, scaled
from .recipe import DecoderRecipe

MARGIN = 2
"""Latents around a crop that are decoded with it and then cut off: images differ at the border of what is decoded."""
RESERVED = 8
"""Regenerated latents, the first in the file, that are not trained on: weights are selected by them."""
FEWEST = 3
"""Smallest batch: one encoded, one regenerated and one sampled crop."""


class Crops(NamedTuple):
    """Of a batch.

    Attributes:
        latents: (n, C, h, w) regenerated ones, `MARGIN` wider on every side than their targets.
        targets: (n, 3, side, side), the images that they were made of, -1..1.
        sampled: (m, C, h, w), made from noise.
    """

    latents: Tensor
    targets: Tensor
    sampled: Tensor


class Regenerated:
    """The latents in a file, as the decoder reads them (not multiplied by the scaling factor), and their images.

    Attributes:
        latents: (n, C, h, w), regenerated.
        pixels: (n, height, width, 3) bytes, the images that they were made of.
        sampled: (m, C, h, w), made from noise.
        factor: pixels per latent.
        digest: 16 hexadecimal digits of the SHA-256 of the file.
    """

    def __init__(self, path: Path, vae: AutoencoderKL, side: int) -> None:
        """Read the file at `path`, whose latents are of the encoder of `vae`; crops are to have at most this `side`.

        Raises UserError for a file that is no such thing, or of another encoder.
        """
        found = tensors.read(path)
        if missing := [name for name in ("latents", "pixels", "sampled") if name not in found]:
            raise UserError(f"{path}: holds no tensor {missing[0]!r}; give a file of examples/regenerate.py")
        with safe_open(str(path), "pt") as file:
            own = (file.metadata() or {}).get("encoder")
        if own != (wanted := weights_digest(vae.encoder, vae.quant_conv)):
            raise UserError(f"{path}: its latents are of the encoder {own}, and the autoencoder has {wanted}")
        self.latents, self.pixels, self.sampled = (found[name] for name in ("latents", "pixels", "sampled"))
        self.factor = scale_factor(vae)
        self.digest = atomic.sha256(path)[:16]
        self._check(path, int(vae.config.latent_channels), side // self.factor + 2 * MARGIN)

    def _check(self, path: Path, channels: int, least: int) -> None:
        """Raise UserError unless the tensors fit each other, and latents have `channels` and are `least` a side."""
        for name, latents, fewest in (("latents", self.latents, RESERVED + 1), ("sampled", self.sampled, 1)):
            shape = tuple(latents.shape)
            if len(shape) != 4 or shape[1] != channels or not latents.is_floating_point():
                raise UserError(f"{path}: {name} {shape} {latents.dtype}: floats (n, {channels}, h, w) are expected")
            if shape[0] < fewest or min(shape[2:]) < least:
                raise UserError(f"{path}: {name} {shape}: must be at least {fewest}, and {least} a side")
            if not latents.isfinite().all():
                raise UserError(f"{path}: {name} has values that are not finite; the file is damaged")
        count, _, height, width = self.latents.shape
        wanted = (count, height * self.factor, width * self.factor, 3)
        if tuple(self.pixels.shape) != wanted or self.pixels.dtype != torch.uint8:
            raise UserError(f"{path}: pixels {tuple(self.pixels.shape)} {self.pixels.dtype}: bytes {wanted} expected")

    def batch(self, rng: np.random.Generator, size: int, side: int) -> Crops:
        """Return `size` crops of `side` pixels that `rng` determines, and two thirds as many of sampled latents."""
        latents, targets, sampled = [], [], []
        extent = side // self.factor + 2 * MARGIN
        for index in rng.integers(RESERVED, len(self.latents), size=size):
            x, y = self._corner(self.latents, rng, extent)
            latents.append(self.latents[index, :, y : y + extent, x : x + extent])
            left, top = ((place + MARGIN) * self.factor for place in (x, y))
            targets.append(self.pixels[index, top : top + side, left : left + side])
        for index in rng.integers(len(self.sampled), size=max(1, size * 2 // 3)):
            x, y = self._corner(self.sampled, rng, extent)
            sampled.append(self.sampled[index, :, y : y + extent, x : x + extent])
        return Crops(stack(latents).float(), scaled(stack(targets)), stack(sampled).float())

    def inner(self, decoded: Tensor) -> Tensor:
        """Return (n, 3, side, side), what was decoded from a crop without its margin."""
        cut = MARGIN * self.factor
        return decoded[:, :, cut:-cut, cut:-cut].float()

    @staticmethod
    def _corner(latents: Tensor, rng: np.random.Generator, extent: int) -> tuple[int, int]:
        """Return the (x, y) corner of a crop `extent` wide."""
        height, width = latents.shape[-2:]
        return int(rng.integers(width - extent + 1)), int(rng.integers(height - extent + 1))


def read(recipe: DecoderRecipe, vae: AutoencoderKL) -> Regenerated | None:
    """Return the latents in the file that `recipe` names, if any, for the decoder of `vae`.

    Raises UserError for a file or for settings that do not fit.
    """
    if recipe.regenerated is None:
        return None
    if recipe.batch_size < FEWEST:
        raise UserError(f"batch_size={recipe.batch_size}: with `regenerated` it must be at least {FEWEST}")
    if odd := [side for side in recipe.crops if side % scale_factor(vae)]:
        raise UserError(f"crops={recipe.crops}: with `regenerated`, {odd[0]} must be a multiple of {scale_factor(vae)}")
    return Regenerated(Path(recipe.regenerated), vae, max(recipe.crops))
