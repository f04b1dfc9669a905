"""The common part of both cytology feature networks: a cell classifier of `train features` without its last layer."""

import math
from pathlib import Path

import torch
from torch import Tensor, nn

from ...classifier import model
from ...classifier.model import CellClassifier
from ...classifier.networks import last
from ...errors import EnvironmentProblem, UserError
from ...io.bundled import model_folder
from .network import Network


class Features(nn.Module):
    """Features of unit length times the root of their number.

    Otherwise a few cells with features many times as long dominate a distance. The factor keeps x · y / d of the kernel
    distance within -1 to 1.
    """

    def __init__(self, network: nn.Module) -> None:
        """Keep `network`, a classifier."""
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        """Return (n, dimension) features of prepared (n, 3, height, width) `images`."""
        found = model.features(self.network, images)
        return torch.nn.functional.normalize(found, dim=1) * math.sqrt(found.shape[1])


def load(path: Path | None, name: str, family: str, title: str) -> Network:
    """Return the classifier in the folder `path` as a feature network.

    Args:
        path: a run of `train features`, or the folder of its weights.
        name: of the feature network.
        family: how the names of its architectures begin.
        title: see `Network`.

    Raises EnvironmentProblem for no path, UserError for another network or weights that do not fit. Images are taken at
    the scale they have: a nucleus must be as large as those that the network was trained on.
    """
    if path is None:
        raise EnvironmentProblem(f"{name}: give the run of `cytosynth train features RUN` with --weights")
    classifier = CellClassifier.load(model_folder(str(path), "classifier"))
    config = classifier.config
    if not config.architecture.startswith(family):
        raise UserError(f"{path / model.CONFIG}: architecture {config.architecture!r}; {name} needs {family}")
    linear = last(classifier.network)
    assert linear is not None, "the loader refuses a network without one"
    enlarged = "" if config.enlarged is None else f", enlarged {config.enlarged}/{config.size}"
    return Network(
        title=title,
        dimension=linear.in_features,
        module=Features(classifier.network),
        prepare=lambda pixels: model.prepare(pixels, config),
        preprocessing=f"as it is, 0..1, less {config.mean}, over {config.std}{enlarged}; features of equal length",
    )
