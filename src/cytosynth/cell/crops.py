"""Patches around cells to train on, and the parts that every training on them shares."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ..annotations import Box, Cell
from ..bethesda import abnormal_prompt
from ..data import augment, sources, varied
from ..data.image_files import Pixels
from ..data.sources import Sample
from ..errors import UserError
from ..foundation.latents import cached, encoding_dtype
from ..foundation.model import Foundation
from ..io.progress import meter
from ..training.images import noted
from ..training.task import Task
from . import patch, synthesizer
from .close_up import CloseUp
from .editing import QUANTILES
from .quality.morphology import nucleus_square
from .recipe import CropRecipe
from .training_images import TrainingImages


@dataclass(frozen=True)
class Crop:
    """A training patch.

    Attributes:
        pixels: (size, size, 3).
        box: what to repaint, xyxy.
        category: of the cell.
        nucleus: the square about its nucleus, xyxy, where that is a condition and found.
        image: number of the image that it is cut from.
        zoom: the factor by which it was enlarged: box and nucleus are in enlarged pixels.
    """

    pixels: Pixels
    box: Box
    category: str
    nucleus: Box | None = None
    image: int = 0
    zoom: float = 1.0


class CropTask(Task):
    """Trains on patches around cells: their latents, and the embeddings of their categories.

    Attributes:
        crops: what is trained on.
        held_out: crops that are used only for previews and scores.
        names: the categories of `crops`, sorted.
        text: (1 + categories, length, channels) embeddings of the empty prompt and of each category's.
        pooled: (categories, channels) pooled embeddings of their names, f_text of equation 3.
        scored: those of `held_out` that a score is computed on, classes equally frequent.
    """

    text: Tensor
    pooled: Tensor

    def __init__(
        self, recipe: CropRecipe, model: Foundation, crops: Sequence[Crop], held_out: Sequence[Crop], cache: Path
    ) -> None:
        """Encode `crops` with `model`, which is a synthesizer, and those of `held_out` that are scored.

        The latents are kept under `cache`.
        """
        super().__init__()
        self.model, self.crops, self.held_out = model, crops, held_out
        self.balance, self.image_balance = recipe.balance, recipe.image_balance
        self.frozen = nn.ModuleList([model.vae, model.text_encoder])
        self.dtype = encoding_dtype(recipe.mixed_precision)
        self.latents = [turns[0] for turns in self.encoded(crops, cache)]
        self.names = sorted({crop.category for crop in crops})
        with torch.no_grad():
            texts = ["", *map(abnormal_prompt, self.names)]
            self.register_buffer("text", model.encode_text(texts), persistent=False)
            self.register_buffer("pooled", model.pool_text(self.names), persistent=False)
        self.scored = evenly(held_out, self.names, recipe.validate_count) if recipe.validate_every else []
        if recipe.validate_every and not self.scored:
            raise UserError(
                f"no held-out cell of {', '.join(self.names)} to select the best weights; add a part 'val', or set "
                "validate_every=0"
            )
        self.weights = self._weights()

    def encoded(self, crops: Sequence[Crop], cache: Path) -> list[list[Tensor]]:
        """Return the latents of `crops`, one orientation each, stored under `cache`."""
        return cached(self.model, crops, cache, [0], self.dtype)

    def _weights(self) -> np.ndarray:
        """Return the sampling weight of each crop."""
        counts = np.array([sum(crop.category == name for crop in self.crops) for name in self.names], dtype=np.float64)
        shares = counts / counts.sum() * (1 - self.balance) + self.balance / len(self.names)
        own = Counter((crop.category, crop.image) for crop in self.crops)
        even = np.array([own[crop.category, crop.image] ** -self.image_balance for crop in self.crops])
        index = np.array([self.names.index(crop.category) for crop in self.crops])
        sums = np.bincount(index, even, minlength=len(self.names))
        return np.asarray(shares[index] * even / sums[index])

    def drawn(self, rng: np.random.Generator, size: int) -> dict[str, Tensor]:
        """Return `latents` (n, C, h, w) of crops that `rng` determines, and all else of `packed`."""
        chosen = rng.choice(len(self.crops), size, p=self.weights / self.weights.sum())
        return self.packed([self.crops[index] for index in chosen], [self.latents[index] for index in chosen])

    def place(self, device: torch.device) -> None:
        """Move the latents to `device`."""
        self.latents = [latent.to(device) for latent in self.latents]

    def packed(self, crops: Sequence[Crop], latents: Sequence[Tensor]) -> dict[str, Tensor]:
        """Return `crops` and their `latents` as a batch: also `masks`, `nuclei`, `boxes`, `zooms` and `category`.

        Masks, nuclei and boxes are in the pixels of the crops, which may be enlarged.
        """
        size, factor = latents[0].shape[-1] * self.model.factor, self.model.factor
        return {
            "latents": torch.stack(list(latents)).float(),
            "masks": torch.stack([synthesizer.mask_of(crop.box, size, factor) for crop in crops]),
            "nuclei": torch.stack([synthesizer.disc_of(crop.nucleus, size, factor) for crop in crops]),
            "boxes": torch.tensor([crop.box for crop in crops]),
            "zooms": torch.tensor([crop.zoom for crop in crops]),
            "category": torch.tensor([self.names.index(crop.category) for crop in crops]),
        }


def diameters(crops: Sequence[Crop]) -> dict[str, tuple[float, ...]]:
    """Return `QUANTILES` of the diameters of the nuclei in `crops`, pixels of the image, by category, where known."""
    found: dict[str, list[float]] = {}
    for crop in crops:
        if crop.nucleus is not None:
            found.setdefault(crop.category, []).append((crop.nucleus[2] - crop.nucleus[0]) / crop.zoom)
    return {name: tuple(np.quantile(values, QUANTILES).round(2).tolist()) for name, values in sorted(found.items())}


def evenly(crops: Sequence[Crop], names: Sequence[str], count: int) -> list[Crop]:
    """Return about `count` of `crops`, evenly spread, the categories `names` as equally frequent as possible."""
    chosen = []
    for name in names:
        own = [crop for crop in crops if crop.category == name]
        most = min(-(-count // len(names)), len(own))
        chosen += [own[int(index)] for index in np.linspace(0, len(own) - 1, most)]
    return chosen


def crops_of(samples: Sequence[Sample], recipe: CropRecipe, variants: int, zoom: float = 1.0) -> list[Crop]:
    """Return `variants` patches of every cell of the recipe's categories: rotated, shifted, box scaled.

    They are close-ups, enlarged by `zoom`.

    At borders, patches are moved into the image, never padded, and contain the whole box; each depends on (recipe seed,
    image, cell, variant).
    """
    cells: dict[str, list[tuple[int, int]]] = {}
    for index, sample in enumerate(samples):
        if min(sample.size) >= patch.SIZE:
            for number, cell in enumerate(sample.cells):
                if cell.category in recipe.categories and min(cell.size) > 0:
                    cells.setdefault(cell.category, []).append((index, number))
    crops = []
    for category in sorted(cells):
        order = np.random.default_rng([recipe.seed, len(cells[category])]).permutation(len(cells[category]))
        for index, number in (cells[category][i] for i in sorted(order[: recipe.most_cells])):
            pixels = samples[index].pixels
            for variant in range(variants):
                rng = np.random.default_rng([recipe.seed, index, number, variant])
                crop = _crop(pixels, samples[index].cells[number], recipe, variant, zoom, rng)
                crops.append(replace(crop, image=index))
    return crops


def read(
    recipe: CropRecipe, data_root: Path, zoom: float = 1.0, run: Path | None = None
) -> tuple[list[Sample], list[Crop], list[Crop]]:
    """Return the samples of `recipe`, with their varied copies, their crops, and those of held-out images.

    All crops are enlarged by `zoom`. All images are noted in the folder `run`.

    Raises UserError if there is none to train on, UsageError if `run` was started with others; prints a line for each
    category without any.
    """
    found, held_out = sources.load(recipe.data, data_root), sources.held_out(recipe.data, data_root)
    if run is not None:
        noted(found, run, held_out)
    sources.say_lacking(found, recipe.categories)
    samples = list(varied.with_copies(found, recipe.augment, recipe.augment_copies, recipe.seed))
    crops = crops_of(samples, recipe, recipe.variants, zoom)
    if not crops:
        raise UserError(f"no cell of {', '.join(recipe.categories)} in images of at least {patch.SIZE} pixels")
    return samples, crops, crops_of(held_out, recipe, 1, zoom)


def images_of(samples: Sequence[Sample], recipe: CropRecipe) -> TrainingImages | None:
    """Return the statistics of the `samples` that `crops_of` cuts from."""
    used = [s for s in samples if min(s.size) >= patch.SIZE and any(c.category in recipe.categories for c in s.cells)]

    def images() -> Iterator[Pixels]:
        with meter("stain of the training images", len(used)) as bar:
            for sample in used:
                yield sample.pixels
                bar.advance()

    return TrainingImages.of(images())


def _crop(pixels: Pixels, cell: Cell, recipe: CropRecipe, variant: int, zoom: float, rng: np.random.Generator) -> Crop:
    height, width = pixels.shape[:2]
    low, high = recipe.box_scale
    box = patch.enlarge(cell.box, float(rng.uniform(low, high)), width, height)
    drawn = rng.integers(-recipe.jitter, recipe.jitter + 1, 2)
    side = CloseUp.of(box, zoom).side
    drawn = drawn * side // patch.SIZE
    room = [(side - int(extent)) // 2 for extent in (box[2] - box[0], box[3] - box[1])]
    dx, dy = (float(min(max(value, -most), most)) for value, most in zip(drawn, room, strict=True))
    moved = (box[0] + dx, box[1] + dy, box[2] + dx, box[3] + dy)
    x, y = patch.corner(moved, width, height)
    inner = (box[0] - x, box[1] - y, box[2] - x, box[3] - y)
    turn = 0 if recipe.variants == 1 else int(rng.permutation(8)[variant % 8])
    window = augment.crop(pixels, x, y, patch.SIZE)
    nucleus = nucleus_square(window, patch.inner(cell.box, (x, y))) if recipe.nucleus else None
    close = CloseUp(patch.corner(patch.inner(moved, (x, y)), patch.SIZE, patch.SIZE, side), side)
    window = close.of_patch(window)
    turned = [
        None if b is None else augment.d4_box(close.inner(b), turn, patch.SIZE, patch.SIZE) for b in (inner, nucleus)
    ]
    assert turned[0] is not None
    pixels = np.ascontiguousarray(augment.d4(window, turn))
    return Crop(pixels, turned[0], cell.category, turned[1], zoom=close.zoom)
