"""The network that each feature network's file returns to `features.load`."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn

from ...data.image_files import Pixels


@dataclass(frozen=True)
class Network:
    """A feature network with its weights.

    Attributes:
        title: see `Extractor`.
        dimension: of its features.
        module: (n, 3, height, width) prepared floats to (n, dimension).
        prepare: (height, width, 3) bytes to (3, height, width) floats.
        preprocessing: what `prepare` does, in words; part of the digest.
    """

    title: str
    dimension: int
    module: nn.Module
    prepare: Callable[[Pixels], Tensor]
    preprocessing: str
