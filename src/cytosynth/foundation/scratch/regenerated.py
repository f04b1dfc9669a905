"""Latents that a generator made of training images, on which a decoder can be sharpened too (not in the paper).

Sampled latents are smoother than encoded ones, and a decoder that only knows encoded ones draws them soft. So noise is
added to the latents of training images, and the generator removes it (SDEdit, arXiv 2108.01073). The result is as
smooth as sampled latents, but its image is known. `examples/regenerate.py` writes the file.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from safetensors import safe_open
from torch import Tensor, stack

from ...errors import UserError
from ...io import tensors
from ..pixels import scaled

MARGIN = 2
"""Latents around a crop that are decoded with it and then cut off: a decoder draws borders differently."""
FREE = 2 / 3
"""Number of crops of sampled latents, which have no original, over that of regenerated ones."""


class Crops(NamedTuple):
    """Of a batch.

    Attributes:
        latents: (n, C, h, w) regenerated ones, `MARGIN` wider on every side than `pixels`.
        pixels: (n, 3, side, side) of their originals, -1..1.
        sampled: (m, C, h, w), made from noise.
    """

    latents: Tensor
    pixels: Tensor
    sampled: Tensor


class Regenerated:
    """The latents in a file, as the decoder reads them (not multiplied by the scaling factor), and their images.

    Attributes:
        latents: (n, C, h, w), regenerated.
        pixels: (n, height, width, 3) bytes, the images that they were made of.
        sampled: (m, C, h, w), made from noise.
    """

    def __init__(self, path: Path, encoder: str, factor: int, side: int) -> None:
        """Read the file at `path`, whose latents are of the `encoder` with this hash; crops are to have this `side`.

        Raises UserError for a file that is no such thing, or of another encoder.
        """
        found = tensors.read(path)
        if missing := [name for name in ("latents", "pixels", "sampled") if name not in found]:
            raise UserError(f"{path}: holds no tensor {missing[0]!r}; give a file of examples/regenerate.py")
        self.latents, self.pixels, self.sampled = (found[name] for name in ("latents", "pixels", "sampled"))
        with safe_open(str(path), "pt") as file:
            own = (file.metadata() or {}).get("encoder")
        if own != encoder:
            raise UserError(f"{path}: its latents are of the encoder {own}, and the autoencoder has {encoder}")
        self.factor, least = factor, side // factor + 2 * MARGIN
        for name, latents in (("latents", self.latents), ("sampled", self.sampled)):
            if not len(latents) or min(latents.shape[-2:]) < least:
                raise UserError(f"{path}: {name} {tuple(latents.shape)}: must be at least one, {least} a side")

    def batch(self, rng: np.random.Generator, size: int, side: int) -> Crops:
        """Return `size` crops of `side` pixels that `rng` determines, and two thirds as many of sampled latents."""
        latents, pixels, free = [], [], []
        extent = side // self.factor + 2 * MARGIN
        for index in rng.integers(len(self.latents), size=size):
            x, y = self._corner(self.latents, rng, extent)
            latents.append(self.latents[index, :, y : y + extent, x : x + extent])
            left, top = ((place + MARGIN) * self.factor for place in (x, y))
            pixels.append(self.pixels[index, top : top + side, left : left + side])
        for index in rng.integers(len(self.sampled), size=max(1, round(FREE * size))):
            x, y = self._corner(self.sampled, rng, extent)
            free.append(self.sampled[index, :, y : y + extent, x : x + extent])
        return Crops(stack(latents).float(), scaled(stack(pixels)), stack(free).float())

    def inner(self, decoded: Tensor) -> Tensor:
        """Return (n, 3, side, side), what was decoded from a crop without its margin."""
        cut = MARGIN * self.factor
        return decoded[:, :, cut:-cut, cut:-cut].float()

    @staticmethod
    def _corner(latents: Tensor, rng: np.random.Generator, extent: int) -> tuple[int, int]:
        """Return the (x, y) corner of a crop `extent` wide."""
        height, width = latents.shape[-2:]
        return int(rng.integers(width - extent + 1)), int(rng.integers(height - extent + 1))
