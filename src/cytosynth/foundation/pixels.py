"""Between bytes and the tensors that an autoencoder reads."""

import numpy as np
import torch
from torch import Tensor


def to_tensor(pixels: np.ndarray) -> Tensor:
    """Return (n, height, width, 3) bytes as (n, 3, height, width) floats in -1..1."""
    return torch.from_numpy(np.array(pixels)).permute(0, 3, 1, 2).float() / 127.5 - 1


def to_pixels(tensor: Tensor) -> np.ndarray:
    """Return (n, 3, height, width) floats in -1..1 as (n, height, width, 3) bytes."""
    scaled = (tensor.float() * 127.5 + 127.5).round().clamp(0, 255)
    return np.asarray(scaled.to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy())
