"""A decoder next to a synthesizer's weights, for the close-ups that it edits (not in the paper).

A decoder that was sharpened on images at their own size makes up detail when they are enlarged. The encoder, and so the
latents, stay the foundation's.
"""

from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from safetensors.torch import save
from torch import Tensor

from ..errors import UserError
from ..foundation.load import part
from ..foundation.model import Foundation
from ..io import atomic
from ..io.tensors import equal_weights, read, weights_digest

FILE = "decoder.safetensors"
PARTS = ("decoder", "post_quant_conv")


def of(vae: AutoencoderKL) -> dict[str, Tensor]:
    """Return the weights of the decoder of `vae`, by their names there."""
    return {name: value for name, value in vae.state_dict().items() if name.split(".")[0] in PARTS}


def write(vae: AutoencoderKL, folder: Path) -> None:
    """Write the decoder of `vae` into the `folder` of a synthesizer, half precision."""
    halves = {name: value.to("cpu", torch.float16).contiguous() for name, value in of(vae).items()}
    atomic.write_bytes(folder / FILE, save(halves))


def attach(model: Foundation, folder: Path) -> tuple[Foundation, str]:
    """Return `model` with the decoder in the `folder` of a synthesizer, and its digest; `model` and '' if it has none.

    The autoencoder of `model` itself is not changed. Raises UserError for a decoder of another autoencoder.
    """
    file = folder / FILE
    if not file.exists():
        return model, ""
    own, wanted = read(file), of(model.vae)
    for name in sorted(own.keys() | wanted.keys()):
        if name not in own or name not in wanted or own[name].shape != wanted[name].shape:
            raise UserError(f"{file}: {name} is not as in the autoencoder of the foundation {model.name}; give its own")
        if not own[name].isfinite().all():
            raise UserError(f"{file}: {name} has values that are not finite; the file is damaged")
    vae = deepcopy(model.vae)
    vae.load_state_dict({**vae.state_dict(), **{name: value.to(wanted[name]) for name, value in own.items()}})
    return replace(model, vae=vae), weights_digest(vae.decoder, vae.post_quant_conv)


def chosen(model: Foundation, folder: Path) -> Foundation:
    """Return `model` with the AutoencoderKL in `folder`, a recipe's `decoder`, whose encoder must be the same."""
    vae = part(AutoencoderKL, folder).to(model.vae.dtype).eval().requires_grad_(False)
    for name in ("encoder", "quant_conv"):
        if not equal_weights(getattr(vae, name), getattr(model.vae, name)):
            raise UserError(
                f"{folder}: its encoder is not that of the foundation {model.name}; give one of "
                "`train foundation --part decoder`, which keeps the encoder"
            )
    return replace(model, vae=vae)
