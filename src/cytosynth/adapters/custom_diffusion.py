"""Custom Diffusion (Kumari et al. 2023, arXiv 2212.04488): W_k and W_v of every cross-attention, and a new word."""

from collections.abc import Sequence
from pathlib import Path

import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import CustomDiffusionAttnProcessor2_0
from safetensors.torch import save_file
from torch import nn

from ..errors import UserError
from ..foundation.model import Foundation
from . import tokens
from .adapter import LOW_FREQUENCIES, Adapter, Tuning, fits
from .adapter import tensors as read
from .textual_inversion import word_in

PARTS = ("to_k", "to_v")


class CustomDiffusion(Adapter):
    """Keys and values of the text, and a modifier word in front of the word that it modifies."""

    name = "custom-diffusion"
    file = "pytorch_custom_diffusion_weights.safetensors"
    encodes = True
    settings = ("token", "initializer")

    def __init__(self, model: Foundation, word: str, initializer: str) -> None:
        """Attach diffusers' processors, initialised with the weights they replace, and add the `word` to `model`."""
        super().__init__(model)
        self.word = word
        self.words = tokens.add(model, word, tokens.start(model, initializer, 1))
        processors = dict(model.unet.attn_processors)
        for name in processors:
            if name.endswith("attn2.processor"):
                processors[name] = _processor(model.unet, name)
        self.processors = {name: processor for name, processor in processors.items() if "attn2" in name}
        model.unet.set_attn_processor(processors)  # empties the dictionary it is given

    @classmethod
    def attach(cls, model: Foundation, recipe: Tuning) -> "CustomDiffusion":
        """Return the recipe's word with its keys and values, attached to `model`."""
        tokens.in_prompt(recipe)
        return cls(model, recipe.token, recipe.initializer)

    @classmethod
    def recognises(cls, keys: Sequence[str]) -> bool:
        """Return whether one of the `keys` is of diffusers' Custom Diffusion."""
        return any("custom_diffusion" in key for key in keys)

    def save(self, folder: Path) -> None:
        """Write diffusers' two files: the processors' weights, and the word."""
        state = {
            f"{name}.{part}_custom_diffusion.weight": getattr(processor, f"{part}_custom_diffusion").weight
            for name, processor in self.processors.items()
            for part in PARTS
        }
        plain = {key: value.detach().float().cpu().contiguous() for key, value in state.items()}
        save_file(plain, folder / self.file, metadata={"format": "pt"})
        tokens.save(self.words, self.word, folder / f"{self.word}.safetensors")

    @classmethod
    def merge(cls, model: Foundation, file: Path) -> None:
        """Merge the weights in `file` into those of `model`, and add the word in the other file next to it."""
        others = (file.name, LOW_FREQUENCIES)
        words = sorted(path for path in file.parent.glob("*.safetensors") if path.name not in others)
        if len(words) != 1:
            raise UserError(f"{file.parent}: {len(words)} files of learnt words next to {file.name}; expected one")
        tokens.merge(model, *word_in(words[0]))
        for key, value in read(file).items():
            name, _, part = key.removesuffix("_custom_diffusion.weight").rpartition(".")
            if part not in PARTS or not name.endswith("attn2.processor"):
                raise UserError(f"{file}: {key} is not a weight of Custom Diffusion (to_k and to_v of attn2)")
            layer = _layer(model.unet, name, part, file)
            fits(file, key, value.shape, layer.weight.shape)
            with torch.no_grad():
                layer.weight.copy_(value)


def _processor(unet: UNet2DConditionModel, name: str) -> CustomDiffusionAttnProcessor2_0:
    attention = unet.get_submodule(name.removesuffix(".processor"))
    width, text = attention.to_k.weight.shape
    processor = CustomDiffusionAttnProcessor2_0(
        train_kv=True, train_q_out=False, hidden_size=width, cross_attention_dim=text
    ).to(attention.to_k.weight.device)
    for part in PARTS:
        getattr(processor, f"{part}_custom_diffusion").weight.data.copy_(getattr(attention, part).weight)
    return processor


def _layer(unet: UNet2DConditionModel, name: str, part: str, file: Path) -> nn.Linear:
    try:
        found = unet.get_submodule(f"{name.removesuffix('.processor')}.{part}")
    except AttributeError:
        raise UserError(f"{file}: {name}: the foundation has no such layer") from None
    assert isinstance(found, nn.Linear)
    return found
