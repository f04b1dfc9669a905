"""A feature network whose features are the mean red, green and blue of a crop: what it finds is known by hand."""

import torch
from torch import nn

from cytosynth.evaluate.networks.extractor import Extractor


class Mean(nn.Module):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.mean(dim=(2, 3))


COLOUR = Extractor(
    "colour", "D (colour)", 3, "0" * 16, Mean(), lambda pixels: torch.from_numpy(pixels.copy()).permute(2, 0, 1) / 25.5,
    torch.device("cpu"),
)  # fmt: skip
