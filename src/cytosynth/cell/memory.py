"""The memory that a training step of the synthesizer needs (`foundation/memory.py`)."""

import numpy as np
import torch
from diffusers import UNet2DConditionModel
from torch import nn

from ..foundation.memory import Need, counted, empty, on_cpu
from ..foundation.model import Foundation
from ..training.task import Batch, Losses, Task
from . import patch, synthesizer
from .recipe import CellRecipe


class Step(Task):
    """The loss of a step, on cells without content."""

    def __init__(self, recipe: CellRecipe, model: Foundation, unet: UNet2DConditionModel) -> None:
        """Hold all networks; the new `unet` is trained."""
        super().__init__()
        self.recipe, self.model, self.unet = recipe, model, unet
        self.others = nn.ModuleList([model.vae, model.text_encoder])

    def batch(self, _rng: np.random.Generator, _size: int) -> Batch:
        """Return an empty batch: its values do not matter."""
        return {}

    def forward(self, _batch: Batch) -> Losses:
        """Return the noise loss through the gated U-Net."""
        model, side, count = self.model, patch.SIZE // self.model.factor, self.recipe.batch_size
        length, width = model.tokenizer.model_max_length, model.text_encoder.config.hidden_size
        latents, text = torch.randn(count, model.channels, side, side), torch.randn(count, length, width)
        ground = synthesizer.grounding([(0.0, 0.0, 8.0, 8.0)] * count, patch.SIZE, torch.randn(count, width))
        masks = torch.ones(count, 1, side, side)
        given = torch.cat([latents, synthesizer.extra_channels(latents, masks)], dim=1)
        timesteps = torch.zeros(count, dtype=torch.long)
        output = self.unet(given, timesteps, text, cross_attention_kwargs={"gligen": ground}).sample
        return {"loss": (output.float() - latents).square().mean()}


def count(recipe: CellRecipe) -> Need:
    """Return what a step of `recipe` needs; autoencoder and text encoder are held too."""
    recipe = on_cpu(recipe)
    with torch.device("meta"):
        model = empty(recipe.foundation).freeze()
        unet = synthesizer.build(model.unet)
    synthesizer.trainable(unet, recipe.trainable == "all")
    if recipe.gradient_checkpointing:
        unet.enable_gradient_checkpointing()
    return counted(Step(recipe, model, unet), recipe, [unet, model.vae, model.text_encoder])
