"""A feature network with its preprocessing, for distances and neighbours."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ...data.image_files import Pixels

Features = NDArray[np.float32]
"""(images, dimension)."""


@dataclass(frozen=True)
class Extractor:
    """Images in, features out.

    Attributes:
        name: by which it is chosen.
        title: what follows the F (Fréchet) or K (kernel) in the name of a distance between its features:
            "ID" for Inception alone, else "D (...)".
        dimension: of the features.
        digest: 16 hexadecimal digits of its weights and of its preprocessing.
        network: (n, 3, height, width) prepared floats to (n, dimension).
        prepare: (height, width, 3) bytes to (3, height, width) floats.
        device: where the network is.
    """

    name: str
    title: str
    dimension: int
    digest: str
    network: nn.Module
    prepare: Callable[[Pixels], Tensor]
    device: torch.device

    @torch.no_grad()
    def __call__(self, pixels: NDArray[np.uint8] | Sequence[Pixels]) -> Features:
        """Return the features (n, dimension) of `pixels`: (n, height, width, 3) bytes, or n images of any size."""
        prepared = [self.prepare(image) for image in pixels]
        alike = len({tensor.shape for tensor in prepared}) == 1
        batches = [torch.stack(prepared)] if alike else [tensor[None] for tensor in prepared]
        found = [self.network(batch.to(self.device)).float().cpu() for batch in batches]
        return np.asarray(torch.cat(found).numpy())

    @property
    def frechet(self) -> str:
        """The name of the Fréchet distance between its features."""
        return f"F{self.title}"

    @property
    def kernel(self) -> str:
        """The name of the kernel distance between its features."""
        return f"K{self.title}"
