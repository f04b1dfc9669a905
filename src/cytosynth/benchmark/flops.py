"""Floating-point operations of a field and of a batch of cells, counted on networks without content.

A multiplication and an addition are two. Networks of the same configuration are built on PyTorch's `meta` device, so
that counting needs almost no memory and time; compiled or fused operations are counted as written.
"""

from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from ..cell import patch
from ..cell.settings import EditSettings
from ..foundation import samplers
from ..foundation.model import Foundation
from ..normal.settings import GenerateSettings


def field(model: Foundation, settings: GenerateSettings) -> float:
    """Return the operations of denoising one field with `model`, without decoding it."""
    return settings.steps * _denoiser(model, settings.size, settings.guidance, 1)


def decoding(model: Foundation, side: int) -> float:
    """Return the operations of decoding `side` x `side` pixels."""
    tiny = model.tiny_decoder or model.vae
    latents = torch.empty(1, model.channels, side // model.factor, side // model.factor, device="meta")
    return _counted(_empty(tiny).decode, latents)


def cells(model: Foundation, settings: EditSettings, count: int) -> float:
    """Return the operations of editing `count` cells together with `model`, autoencoder included."""
    side = patch.SIZE
    steps = samplers.kept(settings.steps, settings.strength)
    encode = _counted(_empty(model.vae).encode, torch.empty(1, 3, side, side, device="meta"))
    decode = decoding(model, side) * (2 if settings.paste == "box" and settings.grain else 1)
    return steps * _denoiser(model, side, settings.guidance_scale, count) + count * (encode + decode)


def _denoiser(model: Foundation, side: int, guidance_scale: float, count: int) -> float:
    """Return the operations of a step of the U-Net of `model` on `count` images of `side` pixels, guidance included."""
    unet = model.unet
    twice = guidance_scale != 1 and unet.config.time_cond_proj_dim is None
    batch, latent = count * (1 + twice), side // model.factor
    with torch.device("meta"):
        x = torch.empty(batch, unet.config.in_channels, latent, latent)
        text = torch.empty(batch, model.tokenizer.model_max_length, unet.config.cross_attention_dim)
        options: dict[str, Any] = {}
        if unet.config.attention_type == "gated":
            ground = {"boxes": torch.empty(batch, 1, 4), "masks": torch.empty(batch, 1)}
            ground["positive_embeddings"] = torch.empty(batch, 1, unet.config.cross_attention_dim)
            options = {"cross_attention_kwargs": {"gligen": ground}}
        if unet.config.time_cond_proj_dim is not None:
            options["timestep_cond"] = torch.empty(batch, unet.config.time_cond_proj_dim)
        return _counted(_empty(unet), x, torch.zeros(batch), text, **options)


def _empty(network: Any) -> Any:
    """Return a network of the configuration of `network`, without content."""
    with torch.device("meta"):
        return type(network).from_config(dict(network.config)).eval()


def _counted(call: Any, *arguments: Any, **options: Any) -> float:
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        call(*arguments, **options)
    return float(counter.get_total_flops())
