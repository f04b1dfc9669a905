"""`train cell`: fit the Abnormal Cell Synthesizer to annotated cells (Section III-C, IV-A)."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ..annotations import Box, Cell
from ..bethesda import NILM, abnormal_prompt
from ..data import augment, sources, varied
from ..data.image_files import Pixels
from ..data.preview import grid, save_png
from ..data.sources import Sample
from ..errors import UserError
from ..foundation import noise, sampling
from ..foundation.latents import cached
from ..foundation.load import load
from ..foundation.model import Foundation
from ..foundation.parts import save_part
from ..io import atomic
from ..io.progress import meter
from ..training.loop import Outcome, train
from ..training.task import Batch, Losses, Task
from . import editing, patch, synthesizer
from .edit import CellEditor, PlannedEdit
from .recipe import CellRecipe
from .settings import EditSettings
from .training_images import FILE, TrainingImages

GATES = ("alpha_attn", "alpha_dense")
TIMESTEPS = (100, 300, 500, 700)
"""At which the held-out loss is taken."""


@dataclass(frozen=True)
class Crop:
    """A training patch: its pixels, the box to repaint in it, its category."""

    pixels: Pixels
    box: Box
    category: str


class CellTask(Task):
    """Trains the gated U-Net to repaint the box of a cell."""

    text: Tensor
    pooled: Tensor

    def __init__(
        self,
        recipe: CellRecipe,
        model: Foundation,
        crops: Sequence[Crop],
        held_out: Sequence[Crop],
        cache: Path,
        images: TrainingImages | None = None,
    ) -> None:
        """Extend `model`, encode `crops` (kept under `cache`); `held_out` crops are only shown and scored.

        What the training `images` are like is written with the weights.
        """
        super().__init__()
        model.freeze()
        self.recipe, self.model, self.crops, self.held_out = recipe, model, crops, held_out
        self.images = images
        self.unet = model.unet = synthesizer.build(model.unet)
        self.frozen = nn.ModuleList([model.vae, model.text_encoder])
        synthesizer.trainable(self.unet, recipe.trainable == "all")
        if recipe.gradient_checkpointing:
            self.unet.enable_gradient_checkpointing()
        self.latents = [turns[0] for turns in cached(model, crops, cache, [0])]
        names = sorted({crop.category for crop in crops})
        counts = np.array([sum(crop.category == name for crop in crops) for name in names], dtype=np.float64)
        shares = counts / counts.sum() * (1 - recipe.balance) + recipe.balance / len(names)
        self.weights = np.array([(shares / counts)[names.index(crop.category)] for crop in crops])
        with torch.no_grad():
            self.register_buffer("text", model.encode_text(["", *map(abnormal_prompt, names)]), persistent=False)
            self.register_buffer("pooled", model.pool_text(names), persistent=False)
        self.names = names
        self.scored = _evenly(held_out, names, recipe.validate_count) if recipe.validate_every else []
        if recipe.validate_every and not self.scored:
            raise UserError(
                f"no held-out cell of {', '.join(names)} to select the best by; add a part 'val', or set "
                "validate_every=0"
            )
        self.scored_latents = [turns[0] for turns in cached(model, self.scored, cache, [0])]

    def batch(self, rng: np.random.Generator, size: int) -> Batch:
        """Return latents (n, C, h, w) of patches, masks, boxes, categories, and what is withheld for guidance."""
        chosen = rng.choice(len(self.crops), size, p=self.weights / self.weights.sum())
        captioned = rng.random(size) >= self.recipe.caption_dropout
        boxed = rng.random(size) >= self.recipe.box_dropout
        shown = rng.random(size) >= self.recipe.joint_dropout
        return self._packed([self.crops[index] for index in chosen], [self.latents[index] for index in chosen]) | {
            "captioned": torch.as_tensor(captioned & shown), "boxed": torch.as_tensor(boxed & shown),
        }  # fmt: skip

    def networks(self) -> list[nn.Module]:
        """Return the U-Net."""
        return [self.unet]

    def place(self, device: torch.device) -> None:
        """Move the latents to `device`."""
        self.latents = [latent.to(device) for latent in self.latents]

    def _packed(self, crops: Sequence[Crop], latents: Sequence[Tensor]) -> dict[str, Tensor]:
        size, factor = latents[0].shape[-1] * self.model.factor, self.model.factor
        return {
            "latents": torch.stack(list(latents)).float(),
            "masks": torch.stack([synthesizer.mask_of(crop.box, size, factor) for crop in crops]),
            "boxes": torch.tensor([crop.box for crop in crops]),
            "category": torch.tensor([self.names.index(crop.category) for crop in crops]),
        }

    def forward(self, batch: Batch) -> Losses:
        """Return the noise loss (equation 1) of `batch` through the gated U-Net."""
        noisy, target, timesteps = noise.add_noise(self.model.scheduler, batch["latents"])
        return {"loss": self._loss(batch, noisy, target, timesteps)}

    def _loss(self, batch: Batch, noisy: Tensor, target: Tensor, timesteps: Tensor) -> Tensor:
        scheduler, latents, masks = self.model.scheduler, batch["latents"], batch["masks"]
        text = self.text[(batch["category"] + 1) * batch["captioned"]]
        size = latents.shape[-1] * self.model.factor
        ground = synthesizer.grounding(batch["boxes"].tolist(), size, self.pooled[batch["category"]], batch["boxed"])
        model_input = torch.cat([noisy, synthesizer.extra_channels(latents, masks)], dim=1)
        prediction = self.unet(model_input, timesteps, text, cross_attention_kwargs={"gligen": ground}).sample
        weight = (1 + (self.recipe.inside_weight - 1) * (1 - masks)).sqrt()
        return noise.loss(scheduler, prediction * weight, target * weight, timesteps, self.recipe.min_snr_gamma)

    def groups(self) -> list[tuple[list[nn.Parameter], float]]:
        """Return the gates with the recipe's faster rate, and the rest."""
        gates = [p for name, p in self.trained() if name.endswith(GATES)]
        rest = [p for name, p in self.trained() if not name.endswith(GATES)]
        return [(rest, 1.0), (gates, self.recipe.gate_rate)]

    def score(self) -> float:
        """Return the noise loss (equation 1) on held-out cells, classes even, at fixed noise and timesteps."""
        scheduler, losses = self.model.scheduler, []
        for number, (crop, latents) in enumerate(zip(self.scored, self.scored_latents, strict=True)):
            count = len(TIMESTEPS)
            batch = self._packed([crop] * count, [latents] * count) | {
                "captioned": torch.ones(count, dtype=torch.bool), "boxed": torch.ones(count, dtype=torch.bool),
            }  # fmt: skip
            batch = {key: value.to(self.text.device) for key, value in batch.items()}
            clean, timesteps = batch["latents"], torch.tensor(TIMESTEPS, device=self.text.device)
            drawn = sampling.noise(clean.shape, number).to(clean)
            noisy = scheduler.add_noise(clean, drawn, timesteps)
            target = noise.target(scheduler, clean, drawn, timesteps)
            losses.append(float(self._loss(batch, noisy, target, timesteps)))
        return float(np.mean(losses))

    def preview(self, folder: Path, step: int) -> None:
        """Write a grid: a row for a held-out crop of each category, first as it is, then as every category."""
        editor = CellEditor(self.model)
        tiles = []
        for row, crop in enumerate(_evenly(self.held_out, self.names, len(self.names))):
            tiles.append(crop.pixels)
            edits = [PlannedEdit(crop.box, name, seed=row) for name in self.names]
            tiles += list(editor.patch(np.stack([crop.pixels] * len(edits)), edits, EditSettings()))
        if tiles:
            save_png(grid(tiles, columns=1 + len(self.names)), folder / f"{step:08d}.png")

    def export(self, folder: Path) -> None:
        """Write the U-Net in diffusers' layout with GLIGEN's key names, half precision."""
        save_part(self.unet, folder, torch.float16)
        abnormal = [name for name in self.recipe.categories if name != NILM]
        scale = round(sum(self.recipe.box_scale) / 2, 4)
        atomic.write_json(folder / editing.FILE, {"box_scale": scale, "categories": abnormal})
        if self.images:
            atomic.write_json(folder / FILE, self.images.model_dump(mode="json"))


def _evenly(crops: Sequence[Crop], names: Sequence[str], count: int) -> list[Crop]:
    """Return about `count` of `crops`, as many of each of the categories `names` as there are, evenly spread."""
    chosen = []
    for name in names:
        own = [crop for crop in crops if crop.category == name]
        most = min(-(-count // len(names)), len(own))
        chosen += [own[int(index)] for index in np.linspace(0, len(own) - 1, most)]
    return chosen


def crops_of(samples: Sequence[Sample], recipe: CellRecipe, variants: int) -> list[Crop]:
    """Return `variants` patches of every cell of the recipe's categories: turned, jittered, box scaled.

    Patches are moved inside at borders, never padded, and hold the whole box; each depends on (recipe seed, image,
    cell, variant).
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
                crops.append(_crop(pixels, samples[index].cells[number], recipe, variant, rng))
    return crops


def images_of(samples: Sequence[Sample], recipe: CellRecipe) -> TrainingImages | None:
    """Return what those `samples` are like that `crops_of` cuts from."""
    used = [s for s in samples if min(s.size) >= patch.SIZE and any(c.category in recipe.categories for c in s.cells)]

    def images() -> Iterator[Pixels]:
        with meter("stain of the training images", len(used)) as bar:
            for sample in used:
                yield sample.pixels
                bar.advance()

    return TrainingImages.of(images())


def _crop(pixels: Pixels, cell: Cell, recipe: CellRecipe, variant: int, rng: np.random.Generator) -> Crop:
    height, width = pixels.shape[:2]
    low, high = recipe.box_scale
    box = patch.enlarge(cell.box, float(rng.uniform(low, high)), width, height)
    drawn = rng.integers(-recipe.jitter, recipe.jitter + 1, 2)
    room = [(patch.SIZE - int(extent)) // 2 for extent in (box[2] - box[0], box[3] - box[1])]
    dx, dy = (float(min(max(value, -most), most)) for value, most in zip(drawn, room, strict=True))
    moved = (box[0] + dx, box[1] + dy, box[2] + dx, box[3] + dy)
    x, y = patch.corner(moved, width, height)
    inner = (box[0] - x, box[1] - y, box[2] - x, box[3] - y)
    turn = 0 if recipe.variants == 1 else int(rng.permutation(8)[variant % 8])
    window = np.ascontiguousarray(augment.d4(augment.crop(pixels, x, y, patch.SIZE), turn))
    return Crop(window, augment.d4_box(inner, turn, patch.SIZE, patch.SIZE), cell.category)


def train_cell(recipe: CellRecipe, run: Path, data_root: Path, max_minutes: float | None = None) -> Outcome:
    """Train the Abnormal Cell Synthesizer in the run folder `run`, or continue it."""

    def make() -> CellTask:
        found = sources.load(recipe.data, data_root)
        sources.say_lacking(found, recipe.categories)
        samples = varied.with_copies(found, recipe.augment, recipe.augment_copies, recipe.seed)
        crops = crops_of(samples, recipe, recipe.variants)
        if not crops:
            raise UserError(f"no cell of {', '.join(recipe.categories)} in images of at least {patch.SIZE} pixels")
        unseen = crops_of(sources.held_out(recipe.data, data_root), recipe, 1)
        model = load(recipe.foundation, prediction_type=recipe.prediction_type)
        return CellTask(recipe, model, crops, unseen, run / "latents", images_of(samples, recipe))

    return train(make, recipe, run, title="cell synthesizer", max_minutes=max_minutes)
