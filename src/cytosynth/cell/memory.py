"""How much memory a step of training the synthesizer takes (`foundation/memory.py`)."""

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from ..foundation.memory import Need, counted, empty, placed
from ..foundation.model import DTYPES, Foundation
from . import patch, synthesizer
from .recipe import CellRecipe


def count(recipe: CellRecipe) -> Need:
    """Return what a step of `recipe` needs; autoencoder and text encoder are held too."""
    with torch.device("meta"):
        model = empty(recipe.foundation).freeze()
        unet = synthesizer.build(model.unet)
    synthesizer.trainable(unet, recipe.trainable == "all")
    networks: list[nn.Module] = [unet, model.vae, model.text_encoder]
    with FakeTensorMode():
        for network in networks:
            placed(network)
        if recipe.gradient_checkpointing:
            unet.enable_gradient_checkpointing()
        return counted(networks, recipe, lambda: _loss(recipe, model, unet.train()))


def _loss(recipe: CellRecipe, model: Foundation, unet: UNet2DConditionModel) -> Tensor:
    side, count = patch.SIZE // model.factor, recipe.batch_size
    length, width = model.tokenizer.model_max_length, model.text_encoder.config.hidden_size
    precision = DTYPES.get(recipe.mixed_precision, torch.bfloat16)
    with torch.autocast("cpu", dtype=precision, enabled=recipe.mixed_precision != "no"):
        latents, text = torch.randn(count, model.channels, side, side), torch.randn(count, length, width)
        ground = synthesizer.grounding([(0.0, 0.0, 8.0, 8.0)] * count, patch.SIZE, torch.randn(count, width))
        masks = torch.ones(count, 1, side, side)
        given = torch.cat([latents, synthesizer.extra_channels(latents, masks)], dim=1)
        timesteps = torch.zeros(count, dtype=torch.long)
        output = unet(given, timesteps, text, cross_attention_kwargs={"gligen": ground}).sample
        return (output.float() - latents).square().mean()
