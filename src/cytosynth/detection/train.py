"""`train detector`: fit a detector to annotated fields and measure it on held-out ones."""

import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from accelerate import PartialState

from .. import boxes, devices
from ..annotations import Cell
from ..data import augment, sources, varied
from ..data.image_files import Pixels
from ..data.preview import grid, save_png, with_boxes
from ..data.sources import Sample
from ..errors import UsageError, UserError
from ..io import wording
from ..io.atomic import write_json
from ..io.progress import console
from ..training.images import noted
from ..training.loop import Outcome, train
from ..training.task import Batch, Losses, Task
from . import architecture, backbones, model, transfer
from .recipe import NO_WEIGHTS, DetectorRecipe

Measure = Callable[[model.Detector, Sequence[Sample]], Mapping[str, float]]
"""Returns `map`, `map_50`, `map_75`, `recall` and the AP of each category (0..1) of a detector on samples."""


class DetectorTask(Task):
    """Trains a detector on annotated images."""

    def __init__(
        self,
        recipe: DetectorRecipe,
        samples: Sequence[Sample],
        held_out: Sequence[Sample],
        data_root: Path = Path(),
        measure: Measure | None = None,
        synthetic: Sequence[Sample] = (),
    ) -> None:
        """Build the network; `held_out` images are only shown and measured, by `measure`.

        `synthetic` images are trained on in addition to `samples`, with the share and weight of the recipe.
        """
        super().__init__()
        transferred = transfer.is_detector(recipe.weights)
        imagenet = recipe.weights != NO_WEIGHTS and not transferred
        base = backbones.load(recipe.backbone)
        if imagenet and base.imagenet is None:
            raise UsageError(
                f"weights={recipe.weights}: no ImageNet weights for backbone={recipe.backbone}; initialise it "
                f"from {NO_WEIGHTS}, 'bundled' or the folder of a detector"
            )
        pretrained = transfer.pretrained(recipe.weights, recipe.backbone) if transferred else imagenet
        self.recipe, self.held_out, self.measure = recipe, held_out, measure
        self.real = len(samples)
        self.samples = sources.Joined([samples, synthetic]) if synthetic else samples
        self.config = model.DetectorConfig(
            architecture=recipe.architecture, backbone=recipe.backbone, categories=tuple(recipe.categories),
            pretrained=pretrained, tile=_tile(recipe, self.samples),
        )  # fmt: skip
        self.network = model.build(self.config)
        own = architecture.load(recipe.architecture)
        if transferred:
            console.print(transfer.start(self.network, recipe.weights, recipe.categories), soft_wrap=True)
        elif imagenet and own.start:
            console.print(own.start(self.network, recipe.weights), soft_wrap=True)
        elif imagenet:
            base.start(self.network.get_submodule("backbone.body"), recipe.weights)
        if own.prepare:
            own.prepare(self.network, recipe, samples, data_root)

    def groups(self) -> list[tuple[list[torch.nn.Parameter], float]]:
        """Return all trained parameters; ImageNet weights as a separate group, with their own rate."""
        own = architecture.load(self.config.architecture)
        rate = backbones.load(self.config.backbone).rate if own.rate is None else own.rate
        if rate == 1.0 or not self.config.pretrained:
            return super().groups()
        prefix = f"network.{own.backbone}"
        trained = list(self.trained())
        slow = [parameter for name, parameter in trained if name.startswith(prefix)]
        rest = [parameter for name, parameter in trained if not name.startswith(prefix)]
        return [(rest, 1.0), (slow, rate)]

    def batch(self, rng: np.random.Generator, size: int) -> Batch:
        """Return `size` augmented windows (each (3, h, w) in 0..1), torchvision's targets, and which are synthetic."""
        images, targets = [], []
        chosen = self._chosen(rng, size)
        for index in chosen:
            pixels, cells = _window(self.samples[index], self.recipe, rng)
            images.append(model.as_input(pixels))
            targets.append(model.targets(cells, self.recipe.categories))
        return {"images": images, "targets": targets, "synthetic": [index >= self.real for index in chosen]}

    def _chosen(self, rng: np.random.Generator, size: int) -> list[int]:
        """Return the indices of the images of a batch: all evenly, or synthetic ones with the share of the recipe."""
        share, count = self.recipe.synthetic_share, len(self.samples)
        if share is None or self.real in (0, count):
            return [int(index) for index in rng.integers(count, size=size)]
        made = rng.random(size) < share
        return [int(rng.integers(self.real, count) if one else rng.integers(self.real)) for one in made]

    def forward(self, batch: Batch) -> Losses:
        """Return the detection losses, under the names of their network, and their sum.

        If synthetic images have another weight than real ones, each kind has its own forward pass, and its losses are
        weighted by its number of images times its weight.
        """
        kinds = batch["synthetic"]
        if self.recipe.synthetic_weight == 1 or not any(kinds):
            losses = self._losses(batch, range(len(kinds)))
        else:
            losses = {}
            for kind, weight in ((False, 1.0), (True, self.recipe.synthetic_weight)):
                members = [index for index, synthetic in enumerate(kinds) if synthetic == kind]
                for name, value in (self._losses(batch, members) if members else {}).items():
                    losses[name] = losses.get(name, 0) + value * weight * len(members) / len(kinds)
        return {"loss": torch.stack(list(losses.values())).sum(), **losses}

    def _losses(self, batch: Batch, members: Iterable[int]) -> Losses:
        """Return the losses of the images `members` of `batch`."""
        device = next(self.network.parameters()).device
        chosen = list(members)
        images = [batch["images"][index].to(device) for index in chosen]
        targets = [{key: value.to(device) for key, value in batch["targets"][index].items()} for index in chosen]
        losses: Losses = self.network(images, targets)
        return losses

    def score(self) -> float | None:
        """Return 1 - mAP on the held-out images; raise UserError if these have no cell of a category."""
        if not self.held_out or self.measure is None:
            return None
        mean = self.measure(model.Detector(self.network, self.config), self.held_out)["map"]
        if math.isnan(mean):
            raise UserError(
                f"no held-out cell of {', '.join(self.recipe.categories)} to score on; set validate_every=0"
            )
        return 1 - mean

    def preview(self, folder: Path, step: int) -> None:
        """Write held-out images with what is found on them."""
        detector = model.Detector(self.network, self.config)
        if not self.held_out:
            return
        shown = [with_boxes(s.pixels, detector.find(s.pixels), width=2) for s in self.held_out[:4]]
        save_png(grid(shown, columns=2), folder / f"{step:08d}.png")

    def export(self, folder: Path) -> None:
        """Write the detector's weights and configuration."""
        model.save(self.network, self.config, folder)


def _tile(recipe: DetectorRecipe, samples: Sequence[Sample]) -> int:
    """Return the side of the tiles to read large images in; where boxes are fractions, of what is seen in training."""
    if not architecture.load(recipe.architecture).fractions:
        return model.TILE
    return recipe.window or max([model.TILE, *(side for sample in samples for side in sample.size)])


def _window(sample: Sample, recipe: DetectorRecipe, rng: np.random.Generator) -> tuple[Pixels, list[Cell]]:
    """Return a random window of `sample` with the cells whose centre lies in it, changed as `recipe` says."""
    pixels, cells = sample.pixels, [cell for cell in sample.cells if not cell.crowd]
    if recipe.window:
        width, height = min(recipe.window, pixels.shape[1]), min(recipe.window, pixels.shape[0])
        x, y = int(rng.integers(pixels.shape[1] - width + 1)), int(rng.integers(pixels.shape[0] - height + 1))
        pixels = pixels[y : y + height, x : x + width]
        cells = [c.moved(-x, -y) for c in cells if x <= c.centre[0] < x + width and y <= c.centre[1] < y + height]
    height, width = pixels.shape[:2]
    cells = [Cell(boxes.clip(cell.box, width, height), cell.category) for cell in cells]
    cells = [cell for cell in cells if min(cell.size) >= 1]
    if recipe.turns:
        turn = int(rng.integers(8))
        pixels = augment.d4(pixels, turn)
        cells = [Cell(augment.d4_box(cell.box, turn, width, height), cell.category) for cell in cells]
    pixels, cells = varied.at_this_step(pixels, cells, recipe.augment, rng)
    return augment.soften(augment.restain(pixels, recipe.jitter, rng), recipe.blur, rng), cells


def train_detector(
    recipe: DetectorRecipe,
    run: Path,
    data_root: Path,
    max_minutes: float | None = None,
    measure: Measure | None = None,
) -> Outcome:
    """Train a detector in the run folder `run`, or continue it; then `measure` it on the validation parts.

    Raises UsageError for a share or weight of synthetic images where there are none, if there are no held-out images to
    select the best weights by, and if `run` was started with other images.
    """
    if not recipe.synthetic and (recipe.synthetic_share is not None or recipe.synthetic_weight != 1):
        name = "synthetic_weight" if recipe.synthetic_share is None else "synthetic_share"
        raise UsageError(f"{name}: no effect without synthetic images; name them, --set 'synthetic=[{{root: ...}}]'")
    held_out = sources.held_out(recipe.data, data_root)
    samples = sources.load(recipe.data, data_root)
    synthetic = sources.load(recipe.synthetic, data_root, "reading synthetic images") if recipe.synthetic else []
    trained_on = sources.Joined([samples, synthetic]) if synthetic else samples
    _some(trained_on, recipe.categories)
    recipe = recipe.model_copy(update={"max_steps": steps(recipe, len(samples) + len(synthetic))})
    if not held_out and 0 < recipe.validate_every <= recipe.max_steps:
        raise UsageError(
            f"validate_every={recipe.validate_every}: there are no held-out images (part 'val') to select the best "
            "weights by; add a part 'val', or set it to 0"
        )
    console.print(f"{recipe.architecture} on {recipe.backbone}, weights from: {recipe.weights}", soft_wrap=True)

    def make() -> DetectorTask:
        own = architecture.load(recipe.architecture)
        noted(trained_on, run, held_out, own.references(recipe, data_root) if own.references else "")
        return DetectorTask(recipe, samples, held_out, data_root, measure, synthetic)

    outcome = train(make, recipe, run, title=f"detector ({recipe.architecture})", max_minutes=max_minutes)
    if not held_out or measure is None or not devices.first():
        return outcome
    detector = model.load(outcome.selected)
    detector.network.to(PartialState().device)
    scores = measure(detector, held_out)
    write_json(run / "validation.json", {"step": outcome.selected_step, "images": len(held_out), **_rounded(scores)})
    console.print("validation: mAP {map:.3f}, mAP.5 {map_50:.3f}, mAP.75 {map_75:.3f}".format_map(scores))
    return outcome


def _some(samples: Sequence[Sample], categories: Sequence[str]) -> None:
    """Raise UserError if `samples` have no cell of any of the `categories` to be found; name those without."""
    there = sources.say_lacking(samples, categories)
    if there.isdisjoint(categories):
        raise UserError(
            f"the training data have no {' or '.join(categories)} cell, but {wording.listed(there)}; "
            "set the categories to detect: --set categories=[...]"
        )


def steps(recipe: DetectorRecipe, images: int) -> int:
    """Return the optimiser steps of `recipe` on this number of `images`, over all processes."""
    if recipe.epochs is None:
        return recipe.max_steps
    together = recipe.batch_size * recipe.gradient_accumulation * int(os.environ.get("WORLD_SIZE", "1"))
    return min(recipe.max_steps, math.ceil(recipe.epochs * images / together))


def _rounded(scores: Mapping[str, float]) -> dict[str, float | None]:
    return {name: round(value, 4) if value == value else None for name, value in scores.items()}
