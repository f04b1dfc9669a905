"""`train features`: fit a network to cell classes, and measure it on held-out images."""

from collections.abc import Sequence
from itertools import count
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from ..data import augment, content, varied
from ..data.image_files import Pixels
from ..data.preview import grid, save_png
from ..devices import first
from ..imagenet import efficientnet_lite
from ..io.atomic import write_json
from ..io.progress import console
from ..training.images import HELD_OUT, TRAINED, note
from ..training.loop import Outcome, train
from ..training.task import Batch, Losses, Task
from . import accuracy, crops, folds, model, networks
from .config import ClassifierConfig
from .crops import Crop
from .folds import Parts
from .recipe import ClassifierRecipe

MEAN, STD = (0.8, 0.8, 0.8), (0.2, 0.2, 0.2)
"""Mean and deviation of a bright field, 0..1, for networks trained from scratch."""
BODY_RATE = 0.3
"""Factor on the learning rate of ImageNet weights; the last layer is trained from scratch."""
SHOWN = 48


class ClassifierTask(Task):
    """Trains a cell classifier on crops, each class equally often."""

    def __init__(self, recipe: ClassifierRecipe, found: Sequence[Crop], held_out: Sequence[Crop]) -> None:
        """Build the network; `held_out` crops are only shown."""
        super().__init__()
        varied.keep_size(recipe.augment, "the classifier")
        self.recipe, self.held_out = recipe, held_out
        self.by_class = [pools(found, category, recipe.even_images) for category in recipe.categories]
        lite = recipe.architecture in efficientnet_lite.RELEASES
        middle, deviation = efficientnet_lite.MEAN / 255, efficientnet_lite.DEVIATION / 255
        self.config = ClassifierConfig(
            architecture=recipe.architecture, classes=tuple(recipe.categories), size=recipe.size,
            context=recipe.context, mean=(middle,) * 3 if lite else MEAN, std=(deviation,) * 3 if lite else STD,
            scale={Path(source.root).name: source.scale for source in recipe.data},
            enlarged=recipe.enlarged, views=recipe.views,
        )  # fmt: skip
        self.network = networks.build(recipe.architecture, len(recipe.categories))
        if recipe.start:
            networks.start(self.network, recipe.architecture, recipe.start)

    def groups(self) -> list[tuple[list[torch.nn.Parameter], float]]:
        """Return all trained parameters; ImageNet weights as a separate group, with a lower rate."""
        last = networks.last(self.network)
        if last is None or not networks.frozen(self.network):
            return super().groups()
        own = set(map(id, last.parameters()))
        body = [parameter for _, parameter in self.trained() if id(parameter) not in own]
        return [(list(last.parameters()), 1.0), (body, BODY_RATE)]

    def batch(self, rng: np.random.Generator, size: int) -> Batch:
        """Return `size` augmented crops (n, 3, size, size) and their classes (n,); classes are sampled evenly."""
        labels = rng.integers(len(self.by_class), size=size)
        images = []
        for label in labels:
            of_class = self.by_class[int(label)]
            pool = of_class[int(rng.integers(len(of_class)))]
            pixels = augmented(pool[int(rng.integers(len(pool)))], self.recipe, rng)
            images.append(model.prepare(pixels, self.config))
        return {"images": torch.stack(images), "labels": torch.from_numpy(labels)}

    def forward(self, batch: Batch) -> Losses:
        """Return the cross-entropy and, for display, the accuracy on the batch."""
        images = batch["images"].contiguous(memory_format=torch.channels_last)
        logits = self.network(images)
        loss = cross_entropy(logits, batch["labels"], label_smoothing=self.recipe.label_smoothing)
        return {"loss": loss, "accuracy": (logits.argmax(dim=1) == batch["labels"]).float().mean()}

    def preview(self, folder: Path, step: int) -> None:
        """Write held-out cells, ordered by predicted class; the frame is red if it is wrong."""
        if not self.held_out:
            return
        rng = np.random.default_rng(0)
        shown = [self.held_out[int(i)] for i in rng.permutation(len(self.held_out))[:SHOWN]]
        quick = self.config.model_copy(update={"views": 1})
        taken = accuracy.classify(model.CellClassifier(self.network, quick), shown, self.recipe.shift)
        tiles = [
            _framed(crop.pixels, self.config.classes[guess] == crop.category)
            for guess, _, crop in sorted(zip(taken, count(), shown, strict=False))
        ]
        save_png(grid(tiles, columns=8), folder / f"{step:08d}.png")

    def export(self, folder: Path) -> None:
        """Write the network and its configuration."""
        model.save(self.network, self.config, folder)


def pools(found: Sequence[Crop], category: str, even_images: bool) -> list[list[Pixels]]:
    """Return the crops of `category` by image, or in one list if images need not be equally frequent."""
    by_image: dict[str, list[Pixels]] = {}
    for crop in found:
        if crop.category == category:
            by_image.setdefault(crop.image if even_images else "", []).append(crop.pixels)
    return list(by_image.values())


def augmented(pixels: Pixels, recipe: ClassifierRecipe, rng: np.random.Generator) -> Pixels:
    """Return a random (size, size, 3) part of a crop, turned, restained and softened as `recipe` says."""
    x, y = (int(value) for value in rng.integers(2 * recipe.shift + 1, size=2))
    pixels = augment.crop(pixels, x, y, recipe.size)
    if recipe.turns:
        pixels = augment.d4(pixels, int(rng.integers(8)))
    pixels, _ = varied.at_this_step(pixels, (), recipe.augment, rng)
    return augment.soften(augment.restain(pixels, recipe.jitter, rng), recipe.blur, rng)


def train_classifier(recipe: ClassifierRecipe, run: Path, data_root: Path, max_minutes: float | None = None) -> Outcome:
    """Train a classifier in the run folder `run`, or continue it; then measure it on images that it did not see.

    These are the validation parts, or with `folds` the fold that was left out. With `folds` and no `fold` there is a
    classifier for each, in `run/fold-0` ..., and `run/cross_fitting.json` is of all cells. Returns the last outcome.
    """
    if recipe.folds == 1 or recipe.fold is not None:
        outcome, _ = _train_one(recipe, run, data_root, max_minutes)
        return outcome
    held: list[Crop] = []
    guesses = []
    for fold in range(recipe.folds):
        one = recipe.model_copy(update={"fold": fold})
        outcome, apart = _train_one(one, run / f"fold-{fold}", data_root, max_minutes)
        if outcome.stopped or not outcome.finished:
            return outcome
        if not first():  # of the processes that train together one measures; all go on to the next fold
            continue
        classifier = model.CellClassifier.load(outcome.weights)
        held += apart.held_out
        guesses.append(accuracy.classify(classifier, apart.held_out, recipe.shift))
    if not first():
        return outcome
    said = accuracy.scores(held, np.concatenate(guesses), recipe.categories)
    write_json(run / "cross_fitting.json", {"folds": recipe.folds, "step": outcome.step, **said})
    _say(said, f"cross-fitting, {recipe.folds} folds")
    return outcome


def _train_one(
    recipe: ClassifierRecipe, run: Path, data_root: Path, max_minutes: float | None
) -> tuple[Outcome, Parts]:
    apart = _parts(recipe, data_root)

    def make() -> ClassifierTask:
        if first():
            used = {TRAINED: apart.fitted, HELD_OUT: apart.held_out}
            note({name: content.of_keys(map(crops.identity, some)) for name, some in used.items()}, run)
        return ClassifierTask(recipe, apart.fitted, apart.held_out)

    outcome = train(make, recipe, run, title=f"features ({recipe.architecture})", max_minutes=max_minutes)
    if apart.held_out and first():
        classifier = model.CellClassifier.load(outcome.weights)
        guesses = accuracy.classify(classifier, apart.held_out, recipe.shift)
        said = accuracy.scores(apart.held_out, guesses, classifier.classes)
        write_json(run / "validation.json", {"step": outcome.step, **said})
        _say(said, "validation")
    return outcome, apart


def _parts(recipe: ClassifierRecipe, data_root: Path) -> Parts:
    """Return the cells to fit and to measure on; cross-fitting uses the validation parts as well."""
    held_out = crops.load(recipe, data_root, held_out=True)
    found = crops.load(recipe, data_root)
    if recipe.fold is None:
        return Parts(found, held_out)
    return folds.parts([*found, *held_out], recipe.categories, recipe.folds, recipe.fold)


def _framed(pixels: Pixels, right: bool, width: int = 2) -> Pixels:
    colour = (255, 255, 255) if right else (220, 30, 30)
    framed = np.empty((pixels.shape[0] + 2 * width, pixels.shape[1] + 2 * width, 3), np.uint8)
    framed[:] = colour
    framed[width:-width, width:-width] = pixels
    return framed


def _say(said: dict[str, object], title: str) -> None:
    for line in accuracy.lines(said, title):
        console.print(line, markup=False, soft_wrap=True)
