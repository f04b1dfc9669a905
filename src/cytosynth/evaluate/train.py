"""`train features`: fit ResNet-50 to cell classes, the feature network of FID@Cytopathology, and measure it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import cross_entropy

from .. import devices
from ..data import augment, varied
from ..data.image_files import Pixels
from ..errors import UserError
from ..io import plain
from ..io.atomic import write_json
from ..io.progress import console, meter
from ..training.loop import Outcome, train
from ..training.task import Batch, Losses, Task
from . import crops, sheet
from .crops import Crop
from .networks import cytology_resnet50, weights
from .networks.cytology_resnet50 import Classifier, CytologyConfig
from .recipe import FeatureRecipe

BATCH = 64


class FeatureTask(Task):
    """Trains a cell classifier on crops, each class equally often."""

    def __init__(self, recipe: FeatureRecipe, found: Sequence[Crop], held_out: Sequence[Crop]) -> None:
        """Build the network; `held_out` crops are only shown."""
        super().__init__()
        varied.keep_size(recipe.augment, "the feature network")
        self.recipe, self.held_out = recipe, held_out
        self.by_class = [[c.pixels for c in found if c.category == category] for category in recipe.categories]
        self.config = CytologyConfig(
            classes=tuple(recipe.categories),
            size=recipe.size,
            context=recipe.context,
            scale={Path(source.root).name: source.scale for source in recipe.data},
        )
        self.classifier = Classifier(len(recipe.categories))
        if recipe.start:
            _begin(self.classifier, Path(recipe.start))

    def batch(self, rng: np.random.Generator, size: int) -> Batch:
        """Return `size` augmented crops (n, 3, size, size) and their classes (n,); classes are drawn evenly."""
        labels = rng.integers(len(self.by_class), size=size)
        images = []
        for label in labels:
            pool = self.by_class[int(label)]
            pixels = augmented(pool[int(rng.integers(len(pool)))], self.recipe, rng)
            images.append(cytology_resnet50.prepare(pixels, self.config))
        return {"images": torch.stack(images), "labels": torch.from_numpy(labels)}

    def forward(self, batch: Batch) -> Losses:
        """Return the cross-entropy and, for the eye, the accuracy on the batch."""
        logits = self.classifier(batch["images"])
        loss = cross_entropy(logits, batch["labels"], label_smoothing=self.recipe.label_smoothing)
        return {"loss": loss, "accuracy": (logits.argmax(dim=1) == batch["labels"]).float().mean()}

    def preview(self, folder: Path, step: int) -> None:
        """Write held-out cells with their class and what the network takes them for."""
        if not self.held_out:
            return
        rng = np.random.default_rng(0)
        shown = [self.held_out[int(i)] for i in rng.permutation(len(self.held_out))[:24]]
        names = self.config.classes
        taken = predict(self.classifier, self.config, shown, self.recipe)
        captions = [f"{crop.category}, taken for {names[guess]}" for crop, guess in zip(shown, taken, strict=True)]
        sheet.write(
            folder / f"{step:08d}.png", [(c.pixels, t) for c, t in zip(shown, captions, strict=True)], columns=6
        )

    def export(self, folder: Path) -> None:
        """Write the network and its configuration."""
        cytology_resnet50.save(self.classifier, self.config, folder)


def augmented(pixels: Pixels, recipe: FeatureRecipe, rng: np.random.Generator) -> Pixels:
    """Return a random (size, size, 3) part of a crop, turned, restained and softened as `recipe` says."""
    x, y = (int(value) for value in rng.integers(2 * recipe.shift + 1, size=2))
    pixels = augment.crop(pixels, x, y, recipe.size)
    if recipe.turns:
        pixels = augment.d4(pixels, int(rng.integers(8)))
    pixels, _ = varied.at_this_step(pixels, (), recipe.augment, rng)
    return augment.soften(augment.restain(pixels, recipe.jitter, rng), recipe.blur, rng)


def _begin(classifier: Classifier, path: Path) -> None:
    """Put the weights at `path` into all of `classifier` but its last layer."""
    state = weights.read(path, known="")
    own = classifier.network.state_dict()
    weights.fill(classifier.network, {k: v for k, v in state.items() if not k.startswith("fc.")} | _last(own), path)


def _last(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key: value for key, value in state.items() if key.startswith("fc.")}


@torch.no_grad()
def predict(
    classifier: Classifier, config: CytologyConfig, found: Sequence[Crop], recipe: FeatureRecipe
) -> NDArray[np.int64]:
    """Return the class index of each crop, by the middle of it."""
    device = next(classifier.parameters()).device
    guesses = []
    for start in range(0, len(found), BATCH):
        middles = [
            augment.crop(c.pixels, recipe.shift, recipe.shift, recipe.size) for c in found[start : start + BATCH]
        ]
        images = torch.stack([cytology_resnet50.prepare(pixels, config) for pixels in middles]).to(device)
        guesses.append(classifier(images).argmax(dim=1).cpu().numpy())
    return np.concatenate(guesses)


def train_features(recipe: FeatureRecipe, run: Path, data_root: Path, max_minutes: float | None = None) -> Outcome:
    """Train the feature network in the run folder `run`, or continue it; then measure it on the validation parts."""
    held_out = crops.load(recipe, data_root, held_out=True)

    def make() -> FeatureTask:
        return FeatureTask(recipe, crops.load(recipe, data_root), held_out)

    outcome = train(make, recipe, run, title=f"features ({recipe.architecture})", max_minutes=max_minutes)
    if not held_out or not devices.first():
        return outcome
    scores = measure(outcome.weights, held_out, recipe)
    write_json(run / "validation.json", {"step": outcome.step, **scores})
    console.print(
        f"validation: accuracy {scores['accuracy']:.3f}, balanced {scores['balanced_accuracy']:.3f} "
        f"(chance {1 / len(recipe.categories):.2f}) on {len(held_out)} cells"
    )
    for category, row in scores["confusion"].items():
        taken = ", ".join(f"{count} {name}" for name, count in row.items() if count)
        console.print(f"  {category} taken for: {taken or 'none held out'}", markup=False)
    return outcome


def discrimination(folder: Path) -> str:
    """Return in words how well the network whose run exported `folder` tells held-out cells apart."""
    path = folder.parent / "validation.json"
    if not path.is_file():
        return f"how well it tells cells apart is not known; there is no {path.name} beside its weights"
    said = plain.load(path)
    classes = len(said["confusion"])
    return (
        f"balanced accuracy {said['balanced_accuracy']:.3f} on {said['cells']} held-out cells of {classes} classes "
        f"(chance {1 / classes:.2f}); distances between its features are worth no more than that"
    )


def measure(folder: Path, held_out: Sequence[Crop], recipe: FeatureRecipe) -> dict[str, Any]:
    """Return accuracy, balanced accuracy and confusion (truth to counts by guess) of the network in `folder`."""
    classifier, config = cytology_resnet50.read(folder)
    if not held_out:
        raise UserError(f"{folder}: no held-out cell to measure it on")
    with meter("classifying held-out cells", 1) as bar:
        guesses = predict(classifier, config, held_out, recipe)
        bar.advance()
    truth = np.array([config.classes.index(crop.category) for crop in held_out])
    table = np.zeros((len(config.classes),) * 2, dtype=int)
    np.add.at(table, (truth, guesses), 1)
    present = table.sum(axis=1) > 0
    recalls = table.diagonal()[present] / table.sum(axis=1)[present]
    return {
        "cells": len(held_out),
        "accuracy": float((truth == guesses).mean()),
        "balanced_accuracy": float(recalls.mean()),
        "confusion": {
            name: dict(zip(config.classes, map(int, row), strict=True))
            for name, row in zip(config.classes, table, strict=True)
        },
    }
