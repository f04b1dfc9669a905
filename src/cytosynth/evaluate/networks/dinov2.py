"""DINOv2 from a local folder in transformers' layout: features of its class token (arXiv 2306.04675)."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from transformers import AutoImageProcessor, Dinov2Model

from ...data.image_files import Pixels
from ...errors import EnvironmentProblem, UserError, of_the_machine
from ...foundation.load import part
from ...foundation.trial import bounded
from ...io import plain
from ...io.tensors import refuse_pickles
from . import resize
from .network import Network

SIDE = 224
MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
"""ImageNet's, 0..255."""
PROCESSOR = "preprocessor_config.json"


class Features(nn.Module):
    """The network's class token after its last normalisation."""

    def __init__(self, network: Dinov2Model) -> None:
        """Keep `network`."""
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        """Return (n, channels) features of (n, 3, height, width) images."""
        return torch.as_tensor(self.network(images).last_hidden_state[:, 0])


def load(path: Path | None) -> Network:
    """Return the network in the folder `path`, preprocessed as its `preprocessor_config.json` says.

    Where the folder has none, the whole image is resized to 224 x 224. Raises EnvironmentProblem without a folder,
    UserError for one that holds no DINOv2 as safetensors.
    """
    if path is None:
        raise EnvironmentProblem("dinov2: give a folder with config.json and model.safetensors with --weights")
    try:
        kind = plain.from_json(plain.text(path / "config.json")).get("model_type")
    except (OSError, ValueError, AttributeError):
        refuse_pickles(path)
        raise UserError(f"{path}: no DINOv2 found; config.json and model.safetensors are expected") from None
    if kind != "dinov2":
        raise UserError(f"{path / 'config.json'}: model_type {kind!r}; expected dinov2")
    network = part(Dinov2Model, path, headless=True)
    own = (path / PROCESSOR).is_file()
    try:
        bounded(plain.from_json(plain.text(path / PROCESSOR)) if own else {}, str(path / PROCESSOR))
        found = Network(
            title="D (DINOv2)",
            dimension=int(network.config.hidden_size),
            module=Features(network),
            prepare=Processor(path) if own else _whole,
            preprocessing=plain.text(path / PROCESSOR) if own else "clean-fid 224, ImageNet's mean and deviation",
        )
        with torch.no_grad():
            found.module(found.prepare(np.zeros((SIDE, SIDE, 3), np.uint8))[None])
    except Exception as error:
        if isinstance(error, UserError) or of_the_machine(error):
            raise
        raise UserError(f"{path}: does not accept images ({' '.join(str(error).split())[:200]})") from None
    return found


def _whole(pixels: Pixels) -> Tensor:
    return resize.standardised(resize.clean(pixels, SIDE), MEAN, STD)


class Processor:
    """The folder's own preprocessing, by transformers."""

    def __init__(self, path: Path) -> None:
        """Read `preprocessor_config.json` of the folder `path`."""
        self.processor = AutoImageProcessor.from_pretrained(path, local_files_only=True, trust_remote_code=False)

    def __call__(self, pixels: Pixels) -> Tensor:
        """Return `pixels` prepared, (3, height, width)."""
        return torch.as_tensor(self.processor(images=np.array(pixels), return_tensors="pt")["pixel_values"][0])
