"""Reading a Stable Diffusion 1.x from one `.safetensors` file in the original (LDM) layout."""

from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from diffusers.loaders.single_file_utils import (
    convert_ldm_clip_checkpoint,
    convert_ldm_unet_checkpoint,
    convert_ldm_vae_checkpoint,
)
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from ..errors import EnvironmentProblem, UserError
from ..io import tensors
from . import prediction, sd15
from .model import Foundation

UNET_INPUT = "model.diffusion_model.input_blocks.0.0.weight"


def read_single_file(
    path: Path,
    dtype: torch.dtype,
    *,
    unet: dict[str, Any] = sd15.UNET,
    vae: dict[str, Any] = sd15.VAE,
    text: dict[str, Any] = sd15.TEXT,
) -> Foundation:
    """Load the file at `path`, whose networks have the given configurations (Stable Diffusion 1.5's).

    The tokenizer is taken from a folder `tokenizer` next to the file, else from the hub's cache; what it predicts, from
    where `prediction.schedule` finds it.
    Raises UserError for a file that is not a Stable Diffusion 1.x of those shapes, naming the first key
    that is missing or does not fit.
    """
    weights = tensors.read(path)
    if UNET_INPUT not in weights:
        raise UserError(
            f"{path}: {UNET_INPUT} is missing; expected a Stable Diffusion 1.x checkpoint in the original layout"
        )
    schedule = sd15.SCHEDULER | prediction.schedule(path, weights)
    unet = unet | {"in_channels": weights[UNET_INPUT].shape[1]}
    denoiser = _fill(UNet2DConditionModel, unet, convert_ldm_unet_checkpoint(dict(weights), config=unet), path)
    autoencoder = _fill(AutoencoderKL, vae, convert_ldm_vae_checkpoint(dict(weights), config=vae), path)
    encoder = CLIPTextModel(CLIPTextConfig(**text))
    _load(encoder, _text_keys(encoder, convert_ldm_clip_checkpoint(weights)), path)
    return Foundation(
        unet=denoiser.to(dtype),
        vae=autoencoder.to(dtype),
        text_encoder=encoder.to(dtype),
        tokenizer=_tokenizer(path.parent / "tokenizer"),
        scheduler=DDPMScheduler.from_config(schedule),
        name=path.name,
    )


def _fill(kind: Any, config: dict[str, Any], weights: dict[str, Tensor], path: Path) -> Any:
    model = kind(**{key: tuple(value) if isinstance(value, list) else value for key, value in config.items()})
    _load(model, weights, path)
    return model


def _load(model: torch.nn.Module, weights: dict[str, Tensor], path: Path) -> None:
    expected = model.state_dict()
    missing = sorted(set(expected) - set(weights))
    if missing:
        raise UserError(
            f"{path}: weights for {missing[0]} are missing ({len(missing)} missing in {type(model).__name__})"
        )
    for key, value in expected.items():
        if value.shape != weights[key].shape:
            raise UserError(f"{path}: {key} has shape {tuple(weights[key].shape)}, expected {tuple(value.shape)}")
    model.load_state_dict({key: weights[key] for key in expected})


def _text_keys(model: torch.nn.Module, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return `weights` under the names of `model`, whose transformers version may drop the prefix."""
    prefixed = any(key.startswith("text_model.") for key in model.state_dict())
    return {key if prefixed else key.removeprefix("text_model."): value for key, value in weights.items()}


def _tokenizer(folder: Path) -> CLIPTokenizer:
    try:
        # From the hub's cache at most: a file on this disk is no reason to ask the network.
        return CLIPTokenizer.from_pretrained(str(folder) if folder.is_dir() else sd15.TOKENIZER, local_files_only=True)
    except (OSError, ValueError):
        raise EnvironmentProblem(
            f"{folder}: a single-file checkpoint needs CLIP's tokenizer in this folder (vocab.json, merges.txt), "
            f"or in the hub's cache: hf download {sd15.TOKENIZER} vocab.json merges.txt tokenizer_config.json"
        ) from None
