"""Training a U-Net from scratch, under a frozen text encoder: the second half of the bundled foundation.

Each crop is captioned by what it holds, in the words of the paper's prompts, so that the bundled
foundation answers to the same text as Stable Diffusion does after tuning. Part of the crops lie around an
abnormal cell, rare categories as often as common ones: taken evenly from the images, one crop in five holds any.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTokenizer

from ...bethesda import ABNORMAL, NILM, NORMAL_LABELS, NORMAL_PROMPT, abnormal_prompt
from ...data import augment
from ...data.preview import grid, save_png
from ...data.sources import Sample
from ...errors import UserError
from ...training.task import Batch, Losses, Task
from .. import noise, samplers, sampling
from ..latents import cached
from ..load import save
from ..model import Foundation
from .recipe import DenoiserRecipe

FIELD = 384
"""Side of the fields that a preview shows, pixels."""
ANY_PROMPT = "A cervical cytopathological image"


def build(
    recipe: DenoiserRecipe, vae: AutoencoderKL, tokenizer: CLIPTokenizer, text_encoder: CLIPTextModel
) -> Foundation:
    """Return a Foundation with an untrained denoiser around `vae` and `text_encoder`."""
    levels = range(len(recipe.block_out_channels))
    attends = [level in recipe.attention_levels for level in levels]
    channels = vae.config.latent_channels
    unet = UNet2DConditionModel(
        in_channels=channels,
        out_channels=channels,
        sample_size=max(recipe.crops),
        block_out_channels=tuple(recipe.block_out_channels),
        down_block_types=tuple("CrossAttnDownBlock2D" if attend else "DownBlock2D" for attend in attends),
        up_block_types=tuple("CrossAttnUpBlock2D" if attend else "UpBlock2D" for attend in reversed(attends)),
        layers_per_block=recipe.layers_per_block,
        cross_attention_dim=text_encoder.config.hidden_size,
        attention_head_dim=recipe.heads,
        norm_num_groups=recipe.norm_num_groups,
    )
    scheduler = DDPMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False, steps_offset=1
    )
    return Foundation(unet, vae, text_encoder, tokenizer, scheduler, "new")


class DenoiserTask(Task):
    """Trains the U-Net of a Foundation on captioned crops of latents."""

    def __init__(self, recipe: DenoiserRecipe, model: Foundation, samples: Sequence[Sample], cache: Path) -> None:
        """Encode `samples` (kept under `cache`) and get ready."""
        super().__init__()
        self.recipe, self.samples = recipe, samples
        self.model = model
        model.freeze()
        self.unet = model.unet.requires_grad_(True)
        self.frozen = nn.ModuleList([model.text_encoder, model.vae])
        self.latents = cached(model, samples, cache, range(8))
        for sample in samples:
            if min(sample.size) // model.factor < max(recipe.crops):
                side = model.factor * max(recipe.crops)
                raise UserError(f"{sample.name}: at its scale smaller than the crops of {side} pixels")
        areas = np.array([latent[0].numel() for latent in self.latents], dtype=np.float64)
        self.weights = areas / areas.sum()
        self.cells: dict[str, list[tuple[int, int]]] = {}
        for index, sample in enumerate(samples):
            for number, cell in enumerate(sample.cells):
                if cell.category != NILM:
                    self.cells.setdefault(cell.category, []).append((index, number))
        self.names = sorted(self.cells)

    def batch(self, rng: np.random.Generator, size: int) -> Batch:
        """Return latent crops (n, C, side, side), n scaled so that n x side^2 stays level, with token ids."""
        side = int(rng.choice(self.recipe.crops))
        count = max(1, round(size * self.recipe.crops[0] ** 2 / side**2))
        crops, captions = [], []
        for index in rng.choice(len(self.samples), count, p=self.weights):
            turn = int(rng.integers(8))
            if self.names and rng.random() < self.recipe.cell_share:
                text, latent = self._around_cell(side, turn, rng)
            else:
                text, latent = self._anywhere(int(index), side, turn, rng)
            crops.append(latent)
            captions.append("" if rng.random() < self.recipe.caption_dropout else text)
        return {"latents": torch.stack(crops).float(), "token_ids": self.model.token_ids(captions)}

    def networks(self) -> list[nn.Module]:
        """Return the U-Net."""
        return [self.unet]

    def place(self, device: torch.device) -> None:
        """Move the latents to `device`."""
        self.latents = [[turn.to(device) for turn in turns] for turns in self.latents]

    def _anywhere(self, index: int, side: int, turn: int, rng: np.random.Generator) -> tuple[str, Tensor]:
        """Return caption and latents of a crop that lies anywhere in the image `index`."""
        latent = self.latents[index][turn]
        y, x = (int(rng.integers(extent - side + 1)) for extent in latent.shape[1:])
        factor = self.model.factor
        window = (factor * x, factor * y, factor * (x + side), factor * (y + side))
        return caption(self.samples[index], turn, window, rng), latent[:, y : y + side, x : x + side]

    def _around_cell(self, side: int, turn: int, rng: np.random.Generator) -> tuple[str, Tensor]:
        """Return caption and latents of a crop whose middle half holds an abnormal cell."""
        category = self.names[int(rng.integers(len(self.names)))]
        index, number = self.cells[category][int(rng.integers(len(self.cells[category])))]
        sample, latent = self.samples[index], self.latents[index][turn]
        width, height = sample.size
        box = augment.d4_box(sample.cells[number].box, turn, width, height)
        corner = []
        for low, high, extent in zip(box[:2], box[2:], (latent.shape[2], latent.shape[1]), strict=True):
            place = (low + high) / 2 / self.model.factor - side * float(rng.uniform(0.25, 0.75))
            corner.append(min(max(round(place), 0), extent - side))
        x, y = corner
        return abnormal_prompt(category), latent[:, y : y + side, x : x + side]

    def forward(self, batch: Batch) -> Losses:
        """Return the noise loss (equation 1) of `batch`."""
        noisy, target, timesteps = noise.add_noise(self.model.scheduler, batch["latents"], self.recipe.offset_noise)
        text = self.model.text_encoder(batch["token_ids"]).last_hidden_state
        prediction = self.unet(noisy, timesteps, text).sample
        mse = noise.loss(self.model.scheduler, prediction, target, timesteps)
        if self.recipe.min_snr_gamma is None:
            return {"loss": mse}
        weighted = noise.loss(self.model.scheduler, prediction, target, timesteps, self.recipe.min_snr_gamma)
        return {"loss": weighted, "mse": mse}

    def preview(self, folder: Path, step: int) -> None:
        """Write eight fields, guidance 3: four normal, then the abnormal categories from one noise."""
        prompts = [NORMAL_PROMPT] * 4 + [abnormal_prompt(category) for category in ABNORMAL]
        side = FIELD // self.model.factor
        shape = (1, self.model.channels, side, side)
        start = torch.cat([sampling.noise(shape, 0, min(index, 4)) for index in range(len(prompts))])
        images = draw(self.model, start, prompts, guidance_scale=3.0)
        save_png(grid(list(images), columns=4), folder / f"{step:08d}.png")

    def export(self, folder: Path) -> None:
        """Write the whole Foundation in diffusers' folder layout, half precision."""
        save(self.model, folder, torch.float16)


def draw(
    model: Foundation, start: Tensor, prompts: Sequence[str], *, steps: int = 25, guidance_scale: float = 5.0
) -> np.ndarray:
    """Return (n, factor h, factor w, 3) images of `prompts`, sampled by DDIM from `start` (n, C, h, w)."""
    with torch.no_grad():
        text, empty = model.encode_text(prompts), model.encode_text([""] * len(prompts))
        denoise = sampling.guided(model.unet, text, empty, guidance_scale=guidance_scale)
        latents = sampling.sample(denoise, samplers.build("ddim", model.scheduler), start.to(text), steps=steps)
        return np.concatenate([model.decode_latents(latent[None]) for latent in latents])


def caption(sample: Sample, turn: int, window: tuple[int, int, int, int], rng: np.random.Generator) -> str:
    """Return what the `window` (xyxy pixels of the turned image) of `sample` shows, as a prompt."""
    width, height = sample.size
    boxes = [(augment.d4_box(cell.box, turn, width, height), cell.category) for cell in sample.cells]
    x0, y0, x1, y1 = window
    abnormal = sorted(
        {name for b, name in boxes if name != NILM and x0 < (b[0] + b[2]) / 2 < x1 and y0 < (b[1] + b[3]) / 2 < y1}
    )
    if abnormal:
        return abnormal_prompt(str(rng.choice(abnormal)))
    if sample.cells or sample.label in NORMAL_LABELS:
        return NORMAL_PROMPT
    return abnormal_prompt(sample.label) if sample.label else ANY_PROMPT
