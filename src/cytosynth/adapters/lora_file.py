"""Reading published LoRAs: diffusers', peft's and Kohya's names, each with its own alpha."""

import re
from pathlib import Path
from typing import Any, NamedTuple

from diffusers.loaders import StableDiffusionLoraLoaderMixin
from diffusers.utils import convert_unet_state_dict_to_peft
from diffusers.utils.state_dict_utils import DIFFUSERS_OLD_TO_PEFT, DIFFUSERS_TO_PEFT, convert_state_dict
from safetensors import safe_open
from torch import Tensor

from ..data.formats import coco
from ..errors import UserError
from ..io import plain, wording
from . import lora_names
from .adapter import tensors
from .lora_names import PEFT_PREFIX

PEFT_WEIGHTS, PEFT_CONFIG = "adapter_model.safetensors", "adapter_config.json"
PARTS = ("unet", "text_encoder")
OTHERS = {"hada_": "a LoHa", "lokr_": "a LoKr", "oft_": "an OFT", ".diff": "a full difference of weights"}
"""Kinds of weights that LyCORIS and similar tools write, by a part of their keys."""
MATRIX = re.compile(r"(.+)\.lora_([AB])\.weight")
NAME = re.compile(r"[\w.]+")
"""What a key of `alpha_pattern` is but for peft's `^` and escaped dots: the end of a layer's name."""


class Pair(NamedTuple):
    """What a LoRA adds to one weight (out, in, ...): `scale` x B·A, with `a` (rank, in, ...), `b` (out, rank, ...)."""

    a: Tensor
    b: Tensor
    scale: float


def read(file: Path, unet_config: Any) -> dict[tuple[str, str], Pair]:
    """Return, by part (`unet`, `text_encoder`) and layer, what the LoRA in `file` adds.

    alpha is Kohya's `.alpha`, or that of the configuration in diffusers' header or next to peft's file; else the
    rank. Words that are bundled with it are left out (`words`). Raises UserError when the file holds anything else, or
    none for a U-Net.
    """
    _, state = lora_names.words({key: value.float() for key, value in tensors(file).items()})
    settings = _settings(file, state)
    if any("dora_scale" in key or "magnitude" in key for key in state) or any(
        value for key, value in settings.items() if key.endswith("use_dora")
    ):
        raise UserError(f"{file}: a DoRA, which is not supported; give a LoRA")
    for mark, kind in OTHERS.items():
        if any(mark in key for key in state):
            raise UserError(f"{file}: {kind}, not a LoRA; merge it into the foundation with the tool that made it")
    try:
        renamed = lora_names.diffusers(_alphas_taken(file, state))
        named, _ = StableDiffusionLoraLoaderMixin.lora_state_dict(renamed, unet_config=unet_config)
    except (ValueError, KeyError) as error:
        raise UserError(f"{file}: not a LoRA ({' '.join(str(error).split())[:200]})") from None
    strange = sorted(key for key in named if key.split(".")[0] not in PARTS)
    if strange:
        raise UserError(f"{file}: {strange[0]} is for neither the U-Net nor the text encoder of Stable Diffusion 1.x")
    if not any(key.startswith("unet.") for key in named):
        raise UserError(f"{file}: contains weights only for a text encoder, none for a U-Net")
    return {
        (part, layer): Pair(a, b, _scale(file, settings, part, layer, len(a)))
        for part in PARTS
        for layer, (a, b) in _pairs(file, part, named).items()
    }


def words(file: Path) -> dict[str, Tensor]:
    """Return the vectors (n, channels) of each word that is bundled with the LoRA in `file`, by name."""
    found, _ = lora_names.words(tensors(file))
    for word, vectors in found.items():
        if vectors.ndim != 2 or not vectors.numel():
            raise UserError(f"{file}: {lora_names.BUNDLE}{word}: an embedding of shape {tuple(vectors.shape)}")
    return found


def _pairs(file: Path, part: str, named: dict[str, Tensor]) -> dict[str, tuple[Tensor, Tensor]]:
    own = {key.removeprefix(f"{part}."): value for key, value in named.items() if key.startswith(f"{part}.")}
    if part == "unet":
        own = convert_unet_state_dict_to_peft(own)
    else:
        own = convert_state_dict(convert_state_dict(own, DIFFUSERS_OLD_TO_PEFT), DIFFUSERS_TO_PEFT)
    sides: dict[str, dict[str, Tensor]] = {}
    for key, value in own.items():
        match = MATRIX.fullmatch(key)
        if match is None:
            raise UserError(f"{file}: {part}.{key} is not a weight of a LoRA")
        sides.setdefault(match[1], {})[match[2]] = value
    for layer, found in sides.items():
        if found.keys() != {"A", "B"}:
            raise UserError(f"{file}: {part}.{layer} has only one of the two matrices of a LoRA")
        if any(side.ndim < 2 or not side.numel() for side in found.values()):
            raise UserError(f"{file}: {part}.{layer}: a LoRA's matrix is empty or has the wrong number of dimensions")
    return {layer: (found["A"], found["B"]) for layer, found in sides.items()}


def _alphas_taken(file: Path, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return `state` with each `.alpha` of Kohya's multiplied in."""
    taken = dict(state)
    for key in [key for key in taken if key.endswith(".alpha")]:
        layer, alpha = key.removesuffix(".alpha"), taken.pop(key)
        up, down = f"{layer}.lora_up.weight", f"{layer}.lora_down.weight"
        if f"{layer}.lora_B.weight" in taken:
            up, down = f"{layer}.lora_B.weight", f"{layer}.lora_A.weight"
        if up not in taken or down not in taken:
            raise UserError(f"{file}: {key} has no lora_up and lora_down")
        if alpha.numel() != 1 or not taken[down].numel() or not taken[down].ndim:
            raise UserError(f"{file}: {key} is not a number, or its lora_down is empty")
        taken[up] = taken[up] * (float(alpha) / len(taken[down]))
    return taken


def _settings(file: Path, state: dict[str, Tensor]) -> dict[str, Any]:
    """Return peft's configuration, its keys preceded by the part: from diffusers' header or the file next to it."""
    if any(key.startswith(PEFT_PREFIX) for key in state):
        beside = file.parent / PEFT_CONFIG
        if not beside.is_file():
            raise UserError(f"{file}: peft's weights need {PEFT_CONFIG} in the same folder, which contains alpha")
        return {f"unet.{key}": value for key, value in plain.load(beside).items()}
    with safe_open(file, "pt") as opened:
        header = (opened.metadata() or {}).get("lora_adapter_metadata", "{}")
    try:
        settings = plain.from_json(header)
    except ValueError:
        settings = None
    if not isinstance(settings, dict):
        raise UserError(f"{file}: lora_adapter_metadata in its header is not a JSON object")
    return settings


def _scale(file: Path, settings: dict[str, Any], part: str, layer: str, rank: int) -> float:
    """Return alpha / rank of `layer`, or alpha / sqrt(rank) where the settings say so.

    As in peft the first key of `alpha_pattern` counts that is the name of the layer or its last parts. In peft it may
    be a regular expression; those of untrusted files are not run: only names are accepted.
    """
    alpha, patterns = settings.get(f"{part}.lora_alpha", rank), settings.get(f"{part}.alpha_pattern") or {}
    if not isinstance(patterns, dict):
        raise UserError(f"{file}: {part}.alpha_pattern is {wording.said(patterns)}; expected an object")
    for pattern, value in reversed(patterns.items()):
        name = pattern.removeprefix("^").replace("\\.", ".")
        if not NAME.fullmatch(name):
            raise UserError(
                f"{file}: {part}.alpha_pattern has {wording.said(pattern)}; only names of layers are supported"
            )
        if layer == name or (layer.endswith(f".{name}") and not pattern.startswith("^")):
            alpha = value
    if not isinstance(alpha, int | float) or not abs(alpha) < coco.LARGEST:
        raise UserError(f"{file}: alpha of {part}.{layer[:200]} is {wording.said(alpha)}; expected a number")
    return alpha / (rank**0.5 if settings.get(f"{part}.use_rslora") else rank)
