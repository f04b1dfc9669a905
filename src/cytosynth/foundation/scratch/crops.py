"""Random crops of training images, flipped and turned."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ...data import augment, varied
from ...data.sources import Sample
from ...errors import UserError
from ...variation.centre import Centre
from ..pixels import scaled


class Crops:
    """Makes batches of square crops, each pixel of all images as often as any other."""

    def __init__(self, samples: Sequence[Sample], sides: Sequence[int], centre: Centre | None = None) -> None:
        """Cut crops of the `sides` from `samples`, each shown as the `centre` would, which keeps their size.

        Raises UserError for an image smaller than the largest side, UsageError for a centre that resizes.
        """
        varied.keep_size(centre, "the autoencoder")
        for sample in samples:
            if min(sample.size) < max(sides):
                raise UserError(f"{sample.name}: at its scale smaller than the crops of {max(sides)} pixels")
        self.samples, self.sides, self.centre = samples, sides, centre
        areas = np.array([math.prod(sample.size) for sample in samples], dtype=np.float64)
        self.weights = areas / areas.sum()
        self.resident: list[Tensor] = []

    def place(self, device: torch.device) -> None:
        """Keep the images on `device`, where that is a GPU and none of them is made or read again at each use."""
        if (
            device.type != "cpu"
            and self.centre is None
            and all(isinstance(sample.image, np.ndarray) for sample in self.samples)
        ):
            self.resident = [torch.from_numpy(sample.pixels.copy()).to(device) for sample in self.samples]

    def batch(self, rng: np.random.Generator, size: int) -> Tensor:
        """Return crops (n, 3, side, side) in -1..1, of a side that `rng` decides, n x side^2 as of `size` first."""
        side = int(rng.choice(self.sides))
        count = max(1, round(size * self.sides[0] ** 2 / side**2))
        crops = []
        for index in rng.choice(len(self.samples), count, p=self.weights):
            x, y = (int(rng.integers(extent - side + 1)) for extent in self.samples[index].size)
            crops.append(self._crop(int(index), x, y, side, rng))
        return scaled(torch.stack(crops))

    def _crop(self, index: int, x: int, y: int, side: int, rng: np.random.Generator) -> Tensor:
        """Return a crop (side, side, 3) of bytes, its corner at (x, y), turned and varied."""
        turn = int(rng.integers(8))
        if self.resident:
            window = self.resident[index][y : y + side, x : x + side]
            return torch.rot90(window.flip(1) if turn >= 4 else window, turn % 4)
        turned = augment.d4(augment.crop(self.samples[index].pixels, x, y, side), turn)
        return torch.from_numpy(varied.at_this_step(turned, (), self.centre, rng)[0].copy())
