"""`train cell`: fit the Abnormal Cell Synthesizer to annotated cells (Section III-C, IV-A)."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ..bethesda import NILM
from ..data.preview import grid, save_png
from ..foundation import noise, sampling
from ..foundation.load import load
from ..foundation.model import Foundation
from ..foundation.save import save_part
from ..io import atomic
from ..training.loop import Outcome, train
from ..training.task import Batch, Losses
from . import editing, own_decoder, synthesizer
from .crops import Crop, CropTask, diameters, evenly, images_of, read
from .edit import CellEditor, PlannedEdit
from .recipe import CellRecipe
from .settings import EditSettings
from .training_images import FILE, TrainingImages

GATES = ("alpha_attn", "alpha_dense")
TIMESTEPS = (100, 300, 500, 700)
"""Timesteps of the held-out loss."""


class CellTask(CropTask):
    """Trains the gated U-Net to repaint the box of a cell."""

    def __init__(
        self,
        recipe: CellRecipe,
        model: Foundation,
        crops: Sequence[Crop],
        held_out: Sequence[Crop],
        cache: Path,
        images: TrainingImages | None = None,
    ) -> None:
        """Extend `model`, encode `crops` (stored under `cache`); `held_out` crops are used only for previews and
        scores.

        The statistics of the training `images` are written with the weights.
        """
        super().__init__(recipe, model.freeze(), crops, held_out, cache)
        self.recipe, self.images = recipe, images
        self.editing = editing.Editing(
            box_scale=round(sum(recipe.box_scale) / 2, 4),
            zoom=recipe.zoom,
            categories=tuple(name for name in recipe.categories if name != NILM) or tuple(recipe.categories),
            nilm=NILM in recipe.categories,
            nucleus=diameters(crops),
        )
        self.unet = model.unet = synthesizer.build(model.unet)
        synthesizer.trainable(self.unet, recipe.trainable == "all")
        if recipe.gradient_checkpointing:
            self.unet.enable_gradient_checkpointing()
        self.scored_latents = [turns[0] for turns in self.encoded(self.scored, cache)]

    def batch(self, rng: np.random.Generator, size: int) -> Batch:
        """Return latents (n, C, h, w) of patches, masks, boxes, categories, and the conditions dropped for guidance."""
        drawn = self.drawn(rng, size)
        captioned = rng.random(size) >= self.recipe.caption_dropout
        boxed = rng.random(size) >= self.recipe.box_dropout
        shown = rng.random(size) >= self.recipe.joint_dropout
        if self.recipe.nucleus:
            sized = rng.random(size) >= self.recipe.nucleus_dropout
            drawn["nuclei"] *= torch.as_tensor(sized)[:, None, None, None]
        return drawn | {
            "captioned": torch.as_tensor(captioned & shown), "boxed": torch.as_tensor(boxed & shown),
        }  # fmt: skip

    def networks(self) -> list[nn.Module]:
        """Return the U-Net."""
        return [self.unet]

    def forward(self, batch: Batch) -> Losses:
        """Return the noise loss (equation 1) of `batch` through the gated U-Net."""
        noisy, target, timesteps = noise.add_noise(self.model.scheduler, batch["latents"])
        return {"loss": self._loss(batch, noisy, target, timesteps)}

    def _loss(self, batch: Batch, noisy: Tensor, target: Tensor, timesteps: Tensor) -> Tensor:
        scheduler, latents, masks = self.model.scheduler, batch["latents"], batch["masks"]
        text = self.text[(batch["category"] + 1) * batch["captioned"]]
        size = latents.shape[-1] * self.model.factor
        ground = synthesizer.grounding(batch["boxes"].tolist(), size, self.pooled[batch["category"]], batch["boxed"])
        model_input = torch.cat([noisy, synthesizer.extra_channels(latents, masks, batch["nuclei"])], dim=1)
        prediction = self.unet(model_input, timesteps, text, cross_attention_kwargs={"gligen": ground}).sample
        weight = (1 + (self.recipe.inside_weight - 1) * (1 - masks)).sqrt()
        return noise.loss(scheduler, prediction * weight, target * weight, timesteps, self.recipe.min_snr_gamma)

    def groups(self) -> list[tuple[list[nn.Parameter], float]]:
        """Return the gates with the recipe's faster rate, and the rest."""
        gates = [p for name, p in self.trained() if name.endswith(GATES)]
        rest = [p for name, p in self.trained() if not name.endswith(GATES)]
        return [(rest, 1.0), (gates, self.recipe.gate_rate)]

    def score(self) -> float:
        """Return the noise loss (equation 1) on held-out cells, evenly by class, at fixed noise and timesteps."""
        scheduler, losses = self.model.scheduler, []
        for number, (crop, latents) in enumerate(zip(self.scored, self.scored_latents, strict=True)):
            count = len(TIMESTEPS)
            batch = self.packed([crop] * count, [latents] * count) | {
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
        """Write a grid: a row for a held-out crop of each category, unedited first, then edited into every category."""
        editor = CellEditor(self.model, self.editing)
        tiles = []
        for row, crop in enumerate(evenly(self.held_out, self.names, len(self.names))):
            tiles.append(crop.pixels)
            edits = [PlannedEdit(crop.box, name, seed=row) for name in self.names]
            tiles += list(
                editor.patch(
                    np.stack([crop.pixels] * len(edits)), edits, EditSettings(), zooms=[crop.zoom] * len(edits)
                )
            )
        if tiles:
            save_png(grid(tiles, columns=1 + len(self.names)), folder / f"{step:08d}.png")

    def export(self, folder: Path) -> None:
        """Write the U-Net in diffusers' layout with GLIGEN's key names, half precision."""
        save_part(self.unet, folder, torch.float16)
        if self.recipe.decoder:
            own_decoder.write(self.model.vae, folder)
        atomic.write_json(folder / editing.FILE, self.editing.model_dump(mode="json"))
        if self.images:
            atomic.write_json(folder / FILE, self.images.model_dump(mode="json"))


def train_cell(recipe: CellRecipe, run: Path, data_root: Path, max_minutes: float | None = None) -> Outcome:
    """Train the Abnormal Cell Synthesizer in the run folder `run`, or continue it."""

    def make() -> CellTask:
        samples, crops, unseen = read(recipe, data_root, recipe.zoom, run)
        model = load(recipe.foundation, prediction_type=recipe.prediction_type)
        if recipe.decoder:
            model = own_decoder.chosen(model, Path(recipe.decoder))
        return CellTask(recipe, model, crops, unseen, run / "latents", images_of(samples, recipe))

    return train(make, recipe, run, title="cell synthesizer", max_minutes=max_minutes)
