"""ResNet-50 fitted to cell classes by `train features`: the network of FID@Cytopathology (Table I, Section IV-B)."""

from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torchvision.models import resnet50

from ...config import validated
from ...data.cell_crop import ClassifierConfig
from ...data.image_files import Pixels
from ...errors import EnvironmentProblem, UserError
from ...io import atomic, plain, tensors
from . import resize, weights
from .network import Network

WEIGHTS = "model.safetensors"
DIMENSION = 2048
MEAN, STD = (0.8, 0.8, 0.8), (0.2, 0.2, 0.2)
"""Of a bright field, 0..1."""


class CytologyConfig(ClassifierConfig):
    """What rebuilds the network, and what it was trained on."""

    architecture: str = "resnet50"
    mean: tuple[float, float, float] = MEAN
    std: tuple[float, float, float] = STD


class Classifier(nn.Module):
    """torchvision's ResNet-50; its features are the mean of its last 2048 channels."""

    def __init__(self, classes: int) -> None:
        """Build it untrained."""
        super().__init__()
        self.network = resnet50(weights=None, num_classes=classes)

    def features(self, images: Tensor) -> Tensor:
        """Return (n, 2048) features of prepared (n, 3, height, width) images of any size."""
        layers = [module for name, module in self.network.named_children() if name != "fc"]
        return torch.as_tensor(nn.Sequential(*layers)(images).flatten(1))

    def forward(self, images: Tensor) -> Tensor:
        """Return (n, classes) logits."""
        return torch.as_tensor(self.network(images))


class Features(nn.Module):
    """The classifier without its last layer."""

    def __init__(self, classifier: Classifier) -> None:
        """Keep `classifier`."""
        super().__init__()
        self.classifier = classifier

    def forward(self, images: Tensor) -> Tensor:
        """Return (n, 2048) features."""
        return self.classifier.features(images)


def prepare(pixels: Pixels, config: CytologyConfig) -> Tensor:
    """Return `pixels` as the network takes them, (3, height, width), at the scale they have.

    They are not resized: a nucleus must be as large as those that the network was trained on.
    """
    return resize.standardised(resize.as_it_is(pixels) / 255, config.mean, config.std)


def save(classifier: Classifier, config: CytologyConfig, folder: Path) -> None:
    """Write weights (under torchvision's names) and configuration into `folder`."""
    state = {key: value.detach().cpu().contiguous() for key, value in classifier.network.state_dict().items()}
    save_file(state, folder / WEIGHTS, metadata={"format": "pt"})
    atomic.write_json(folder / "config.json", config.model_dump(mode="json"))


def read(folder: Path) -> tuple[Classifier, CytologyConfig]:
    """Return the classifier in `folder` and its configuration; raise UserError for what does not fit."""
    try:
        values = plain.from_json(plain.text(folder / "config.json"))
    except (OSError, ValueError):
        tensors.refuse_pickles(folder)
        raise UserError(f"{folder}: no feature network there (config.json and {WEIGHTS} of `train features`)") from None
    config = validated(CytologyConfig, values, str(folder / "config.json"))
    if config.architecture != "resnet50":
        raise UserError(f"{folder / 'config.json'}: architecture {config.architecture!r}; there is resnet50")
    state = tensors.read(folder / WEIGHTS)
    classifier = Classifier(len(config.classes))
    weights.fill(classifier.network, state, folder / WEIGHTS)
    return classifier.eval(), config


def load(path: Path | None) -> Network:
    """Return the network in the folder `path`, which `train features` wrote."""
    if path is None:
        raise EnvironmentProblem("cytology-resnet50: give RUN/weights of `cytosynth train features RUN` with --weights")
    classifier, config = read(path)
    return Network(
        title="ID@Cytopathology",
        dimension=DIMENSION,
        module=Features(classifier),
        prepare=lambda pixels: prepare(pixels, config),
        preprocessing=f"as it is, 0..1, less {config.mean}, over {config.std}",
    )
