"""A feature network with its preprocessing, for distances and neighbours."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ...data.image_files import Pixels

BATCH = 32
"""Images in the network at a time on a GPU."""
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
        """Return the features (n, dimension) of `pixels`: (n, height, width, 3) bytes, or n images of any size.

        On a CPU they go through the network one by one, since its matrix products are rounded differently in a batch of
        another size: the features of an image do not depend, to the bit, on the others, and it takes half the time on
        one thread. Elsewhere images of one size go `BATCH` at a time, never fewer: the last one fills up the batch.
        """
        prepared = [self.prepare(image) for image in pixels]
        together = self.device.type != "cpu" and len({tensor.shape for tensor in prepared}) == 1
        found = [
            self.network(batch.to(self.device)).float().cpu()[:count]
            for batch, count in filled(prepared, BATCH if together else 1)
        ]
        return np.asarray(torch.cat(found).numpy())

    @property
    def frechet(self) -> str:
        """The name of the Fréchet distance between its features."""
        return f"F{self.title}"

    @property
    def kernel(self) -> str:
        """The name of the kernel distance between its features."""
        return f"K{self.title}"


def filled(images: Sequence[Tensor], size: int) -> Iterator[tuple[Tensor, int]]:
    """Yield `images` as batches of `size`, the last one filled up with its last image; and how many each has."""
    for first in range(0, len(images), size):
        chosen = images[first : first + size]
        yield torch.stack([*chosen, *[chosen[-1]] * (size - len(chosen))]), len(chosen)
