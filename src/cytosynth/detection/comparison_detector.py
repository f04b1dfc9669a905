"""Comparison Detector (Liang et al. 2021, the paper's [52]): proposals are compared with a prototype of each class.

Faster R-CNN with a feature pyramid, as its authors' code has it, but for the box classifier:

- the prototype of a class is the mean of the features of its reference cells, from the same backbone and pyramid,
  each level brought to the 7x7 of a pooled proposal, over references and levels;
- the prototype of the background is not chosen but learnt: a 3x3 convolution over the prototypes of all classes;
- the logit of a class falls with the squared distance of its prototype, each feature with its own learnt weight.

Where theirs differs: their metric's weights may be negative and a ReLU follows; here they are positive. Their
backbone has frozen ImageNet statistics; from scratch this one has group norm, as batch norm would measure
references and images by different statistics.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.faster_rcnn import TwoMLPHead
from torchvision.ops import MultiScaleRoIAlign

from ..data.sources import Sample
from . import backbones, references
from .architecture import Architecture
from .backbones.backbone import group_norm
from .faster_rcnn import generator, limits
from .recipe import DetectorRecipe

SIDE: Final = 7
MOST_PROPOSALS: Final = 200
"""Of an image that the box head trains on; the authors'."""
STEEPNESS: Final = 2.0
"""Initial standard deviation of the logits, which allows confident scores early; the authors' is 1."""
CLASS_WEIGHT: Final = 5.0
"""Of the classification loss, in the authors' code."""


def build(backbone: str, categories: int, pretrained: bool = False) -> "ComparisonDetector":
    """Return an untrained Comparison Detector for `categories` kinds of cell (background is added).

    It trains once `refer` has given it reference cells. Images are not resized.
    """
    base = backbones.load(backbone)
    pyramid = base.pyramid(pretrained, group_norm)
    network = ComparisonDetector(
        pyramid,
        rpn_anchor_generator=generator(base.anchors),
        box_roi_pool=MultiScaleRoIAlign(list(base.levels), SIDE, 2),
        box_head=nn.Identity(),
        box_predictor=ComparisonHead(pyramid.out_channels, categories, base.hidden),
        box_batch_size_per_image=min(base.proposals, MOST_PROPOSALS),
        **limits(),
    )
    network.transform = base.normalise(pretrained)
    return network


class ComparisonHead(nn.Module):
    """Classifies pooled proposals by their distance to prototypes, and moves their boxes as Faster R-CNN does."""

    def __init__(self, channels: int, categories: int, hidden: int) -> None:
        """Start with equal weights of all features and an unmeasured scale of distances."""
        super().__init__()
        self.background = nn.Conv2d(categories * channels, channels, 3, padding=1)
        self.metric = nn.Parameter(torch.zeros(channels, SIDE, SIDE))
        self.scale = nn.BatchNorm1d(1)
        nn.init.constant_(self.scale.weight, STEEPNESS)
        self.box_head = TwoMLPHead(channels * SIDE * SIDE, hidden)
        self.bbox_pred = nn.Linear(hidden, (categories + 1) * 4)
        self.prototypes: Tensor
        self.register_buffer("prototypes", torch.zeros(categories, channels, SIDE, SIDE))
        self._current: Tensor | None = None

    @contextmanager
    def comparing(self, prototypes: Tensor) -> Iterator[None]:
        """Compare with these (categories, channels, 7, 7) `prototypes`, not with the kept ones, within the block."""
        self._current = prototypes
        try:
            yield
        finally:
            self._current = None

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Return class logits (n, categories + 1) and box changes (n, 4 (categories + 1)) of (n, channels, 7, 7)."""
        prototypes = self.prototypes if self._current is None else self._current
        return self.logits(features, prototypes), self.bbox_pred(self.box_head(features))

    def logits(self, features: Tensor, prototypes: Tensor) -> Tensor:
        """Return (n, categories + 1) logits, background first."""
        flat = torch.cat([self.background(prototypes.flatten(0, 1)[None]), prototypes]).flatten(1)
        distances = _distances(features.flatten(1), flat, functional.softplus(self.metric).flatten())
        scaled: Tensor = self.scale(distances.reshape(-1, 1))
        return -scaled.reshape(distances.shape)


def _distances(features: Tensor, prototypes: Tensor, weights: Tensor) -> Tensor:
    """Return (n, k) weighted mean squared differences of (n, d) `features` and (k, d) `prototypes`, less a common term.

    mean_i w_i (f_i - p_i)^2 = mean w f^2 - 2 mean w f p + mean w p^2; the first is the same for every prototype of a
    proposal, so that softmax does not see it, and would drown the others when the scale of distances is measured.
    The authors sum where this takes the mean, which stays within half precision on disk.
    """
    return ((weights * prototypes**2).sum(dim=1) - 2 * features @ (weights * prototypes).T) / features.shape[1]


class ComparisonDetector(FasterRCNN):  # type: ignore[misc]
    """Faster R-CNN whose proposals are compared with prototypes, made again in every training step.

    They are kept with the weights when training ends or pauses, so that a saved detector needs no references.
    """

    def __init__(self, *parts: Any, **settings: Any) -> None:
        """Take what torchvision's Faster R-CNN takes; the box predictor is a ComparisonHead."""
        super().__init__(*parts, **settings)
        self.references: Tensor | None
        self.register_buffer("references", None, persistent=False)

    def refer(self, references: Tensor) -> None:
        """Take reference cells: (categories, shots, 3, side, side) in 0..1."""
        self.references = references.to(next(self.parameters()).device)

    @property
    def head(self) -> ComparisonHead:
        """The head that compares."""
        return cast(ComparisonHead, self.roi_heads.box_predictor)

    def measure(self) -> Tensor:
        """Return the prototypes (categories, channels, 7, 7) of the references under the weights as they are."""
        if self.references is None:
            raise ValueError("a Comparison Detector trains with reference cells: call refer first")
        categories, shots = self.references.shape[:2]
        images = torch.stack([self.transform.normalize(image) for image in self.references.flatten(0, 1)])
        levels = [
            functional.interpolate(level, (SIDE, SIDE), mode="bilinear", align_corners=False)
            for level in self.backbone(images).values()
        ]
        pooled = torch.stack(levels).mean(dim=0)
        return pooled.reshape(categories, shots, *pooled.shape[1:]).mean(dim=1)

    def forward(
        self, images: list[Tensor], targets: list[dict[str, Tensor]] | None = None
    ) -> dict[str, Tensor] | list[dict[str, Tensor]]:
        """Return the losses of a training step, or what is found on each of `images` ((3, h, w) in 0..1)."""
        if not self.training:
            found: list[dict[str, Tensor]] = super().forward(images)
            return found
        with self.head.comparing(self.measure()):
            losses: dict[str, Tensor] = super().forward(images, targets)
        return {**losses, "loss_classifier": CLASS_WEIGHT * losses["loss_classifier"]}

    def train(self, mode: bool = True) -> "ComparisonDetector":
        """Change between training and use; on leaving training, keep the prototypes of the weights as they are."""
        leaves = self.training and not mode
        super().train(mode)
        if leaves and self.references is not None:
            with torch.no_grad():
                self.head.prototypes.copy_(self.measure())
        return self


def refer(network: ComparisonDetector, recipe: DetectorRecipe, samples: Sequence[Sample], data_root: Path) -> None:
    """Give `network` its reference cells: of the recipe's folder, or of the training data."""
    side = backbones.load(recipe.backbone).reference_side
    if recipe.references:
        found = references.of_folder(data_root / recipe.references, recipe.categories, recipe.shots, side)
    else:
        found = references.of_samples(samples, recipe.categories, recipe.shots, side, recipe.seed)
    network.refer(found)


def referred(recipe: DetectorRecipe, data_root: Path) -> str:
    """Return a digest of the reference cells in the recipe's folder; empty if they are of the training data."""
    if not recipe.references:
        return ""
    return references.identity(data_root / recipe.references, recipe.categories, recipe.shots)


ARCHITECTURE = Architecture(build, prepare=refer, references=referred)
