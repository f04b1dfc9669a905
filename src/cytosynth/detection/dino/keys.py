"""The public checkpoints of DINO's authors (R50, 4 scales), weight by weight."""

import re
from collections.abc import Mapping
from typing import Final

import torch
from torch import Tensor, nn

from ...errors import UserError

MARK: Final = "transformer.tgt_embed.weight"
"""A key that a checkpoint of DINO has and a backbone's does not."""
BY_CATEGORY: Final = ("label_embed.", "selection.class_embed.", "decoder.class_embed.")
"""What has a row for each category."""
_WHOLE: Final = (
    (r"backbone\.0\.body\.", "backbone.body."),
    (r"input_proj\.", "encoder.input_proj."),
    (r"label_enc\.", "label_embed."),
    # Both lists hold one head, which all layers share, over and over.
    (r"(?:transformer\.decoder\.)?(class|bbox)_embed\.\d+\.", r"decoder.\1_embed."),
    (r"transformer\.level_embed$", "encoder.level_embed"),
    (r"transformer\.tgt_embed\.", "selection.content."),
    (r"transformer\.enc_out_(class|bbox)_embed\.", r"selection.\1_embed."),
    (r"transformer\.(enc_output(?:_norm)?)\.", r"selection.\1."),
    (r"transformer\.decoder\.(norm|ref_point_head)\.", r"decoder.\1."),
    (r"transformer\.(encoder|decoder)\.layers\.", r"\1.layers."),
)
_ENCODER: Final = {"norm1": "self_attn_layer_norm", "norm2": "final_layer_norm"}
_DECODER: Final = {"norm1": "encoder_attn_layer_norm", "norm2": "self_attn_layer_norm", "norm3": "final_layer_norm",
                   "cross_attn": "encoder_attn"}  # fmt: skip
_LAYER: Final = {"linear1": "mlp.fc1", "linear2": "mlp.fc2"}


def ours(key: str) -> list[str]:
    """Return our names of the authors' `key`: one, or three for the projections they keep in one tensor; or none."""
    for pattern, replacement in _WHOLE:
        name, count = re.subn(f"^{pattern}", replacement, key)
        if count:
            return _in_layer(name)
    return []


def _in_layer(name: str) -> list[str]:
    found = re.match(r"(encoder|decoder)\.layers\.(\d+)\.(\w+)\.?(.*)", name)
    if not found:
        return [name]
    side, number, module, rest = found.groups()
    prefix = f"{side}.layers.{number}."
    if rest.startswith("in_proj_"):
        return [f"{prefix}self_attn.{part}_proj.{rest.removeprefix('in_proj_')}" for part in "qkv"]
    if side == "decoder" and module == "self_attn":
        rest = rest.replace("out_proj", "o_proj")
    renamed = _LAYER | (_ENCODER if side == "encoder" else _DECODER)
    return [f"{prefix}{renamed.get(module, module)}.{rest}"]


def convert(state: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
    """Return the authors' `state` under our names.

    Raises UserError, naming `source`, for a key that is not of that network, or heads that differ between layers.
    """
    found: dict[str, Tensor] = {}
    for key, value in state.items():
        names = ours(key.removeprefix("module."))
        if not names:
            raise UserError(f"{source}: {key}: not a weight of DINO R50 4-scale")
        for name, part in zip(names, value.chunk(len(names)), strict=True):
            if name in found and not torch.equal(found[name], part):
                raise UserError(f"{source}: {key}: this DINO has a head of its own for each layer; here all share one")
            found[name] = part
    return found


def start(network: nn.Module, state: Mapping[str, Tensor], source: str) -> list[str]:
    """Put a checkpoint of the authors into `network`, a DINO on ResNet-50.

    Returns our names of what stays as it was, because the checkpoint is of another number of categories. Raises
    UserError, naming `source`, when something else is missing or has another shape.
    """
    found, wanted = convert(state, source), network.state_dict()
    kept = [name for name in wanted if name.startswith(BY_CATEGORY)
            and name in found and found[name].shape != wanted[name].shape]  # fmt: skip
    for name, value in wanted.items():
        if name not in kept and (name not in found or found[name].shape != value.shape):
            has = f"is {tuple(found[name].shape)}" if name in found else "is missing"
            raise UserError(f"{source}: {name} {has}, should be {tuple(value.shape)}")
    extra = found.keys() - wanted.keys()
    if extra:
        raise UserError(f"{source}: {min(extra)}: not a weight of this DINO")
    network.load_state_dict({name: wanted[name] if name in kept else found[name] for name in wanted})
    return kept
