"""A Stable Diffusion in parts: diffusers' and transformers' own classes, held together."""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL, AutoencoderTiny, DDPMScheduler, UNet2DConditionModel
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer

from .pixels import scale_factor, to_pixels, to_tensor

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
"""What recipes and settings call them."""


@dataclass
class Foundation:
    """A loaded Stable Diffusion 1.x.

    Attributes:
        unet: the denoiser; (n, C or 2C + 1, h, w) latents in, (n, C, h, w) out.
        vae: the autoencoder; it decides C, 4 in Stable Diffusion, and the scale factor, 8 there.
        text_encoder: CLIP's text model.
        tokenizer: its tokenizer.
        scheduler: DDPM noise schedule (betas, prediction type) that samplers take their betas from.
        digest: SHA-256 over names and float32 values of the weights, first 16 hexadecimal digits, for provenance.
        name: as the user asked for it.
        tiny_decoder: decodes instead of the autoencoder's own decoder, if given; see `tiny_decoder.py`.
    """

    unet: UNet2DConditionModel
    vae: AutoencoderKL
    text_encoder: CLIPTextModel
    tokenizer: CLIPTokenizer
    scheduler: DDPMScheduler
    name: str
    digest: str = ""
    tiny_decoder: AutoencoderTiny | None = None

    @property
    def parts(self) -> dict[str, torch.nn.Module]:
        """The networks by diffusers' folder name."""
        return {"unet": self.unet, "vae": self.vae, "text_encoder": self.text_encoder}

    @property
    def autoencoders(self) -> list[AutoencoderKL | AutoencoderTiny]:
        """The autoencoder, and the tiny one whose decoder replaces its own, if given."""
        return [self.vae] if self.tiny_decoder is None else [self.vae, self.tiny_decoder]

    @property
    def conventions(self) -> dict[str, Any]:
        """Values besides the weights that affect generated images: the noise schedule and the latents' scale."""
        schedule = {key: value for key, value in self.scheduler.config.items() if not key.startswith("_")}
        return {"schedule": schedule, "scaling_factor": self.vae.config.scaling_factor}

    @property
    def channels(self) -> int:
        """C, the channels of the latents: 4 in Stable Diffusion."""
        return int(self.vae.config.latent_channels)

    @property
    def factor(self) -> int:
        """Pixels of the image, along each axis, per pixel of the latents: 8 in Stable Diffusion."""
        return scale_factor(self.vae)

    @property
    def device(self) -> torch.device:
        """The device of the denoiser."""
        return torch.device(self.unet.device)

    def to(self, *args: Any) -> "Foundation":
        """Move every network to a device or dtype."""
        for part in (*self.parts.values(), *self.autoencoders):
            torch.nn.Module.to(part, *args)  # diffusers' own warns of layers to be kept in float32; these have none
        return self

    def with_own_text(self) -> "Foundation":
        """Return the same model with its own copy of text encoder and tokenizer, which may be changed."""
        return replace(self, text_encoder=deepcopy(self.text_encoder), tokenizer=deepcopy(self.tokenizer))

    def freeze(self) -> "Foundation":
        """Switch off gradients and put every network in evaluation mode."""
        for part in (*self.parts.values(), *self.autoencoders):
            part.requires_grad_(False).eval()
        return self

    def token_ids(self, texts: Sequence[str]) -> Tensor:
        """Return (n, max_length) token ids of `texts`, padded as Stable Diffusion pads."""
        encoded = self.tokenizer(
            list(texts), padding="max_length", max_length=self.tokenizer.model_max_length,
            truncation=True, return_tensors="pt",
        )  # fmt: skip
        return torch.as_tensor(encoded.input_ids)

    def encode_text(self, texts: Sequence[str]) -> Tensor:
        """Return (n, max_length, channels) text embeddings of `texts`."""
        ids = self.token_ids(texts).to(self.text_encoder.device)
        return torch.as_tensor(self.text_encoder(ids).last_hidden_state)

    def pool_text(self, texts: Sequence[str]) -> Tensor:
        """Return (n, channels) pooled embeddings of `texts`: f_text of equation 3."""
        ids = self.token_ids(texts).to(self.text_encoder.device)
        return torch.as_tensor(self.text_encoder(ids).pooler_output)

    def encode_pixels(self, pixels: np.ndarray) -> Tensor:
        """Return (n, C, height/factor, width/factor) scaled latents, their mode, of (n, height, width, 3) bytes."""
        images = to_tensor(pixels).to(self.vae.device, self.vae.dtype)
        return torch.as_tensor(self.vae.encode(images).latent_dist.mode() * self.vae.config.scaling_factor)

    def decode_latents(self, latents: Tensor) -> np.ndarray:
        """Return (n, height, width, 3) byte images of scaled latents."""
        decoder = self.tiny_decoder or self.vae
        scaled = latents.to(decoder.dtype) / decoder.config.scaling_factor
        return to_pixels(decoder.decode(scaled).sample)
