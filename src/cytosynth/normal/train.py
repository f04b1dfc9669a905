"""`train normal`: tune a foundation to fields full of NILM cells (Section III-B, IV-A)."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ..adapters import lora
from ..bethesda import NILM
from ..data import augment, sources
from ..data.preview import grid, save_png
from ..data.sources import Sample
from ..errors import UserError
from ..field import Box
from ..foundation import noise, sampling
from ..foundation.denoiser import NORMAL_LABELS
from ..foundation.latents import cached
from ..foundation.load import load
from ..foundation.model import Foundation
from ..training.loop import Outcome, train
from ..training.task import Batch, Losses, Task
from .recipe import NormalRecipe

ATTEMPTS = 200
"""Windows drawn before a picture is called unfit."""


class NormalTask(Task):
    """Trains an adapter on windows that hold nothing abnormal."""

    text: Tensor

    def __init__(self, recipe: NormalRecipe, model: Foundation, samples: Sequence[Sample], cache: Path) -> None:
        """Freeze `model`, add the adapter, encode the pictures of `samples` (kept under `cache`)."""
        super().__init__()
        model.freeze()
        lora.add(model.unet, recipe.rank)
        if recipe.gradient_checkpointing:
            model.unet.enable_gradient_checkpointing()
        self.recipe, self.model, self.unet = recipe, model, model.unet
        self.frozen = nn.ModuleList([model.vae, model.text_encoder])
        self.turns = range(8) if recipe.turns else range(1)
        labelled = {sample.source for sample in samples if sample.label is not None}
        known = [s for s in samples if s.cells or s.label in NORMAL_LABELS or s.source not in labelled]
        self.samples = [sample for sample in known if _usable(sample, recipe.window)]
        if not self.samples:
            raise UserError(f"no normal picture of at least {recipe.window} pixels a side in the data of the recipe")
        self.latents = cached(model, [sample.pixels for sample in self.samples], cache, self.turns)
        with torch.no_grad():
            self.register_buffer("text", model.encode_text([recipe.prompt, ""]), persistent=False)

    def batch(self, rng: np.random.Generator, size: int) -> Batch:
        """Return latents of normal windows (n, 4, window/8, window/8) and whether each keeps its prompt."""
        side = self.recipe.window // 8
        windows: list[Tensor] = []
        while len(windows) < size:
            index = int(rng.integers(len(self.samples)))
            turn = int(rng.choice(list(self.turns)))
            latent = self.latents[index][turn]
            for _ in range(ATTEMPTS):
                y, x = (int(rng.integers(extent - side + 1)) for extent in latent.shape[1:])
                if normal(self.samples[index], turn, (8 * x, 8 * y, 8 * (x + side), 8 * (y + side))):
                    windows.append(latent[:, y : y + side, x : x + side])
                    break
        empty = torch.as_tensor(rng.random(size) < self.recipe.caption_dropout)
        return {"latents": torch.stack(windows).float(), "caption": empty.long()}

    def forward(self, batch: Batch) -> Losses:
        """Return the noise loss (equation 1) of `batch`."""
        scheduler = self.model.scheduler
        noisy, target, timesteps = noise.add_noise(scheduler, batch["latents"], self.recipe.offset_noise)
        prediction = self.unet(noisy, timesteps, self.text[batch["caption"]]).sample
        return {"loss": noise.loss(scheduler, prediction, target, timesteps, self.recipe.min_snr_gamma)}

    def preview(self, folder: Path, step: int) -> None:
        """Write four windows at fixed seeds, DDIM 25, guidance 5."""
        side = self.recipe.window // 8
        images = []
        for index in range(4):
            start = sampling.noise((1, 4, side, side), 0, index).to(self.model.device)
            latents = sampling.sample(
                self.unet, sampling.ddim(self.model.scheduler), start, self.text[:1], self.text[1:]
            )
            images.append(self.model.decode_latents(latents)[0])
        save_png(grid(images, columns=2), folder / f"{step:08d}.png")

    def export(self, folder: Path) -> None:
        """Write the adapter in diffusers' layout."""
        lora.save(self.unet, folder)


def normal(sample: Sample, turn: int, window: Box) -> bool:
    """Return whether no abnormal cell has its centre in `window` (xyxy of the turned picture)."""
    height, width = sample.pixels.shape[:2]
    x0, y0, x1, y1 = window
    for cell in sample.cells:
        if cell.category != NILM:
            box = augment.d4_box(cell.box, turn, width, height)
            if x0 <= (box[0] + box[2]) / 2 <= x1 and y0 <= (box[1] + box[3]) / 2 <= y1:
                return False
    return True


def _usable(sample: Sample, window: int) -> bool:
    """Large enough, and with at least one normal window."""
    height, width = (side // 8 * 8 for side in sample.pixels.shape[:2])
    if min(height, width) < window:
        return False
    rng = np.random.default_rng(0)
    corners = ((int(rng.integers(width - window + 1)), int(rng.integers(height - window + 1))) for _ in range(ATTEMPTS))
    return any(normal(sample, 0, (x, y, x + window, y + window)) for x, y in corners)


def train_normal(recipe: NormalRecipe, run: Path, data_root: Path, max_minutes: float | None = None) -> Outcome:
    """Train the Normal Image Generator in the run folder `run`, or continue it."""

    def make() -> NormalTask:
        return NormalTask(recipe, load(recipe.foundation), sources.load(recipe.data, data_root), run / "latents")

    return train(make, recipe, run, title=f"normal ({recipe.adapter})", max_minutes=max_minutes)
