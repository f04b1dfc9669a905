"""The gate's cell classifier, from the folder that `train features` writes: a network of torchvision and its config."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torchvision import models

from ...annotations import Box
from ...config import validated
from ...data import sources
from ...data.cell_crop import ClassifierConfig, square
from ...data.image_files import Pixels
from ...devices import available
from ...errors import UsageError, UserError
from ...io import plain, tensors
from ...io.tensors import refuse_pickles, weights_digest
from .. import patch
from ..settings import GateSettings
from .gate import NUCLEUS, Gate, Reference

WEIGHTS = "model.safetensors"


class GateClassifier:
    """A cell classifier that gives probabilities and the features that its last linear layer reads."""

    def __init__(self, network: nn.Module, config: ClassifierConfig) -> None:
        """Use `network`, whose last linear layer has an output for each class of `config`."""
        self.network, self.config = network.eval().requires_grad_(False), config
        self.classes = config.classes
        self.digest = weights_digest(network, beside=config.model_dump())
        self._read: Tensor | None = None
        linear = [module for module in network.modules() if isinstance(module, nn.Linear)]
        linear[-1].register_forward_pre_hook(self._keep)

    @classmethod
    def load(cls, folder: Path, device: str = "cpu") -> "GateClassifier":
        """Read the classifier in `folder`; raise UserError naming what is missing or does not fit."""
        file = folder / "config.json"
        try:
            values = plain.from_json(plain.text(file))
        except (OSError, ValueError):
            refuse_pickles(folder)
            raise UserError(f"{folder}: no cell classifier there (config.json and {WEIGHTS})") from None
        config = validated(ClassifierConfig, values, str(file))
        if config.architecture not in models.list_models(module=models):
            raise UserError(f"{file}: architecture {config.architecture!r}: no classification network of torchvision")
        network = models.get_model(config.architecture, weights=None, num_classes=len(config.classes))
        if not any(isinstance(module, nn.Linear) for module in network.modules()):
            raise UserError(f"{file}: architecture {config.architecture!r}: has no linear layer to read features from")
        read = tensors.read(folder / WEIGHTS)
        try:
            network.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in read.items()})
        except RuntimeError as error:
            raise UserError(f"{folder / WEIGHTS}: {str(error).splitlines()[0][:200]}") from None
        classifier = cls(network.to(available(device)), config)
        side = config.size
        try:
            classifier.probabilities([np.zeros((side, side, 3), np.uint8)], [(0.0, 0.0, float(side), float(side))])
        except (RuntimeError, ValueError, AssertionError) as error:
            said = " ".join(str(error).split())[:120]
            raise UserError(f"{file}: {config.architecture} takes no crops of {side} pixels ({said})") from None
        return classifier

    @torch.no_grad()
    def probabilities(self, windows: Sequence[Pixels], boxes: Sequence[Box]) -> NDArray[np.float64]:
        """Return (n, classes) probabilities of the cells in `boxes` (xyxy) of n `windows` (height, width, 3)."""
        output = self.network(self._input(windows, boxes)).double().softmax(dim=1)
        if not output.isfinite().all():
            raise UserError(f"gate: the classifier's network ({self.config.architecture}) gives NaN")
        return np.asarray(output.cpu().numpy())

    @torch.no_grad()
    def features(self, windows: Sequence[Pixels], boxes: Sequence[Box]) -> NDArray[np.float64]:
        """Return (n, channels) features of the same cells."""
        self.network(self._input(windows, boxes))
        assert self._read is not None
        return np.asarray(self._read.flatten(1).double().cpu().numpy())

    def _keep(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self._read = inputs[0]

    def _input(self, windows: Sequence[Pixels], boxes: Sequence[Box]) -> Tensor:
        size, context = self.config.size, self.config.context
        crops = [square(window, box, context, size) for window, box in zip(windows, boxes, strict=True)]
        images = torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2).float() / 255
        mean, std = (torch.tensor(value)[:, None, None] for value in (self.config.mean, self.config.std))
        return ((images - mean) / std).to(next(self.network.parameters()).device)


def load_gate(name: str, settings: GateSettings, data_root: Path, device: str = "cpu") -> Gate:
    """Return the gate 'nucleus', or the one with the classifier in folder `name`; references are below `data_root`."""
    if name == NUCLEUS:
        if settings.reference:
            raise UsageError("gate.reference: needs a classifier, whose features tell copies; 'nucleus' has none")
        return Gate(None, settings, digest="built-in")
    classifier = GateClassifier.load(Path(name), device)
    reference = None
    if settings.reference:
        windows, boxes = [], []
        for sample in sources.load(settings.reference, data_root, "reading the reference"):
            width, height = sample.size
            if min(height, width) >= patch.SIZE:
                for cell in sample.cells:
                    at = patch.corner(cell.box, width, height)
                    windows.append(patch.window(sample.pixels, at))
                    boxes.append(patch.inner(cell.box, at))
        if len(windows) < 2:
            raise UserError(f"{data_root}: gate.reference has {len(windows)} cells; at least 2 are needed")
        reference = Reference.of(classifier, windows, boxes, settings.copy_percentile)
    return Gate(classifier, settings, reference, classifier.digest)
