"""The one way in which images reach a feature network: clean-fid's resize (arXiv 2104.11222)."""

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ...data.image_files import Pixels


def clean(pixels: Pixels, side: int) -> Tensor:
    """Return (height, width, 3) `pixels` as a (3, side, side) float tensor, 0..255, not rounded.

    PIL's bicubic filter, which widens with the reduction and so does not alias, on each channel in floating point;
    then clipped.
    """
    channels = []
    for channel in range(3):
        plane = Image.fromarray(pixels[:, :, channel].astype(np.float32))
        channels.append(np.asarray(plane.resize((side, side), Image.Resampling.BICUBIC)).clip(0, 255))
    return torch.from_numpy(np.stack(channels))


def standardised(image: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """Return (3, height, width) `image` less `mean`, over `std`, both by channel and in its own units."""
    return (image - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
