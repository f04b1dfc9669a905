"""Low-Rank Adaptation of every cross-attention's W_q, W_k, W_v and W_out (equation 2, Figure 4)."""

from pathlib import Path

from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from diffusers.loaders import StableDiffusionLoraLoaderMixin
from diffusers.utils import convert_state_dict_to_diffusers
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from safetensors import SafetensorError

from ..errors import UserError
from ..foundation.model import Foundation
from .adapter import Adapter

TARGETS = ["attn2.to_q", "attn2.to_k", "attn2.to_v", "attn2.to_out.0"]
WEIGHTS = "pytorch_lora_weights.safetensors"


class Lora(Adapter):
    """W + B·A in every cross-attention: A Gaussian, B zero."""

    name = "lora"
    file = WEIGHTS

    def __init__(self, model: Foundation, rank: int = 8) -> None:
        """Attach B·A of `rank` to `model`."""
        super().__init__(model)
        add(model.unet, rank)

    def save(self, folder: Path) -> None:
        """Write the adapter as diffusers' `load_lora_weights` reads it."""
        save(self.model.unet, folder)

    @classmethod
    def merge(cls, model: Foundation, file: Path) -> None:
        """Put the LoRA in `file` (diffusers' or Kohya's names) into the weights of `model`."""
        load(model.unet, file)


def add(unet: UNet2DConditionModel, rank: int) -> None:
    """Freeze `unet` and add trainable B·A of `rank`: A Gaussian, B zero, so that nothing changes yet."""
    unet.requires_grad_(False)
    unet.add_adapter(LoraConfig(r=rank, lora_alpha=rank, init_lora_weights="gaussian", target_modules=TARGETS))


def save(unet: UNet2DConditionModel, folder: Path) -> None:
    """Write the adapter of `unet` as diffusers' `load_lora_weights` reads it."""
    layers = convert_state_dict_to_diffusers(get_peft_model_state_dict(unet))
    StableDiffusionPipeline.save_lora_weights(str(folder), unet_lora_layers=layers, weight_name=WEIGHTS)


def load(unet: UNet2DConditionModel, file: Path) -> None:
    """Merge the LoRA in the `.safetensors` `file` (diffusers' or Kohya's names) into `unet`.

    Raises UserError where there is none or it does not fit.
    """
    if not file.is_file() or file.suffix != ".safetensors":
        raise UserError(f"{file}: no LoRA weights there; a .safetensors file is expected")
    try:
        weights, alphas = StableDiffusionLoraLoaderMixin.lora_state_dict(
            str(file.parent), weight_name=file.name, local_files_only=True, unet_config=unet.config
        )
        StableDiffusionLoraLoaderMixin.load_lora_into_unet(weights, network_alphas=alphas, unet=unet)
    except (SafetensorError, ValueError, RuntimeError, KeyError) as error:
        raise UserError(f"{file}: not a LoRA for this U-Net ({str(error).strip().splitlines()[0][:200]})") from None
    if not getattr(unet, "peft_config", None):
        raise UserError(f"{file}: no weights for a U-Net's layers in it")
    unet.fuse_lora()
    unet.unload_lora()
