"""A trained cell classifier in its folder: safetensors weights and `config.json`; reading it and classifying cells."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.functional import interpolate

from ..annotations import Box
from ..config import validated
from ..data.image_files import Pixels
from ..devices import available
from ..errors import UserError
from ..io import atomic, plain, tensors
from ..io.tensors import refuse_pickles, weights_digest
from . import networks
from .config import ClassifierConfig
from .crop import square

WEIGHTS: Final = "model.safetensors"
CONFIG: Final = "config.json"
ADDED: Final = {"enlarged": None, "views": 1}
"""Fields that 0.1.0 did not have, with what it did: the digests of its classifiers stay."""


class CellClassifier:
    """A network that gives the probabilities of a cell's classes, and the features that its last layer reads."""

    def __init__(self, network: nn.Module, config: ClassifierConfig) -> None:
        """Use `network`, whose last linear layer has an output for each class of `config`."""
        self.network, self.config = network.eval(), config
        self.classes = config.classes
        added = {name for name, default in ADDED.items() if getattr(config, name) == default}
        self.digest = weights_digest(network, beside=config.model_dump(exclude=added))

    @classmethod
    def load(cls, folder: Path, device: str = "cpu") -> "CellClassifier":
        """Read the classifier in `folder`; raise UserError naming what is missing or does not fit."""
        file = folder / CONFIG
        try:
            values = plain.from_json(plain.text(file))
        except (OSError, ValueError):
            refuse_pickles(folder)
            raise UserError(f"{folder}: no cell classifier found; config.json and {WEIGHTS} are expected") from None
        config = validated(ClassifierConfig, values, str(file))
        try:
            network = networks.build(config.architecture, len(config.classes))
        except UserError as error:
            raise UserError(f"{file}: {error}") from None
        if networks.last(network) is None:
            raise UserError(f"{file}: architecture {config.architecture!r} has no linear layer to read features from")
        read = tensors.read(folder / WEIGHTS)
        try:
            network.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in read.items()})
        except RuntimeError as error:
            raise UserError(f"{folder / WEIGHTS}: {str(error).splitlines()[0][:200]}") from None
        classifier, side = cls(network.requires_grad_(False).to(available(device)), config), config.size
        try:
            classifier.logits(prepare(np.zeros((side, side, 3), np.uint8), config)[None])
        except (RuntimeError, ValueError, AssertionError) as error:
            said = " ".join(str(error).split())[:120]
            raise UserError(f"{file}: {config.architecture} does not accept crops of {side} pixels ({said})") from None
        return classifier

    @torch.no_grad()
    def logits(self, images: Tensor) -> Tensor:
        """Return (n, classes) logits of prepared (n, 3, side, side) `images`."""
        return torch.as_tensor(self.network(images.to(next(self.network.parameters()).device)))

    @torch.no_grad()
    def probabilities(self, windows: Sequence[Pixels], boxes: Sequence[Box]) -> NDArray[np.float64]:
        """Return (n, classes) probabilities of the cells in `boxes` (xyxy) of n `windows` (height, width, 3)."""
        found = self.of_crops(self.crops(windows, boxes))
        if not np.isfinite(found).all():
            raise UserError(
                f"classifier: the network ({self.config.architecture}) returns NaN; its weights are damaged"
            )
        return found

    def of_crops(self, crops: Sequence[Pixels]) -> NDArray[np.float64]:
        """Return (n, classes) probabilities of cells in (size, size, 3) `crops`, means over the views of `config`."""
        images = torch.stack([prepare(crop, self.config) for crop in crops])
        views = [self.logits(_view(images, view)).double().softmax(dim=1) for view in range(self.config.views)]
        return np.asarray(torch.stack(views).mean(dim=0).cpu().numpy())

    @torch.no_grad()
    def features(self, windows: Sequence[Pixels], boxes: Sequence[Box]) -> NDArray[np.float64]:
        """Return (n, channels) features of the same cells."""
        images = torch.stack([prepare(crop, self.config) for crop in self.crops(windows, boxes)])
        read = features(self.network, images.to(next(self.network.parameters()).device))
        return np.asarray(read.double().cpu().numpy())

    def crops(self, windows: Sequence[Pixels], boxes: Sequence[Box]) -> list[Pixels]:
        """Return the squares of the cells in `boxes` (xyxy) of as many `windows`."""
        size, context = self.config.size, self.config.context
        return [square(window, box, context, size) for window, box in zip(windows, boxes, strict=True)]


@torch.no_grad()
def features(network: nn.Module, images: Tensor) -> Tensor:
    """Return the (n, channels) features that the last linear layer of `network` reads, of prepared `images`."""
    read: list[Tensor] = []
    linear = networks.last(network)
    assert linear is not None, "loaders refuse a network without one"
    handle = linear.register_forward_pre_hook(lambda module, inputs: read.append(inputs[0]))
    try:
        network(images)
    finally:
        handle.remove()
    return read[0].flatten(1)


def prepare(pixels: Pixels, config: ClassifierConfig) -> Tensor:
    """Return (height, width, 3) `pixels` as the network takes them, (3, height, width), enlarged where `config` says.

    Other images are enlarged by the same factor: a nucleus must have the size of the training images.
    """
    mean, std = (torch.tensor(value)[:, None, None] for value in (config.mean, config.std))
    image = (torch.from_numpy(np.array(pixels)).permute(2, 0, 1).float() / 255 - mean) / std
    if config.enlarged is None:
        return image
    sides = [round(side * config.enlarged / config.size) for side in image.shape[1:]]
    return interpolate(image[None], size=sides, mode="bilinear", align_corners=False)[0]


def save(network: nn.Module, config: ClassifierConfig, folder: Path) -> None:
    """Write the weights (half precision) and the configuration of a classifier into `folder`."""
    state = {k: v.detach().cpu().half() if v.is_floating_point() else v.cpu() for k, v in network.state_dict().items()}
    save_file({k: v.contiguous() for k, v in state.items()}, folder / WEIGHTS, metadata={"format": "pt"})
    atomic.write_json(folder / CONFIG, config.model_dump(mode="json"))


def _view(images: Tensor, number: int) -> Tensor:
    """Return `images` rotated by 90 degrees `number` times, from 4 on mirrored first."""
    return torch.rot90(images.flip(3) if number >= 4 else images, number % 4, (2, 3))
