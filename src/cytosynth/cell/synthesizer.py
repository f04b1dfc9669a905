"""The Abnormal Cell Synthesizer: a U-Net of 2C + 1 input channels with gated self-attention on box and class.

C is 4 in Stable Diffusion, and the input then has nine channels.

Equations 3 to 5 are diffusers' own GLIGEN blocks: `GLIGENTextBoundingboxProjection` (3) and
`GatedSelfAttentionDense` (4, 5), before every cross-attention; both gates start at zero, and so do the
C + 1 new input channels, so that an untrained synthesizer equals its foundation exactly.
The channels follow GLIGEN: latent C | latent x mask C | mask 1, where 1 is kept and 0 repainted. Not in the paper:
where the size of the nucleus is a condition, the mask is -1 where the nucleus is to be.
"""

import math
from collections.abc import Sequence

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor

from ..annotations import Box
from ..errors import UserError
from ..foundation.model import Foundation

GATED_PARTS = ("position_net.", ".fuser.", "conv_in.")
"""What equations 3 to 5 add to the foundation, by parameter name."""


def build(unet: UNet2DConditionModel) -> UNet2DConditionModel:
    """Return the synthesizer that extends `unet`, equal to it before training, or `unet` if it is one already.

    Raises UserError for 2C + 1 channels without gated attention: those of Stable Diffusion inpainting have
    another order and the opposite mask.
    """
    channels = unet.config.out_channels
    inpainting = 2 * channels + 1
    if unet.config.attention_type == "gated" and unet.config.in_channels == inpainting:
        return unet
    if unet.config.in_channels != channels:
        raise UserError(
            f"the foundation's U-Net has {unet.config.in_channels} input channels; give one with {channels}, or a "
            f"GLIGEN inpainting one ({inpainting}, gated)"
        )
    config = dict(unet.config) | {"in_channels": inpainting, "attention_type": "gated"}
    config.pop("_use_default_values", None)  # from_config would reset to its default whatever is named there
    synthesizer = UNet2DConditionModel.from_config(config)
    weights = unet.state_dict()
    first = torch.zeros_like(synthesizer.conv_in.weight)
    first[:, : unet.config.in_channels] = weights["conv_in.weight"]
    missing, unexpected = synthesizer.load_state_dict({**weights, "conv_in.weight": first}, strict=False)
    stray = [key for key in missing if not any(part in key for part in GATED_PARTS)]
    if stray or unexpected:
        raise UserError(f"{(stray or unexpected)[0]}: the foundation's U-Net does not match the gated architecture")
    return synthesizer


def trainable(unet: UNet2DConditionModel, everything: bool) -> None:
    """Enable gradients only for the gated layers and the first convolution, or for `everything`."""
    for name, parameter in unet.named_parameters():
        parameter.requires_grad_(everything or any(part in name for part in GATED_PARTS))


def mask_of(box: Box, size: int, factor: int) -> Tensor:
    """Return the mask, 0 inside and 1 kept, of `box` (xyxy pixels) in the latents of a patch of `size` pixels a side.

    It is (1, size/factor, size/factor). Every latent cell that the box touches is repainted.
    """
    side = size // factor
    mask = torch.ones(1, side, side)
    x0, y0 = (max(0, math.floor(value / factor)) for value in box[:2])
    x1, y1 = (min(side, math.ceil(value / factor)) for value in box[2:])
    mask[:, y0:y1, x0:x1] = 0
    return mask


def depth_of(box: Box, size: int, factor: int, fall: float) -> Tensor:
    """Return how deep each latent cell lies in the ellipse of `box`, (1, size/factor, size/factor).

    It is 0 at its edge and outside, and grows linearly to 1 over the share `fall` of the radius. `box` is xyxy pixels
    of a patch of `size` pixels a side.
    """
    places = (torch.arange(size // factor) + 0.5) * factor
    x, y = (2 * (places - (box[axis] + box[axis + 2]) / 2) / (box[axis + 2] - box[axis]) for axis in (0, 1))
    return ((1 - torch.hypot(x[None, :], y[:, None])) / fall).clamp(0, 1)[None]


def disc_of(nucleus: Box | None, size: int, factor: int) -> Tensor:
    """Return the share of each latent cell that the disc of the `nucleus` covers, (1, size/factor, size/factor).

    `nucleus` is its bounding square, xyxy pixels of a patch of `size` pixels a side; None: covers nothing.
    """
    side = size // factor
    if nucleus is None:
        return torch.zeros(1, side, side)
    places = torch.arange(size) + 0.5
    radius = (nucleus[2] - nucleus[0]) / 2
    x, y = places - (nucleus[0] + nucleus[2]) / 2, places - (nucleus[1] + nucleus[3]) / 2
    inside = (x[None, :] ** 2 + y[:, None] ** 2 <= radius**2).float()
    return inside.reshape(side, factor, side, factor).mean((1, 3))[None]


def extra_channels(latents: Tensor, masks: Tensor, nuclei: Tensor | None = None) -> Tensor:
    """Return (n, C + 1, h, w): the background latents z_0,bg and the mask, from z_0 (n, C, h, w) and (n, 1, h, w).

    `nuclei` (n, 1, h, w), where they are a condition, are what the nucleus covers (`disc_of`).
    """
    return torch.cat([latents * masks, masks if nuclei is None else masks - nuclei], dim=1)


def grounding(boxes: Sequence[Box], size: int, text: Tensor, shown: Tensor | None = None) -> dict[str, Tensor]:
    """Return the input of the gated layers: one normalised box and class embedding per patch.

    Args:
        boxes: xyxy pixels of patches of `size` pixels a side.
        size: side of the patches.
        text: (n, channels) pooled embeddings of the class names, f_text of equation 3.
        shown: (n,) 1 where the token is given, 0 where its learnt null stands in.
    """
    corners = torch.tensor(boxes, dtype=text.dtype, device=text.device) / size
    masks = torch.ones(len(boxes)) if shown is None else shown
    return {
        "boxes": corners[:, None],
        "positive_embeddings": text[:, None],
        "masks": masks.to(text)[:, None],
    }


def check(model: Foundation, where: str) -> None:
    """Raise UserError, naming `where` it is from, when the U-Net of `model` is no synthesizer for the rest of it."""
    config, text_channels = model.unet.config, model.text_encoder.config.hidden_size
    wanted = 2 * model.channels + 1
    if config.in_channels != wanted or config.attention_type != "gated":
        kind = f"{config.in_channels} input channels and {config.attention_type} attention"
        if config.in_channels == wanted:
            kind = f"{wanted} input channels but no gated attention, as Stable Diffusion inpainting's"
        raise UserError(
            f"{where}: its U-Net has {kind}; give a synthesizer of `train cell`, with {wanted} and gated attention"
        )
    if config.cross_attention_dim != text_channels:
        raise UserError(
            f"{where}: the cell synthesizer needs {config.cross_attention_dim} text channels, but the foundation "
            f"{model.name} has {text_channels}; it was trained on another foundation"
        )
