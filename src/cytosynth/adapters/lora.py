"""Low-Rank Adaptation of every cross-attention's W_q, W_k, W_v and W_out (equation 2, Figure 4)."""

from collections.abc import Sequence
from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from diffusers.utils import convert_state_dict_to_diffusers
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from torch import Tensor

from ..errors import UserError
from ..foundation.model import Foundation
from . import lora_file, tokens
from .adapter import Adapter, Tuning, fits

TARGETS = ["attn2.to_q", "attn2.to_k", "attn2.to_v", "attn2.to_out.0"]
WEIGHTS = "pytorch_lora_weights.safetensors"
PEFT_MATRIX = ".lora_A."
"""In what peft calls the first matrix of a layer."""


class Lora(Adapter):
    """W + B·A in every cross-attention: A Gaussian, B zero."""

    name = "lora"
    file = WEIGHTS
    settings = ("rank",)

    def __init__(self, model: Foundation, rank: int = 8) -> None:
        """Attach B·A of `rank` to `model`."""
        super().__init__(model)
        add(model.unet, rank)

    @classmethod
    def attach(cls, model: Foundation, recipe: Tuning) -> "Lora":
        """Return a LoRA of the recipe's rank, attached to `model`."""
        return cls(model, recipe.rank)

    @classmethod
    def recognises(cls, keys: Sequence[str]) -> bool:
        """Return whether one of the `keys` is of a LoRA, in the names of any tool."""
        return any("lora" in key.lower() for key in keys)

    def save(self, folder: Path) -> None:
        """Write the adapter as diffusers' `load_lora_weights` reads it."""
        save(self.model.unet, folder)

    @classmethod
    def merge(cls, model: Foundation, file: Path) -> None:
        """Merge the LoRA in `file` (any of `lora_names`) into the weights of `model`; add the words bundled with it."""
        load(model, file)
        for word, vectors in lora_file.words(file).items():
            tokens.merge(model, word, vectors)


def add(unet: UNet2DConditionModel, rank: int, targets: Sequence[str] = TARGETS) -> None:
    """Freeze `unet` and add trainable B·A of `rank` to the layers whose names end in one of `targets`.

    A is Gaussian, B zero, so that nothing changes yet.
    """
    unet.requires_grad_(False)
    unet.add_adapter(LoraConfig(r=rank, lora_alpha=rank, init_lora_weights="gaussian", target_modules=list(targets)))


def save(unet: UNet2DConditionModel, folder: Path, dtype: torch.dtype | None = None) -> None:
    """Write the adapter of `unet` as diffusers' `load_lora_weights` reads it, in its own precision or in `dtype`.

    Attentions alone have diffusers' names. It has none for other layers and reads no mixture: all then have peft's.
    """
    found: dict[str, Tensor] = get_peft_model_state_dict(unet)
    state = {key: value.to(dtype or value.dtype).contiguous() for key, value in found.items()}
    layers = convert_state_dict_to_diffusers(state)
    if any(PEFT_MATRIX in key for key in layers):
        layers = state
    StableDiffusionPipeline.save_lora_weights(str(folder), unet_lora_layers=layers, weight_name=WEIGHTS)


def load(model: Foundation, file: Path) -> None:
    """Add the LoRA in the `.safetensors` `file` (named as one of `lora_names`) to the weights of `model`.

    All of it is checked before any weight changes. Raises UserError if there is none, or where a layer is
    missing or of another shape.
    """
    pairs = lora_file.read(file, model.unet.config)
    weights = {key: _weight(model, *key, file) for key in pairs}
    for (part, layer), pair in pairs.items():
        out, rank = pair.b.flatten(1).shape
        fits(file, f"{part}.{layer}", (out, *pair.a.flatten(1).shape[1:]), weights[part, layer].flatten(1).shape)
        fits(file, f"{part}.{layer}: A's rank", pair.a.shape[:1], (rank,))
    with torch.no_grad():
        for key, weight in weights.items():
            a, b, scale = pairs[key]
            weight += (scale * (b.flatten(1) @ a.flatten(1))).reshape(weight.shape).to(weight)


def _weight(model: Foundation, part: str, layer: str, file: Path) -> Tensor:
    """Return the weight of `layer`; the text encoder's are named with or without a prefix, as transformers is old."""
    module = model.parts[part]
    if part == "text_encoder" and not hasattr(module, "text_model"):
        layer = layer.removeprefix("text_model.")
    try:
        weight = module.get_submodule(layer).weight
    except AttributeError:
        raise UserError(f"{file}: {part}.{layer}: the foundation has no such layer") from None
    if not isinstance(weight, Tensor) or weight.ndim < 2:
        raise UserError(f"{file}: {part}.{layer} is not a linear or convolutional layer")
    return weight
