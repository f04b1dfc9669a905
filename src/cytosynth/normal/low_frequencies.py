"""The low frequencies of training images, with which generated fields begin.

At the last timestep of Stable Diffusion's schedule, a noised image is still sqrt(0.0047) = 0.07 of the image: enough
to see its stain and its density. A model that is given noise alone there reads from it that both are average, and its
fields are pale and alike. They are more like real ones if z_T is made, as in training, of an image: of its low
frequencies alone, sampled from a Gaussian that is fitted to those of the training images (Everaert et al. 2024,
"Exploiting the Signal-Leak Bias in Diffusion Models", arXiv 2309.15842). No weight is changed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save
from scipy.fft import dctn, idctn
from torch import Tensor

from ..adapters.adapter import LOW_FREQUENCIES
from ..errors import UserError
from ..foundation import sampling
from ..io import atomic, tensors

FILE = LOW_FREQUENCIES
KEPT = 4
"""Frequencies kept along each axis, of the discrete cosine transform: at most one and a half waves across a square."""


@dataclass(frozen=True)
class LowFrequencies:
    """A Gaussian of the low frequencies of latents.

    Attributes:
        mean: (C, K, K) coefficients of the orthonormal discrete cosine transform of a square, over its side.
        root: (C K K, C K K), whose product with its transpose is their covariance.
    """

    mean: NDArray[np.float32]
    root: NDArray[np.float32]

    @classmethod
    def of(cls, latents: Sequence[Tensor]) -> "LowFrequencies":
        """Return those of `latents` (C, h, w), scaled: of the largest squares at both ends of each."""
        found = []
        for latent in latents:
            values = latent.cpu().double().numpy()
            side = min(values.shape[1:])
            for corner in (values[:, :side, :side], values[:, -side:, -side:]):
                low = dctn(corner, axes=(1, 2), norm="ortho")[:, :KEPT, :KEPT]
                found.append(low / side)  # a copy: of the whole transform nothing stays in memory
        coefficients = np.stack(found)
        mean = coefficients.mean(axis=0)
        apart = (coefficients - mean).reshape(len(found), -1)
        size, vectors = np.linalg.eigh(apart.T @ apart / max(1, len(found) - 1))
        root = vectors * np.sqrt(np.maximum(size, 0))
        return cls(mean.astype(np.float32), root.astype(np.float32))

    def draw(self, side: int, *seed: int) -> Tensor:
        """Return latents (1, C, side, side) of low frequencies alone, which depend on `side` and `seed`.

        The pattern of the training images' squares is stretched to `side`.
        """
        normal = sampling.noise((self.mean.size,), *seed).double().numpy()
        values = self.mean + (self.root.astype(np.float64) * normal).sum(axis=1).reshape(self.mean.shape)
        padded = np.zeros((len(values), side, side))
        kept = min(side, self.mean.shape[-1])
        padded[:, :kept, :kept] = values[:, :kept, :kept] * side
        return torch.from_numpy(idctn(padded, axes=(1, 2), norm="ortho")).float()[None]

    def save(self, folder: Path) -> None:
        """Write them into the `folder` of an adapter."""
        content = {"mean": torch.from_numpy(self.mean), "root": torch.from_numpy(self.root)}
        atomic.write_bytes(folder / FILE, save(content))

    @classmethod
    def load(cls, folder: Path, channels: int) -> "LowFrequencies | None":
        """Return those in the `folder` of an adapter, or next to its file; None if there are none.

        `channels` is the number C of the latents. Raises UserError if they do not fit.
        """
        path = (folder if folder.is_dir() else folder.parent) / FILE
        if not path.is_file():
            return None
        found = tensors.read(path)
        mean, root = found.get("mean"), found.get("root")
        kept = 0 if mean is None or mean.ndim != 3 else mean.shape[-1]
        fits = mean is not None and root is not None and mean.shape == (channels, kept, kept)
        if mean is None or root is None or not fits or not kept or root.shape != (mean.numel(),) * 2:
            shapes = {name: tuple(value.shape) for name, value in found.items()}
            raise UserError(
                f"{path}: expected mean ({channels}, K, K) and root of as many rows and columns, got {shapes}"
            )
        mean, root = mean.float(), root.float()
        if not (mean.isfinite().all() and root.isfinite().all()):
            raise UserError(f"{path}: contains NaN or infinity; copy the adapter again")
        return cls(mean.numpy(), root.numpy())

    @property
    def content(self) -> bytes:
        """The bytes by which they are told from others."""
        return self.mean.tobytes() + self.root.tobytes()
