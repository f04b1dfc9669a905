"""SVDiff (Han et al. 2023, arXiv 2303.11305): spectral shifts of the singular values of all weight matrices."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.utils import parametrize

from ..errors import UserError
from ..foundation.model import Foundation
from ..io.progress import meter
from .adapter import Adapter, fits
from .adapter import tensors as read


class SpectralShift(nn.Module):
    """W = U diag(relu(sigma + delta)) V^T for a weight W (out, ...) taken as a matrix (out, in x kernel)."""

    u: Tensor
    sigma: Tensor
    v: Tensor

    def __init__(self, weight: Tensor) -> None:
        """Decompose `weight`; delta is initially zero."""
        super().__init__()
        for name, part in zip(("u", "sigma", "v"), decomposed(weight), strict=True):
            self.register_buffer(name, part, persistent=False)
        self.delta = nn.Parameter(torch.zeros_like(self.sigma, dtype=torch.float32))

    def forward(self, weight: Tensor) -> Tensor:
        """Return the shifted weight, in the shape of `weight`, which is not read otherwise."""
        return recomposed(self.u, self.sigma, self.v, self.delta).reshape(weight.shape).to(weight.dtype)


class SVDiff(Adapter):
    """A shift for every singular value of every linear and convolutional weight of the U-Net."""

    name = "svdiff"
    file = "spectral_shifts.safetensors"

    @classmethod
    def recognises(cls, keys: Sequence[str]) -> bool:
        """Return whether all `keys` are shifts."""
        return bool(keys) and all(key.endswith(".delta") for key in keys)

    def __init__(self, model: Foundation) -> None:
        """Decompose the weights of `model`'s U-Net."""
        super().__init__(model)
        self.shifts: dict[str, SpectralShift] = {}
        found = dict(matrices(model.unet))
        with meter("singular values", len(found)) as bar:
            for name, module in found.items():
                self.shifts[name] = SpectralShift(module.weight)
                parametrize.register_parametrization(module, "weight", self.shifts[name], unsafe=True)
                bar.advance()

    def save(self, folder: Path) -> None:
        """Write the shifts, keyed by module, as the public SVDiff-pytorch does."""
        state = {f"{name}.delta": shift.delta.detach().cpu().contiguous() for name, shift in self.shifts.items()}
        save_file(state, folder / self.file, metadata={"format": "pt"})

    @classmethod
    def merge(cls, model: Foundation, file: Path) -> None:
        """Merge the shifts in `file` into the weights of `model`, those of norms (one value each) included."""
        shifts = read(file)
        with meter("shifting singular values", len(shifts)) as bar:
            for key, delta in shifts.items():
                try:
                    module = model.unet.get_submodule(key.removesuffix(".delta"))
                except AttributeError:
                    raise UserError(f"{file}: {key}: the foundation's U-Net has no such layer") from None
                weight = getattr(module, "weight", None)
                if not key.endswith(".delta") or not isinstance(weight, Tensor):
                    raise UserError(f"{file}: {key} is not a spectral shift of a layer's weight")
                u, sigma, v = decomposed(weight)
                fits(file, key, delta.shape, sigma.shape)
                with torch.no_grad():
                    weight.copy_(recomposed(u, sigma, v, delta.to(sigma)).reshape(weight.shape))
                bar.advance()


def matrices(unet: nn.Module) -> Iterator[tuple[str, nn.Linear | nn.Conv2d]]:
    """Yield name and module of every linear and convolutional layer."""
    for name, module in unet.named_modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            yield name, module


@torch.no_grad()
def decomposed(weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return U (out, r), sigma (r,) and V^T (r, in x kernel) of a weight (out, ...); a vector counts as one row."""
    matrix = weight.detach().float()
    matrix = matrix.reshape(len(matrix), -1) if matrix.ndim > 1 else matrix[None]
    u, sigma, v = torch.linalg.svd(matrix, full_matrices=False)
    return u.to(weight.dtype), sigma, v.to(weight.dtype)


def recomposed(u: Tensor, sigma: Tensor, v: Tensor, delta: Tensor) -> Tensor:
    """Return U diag(relu(sigma + delta)) V^T."""
    return (u * (sigma + delta).relu().to(u.dtype)) @ v
