"""Names of LoRA weights in published files, converted to the two that diffusers reads: its own, and Kohya's.

| file | name of a U-Net's layer |
|---|---|
| diffusers | `unet.down_blocks.0...lora_A.weight` |
| the U-Net's own `save_attn_procs`, and others without a prefix | `down_blocks.0...lora_A.weight` |
| peft | `base_model.model.down_blocks.0...lora_A.weight` |
| ComfyUI | `diffusion_model.down_blocks.0...`, or with the original names `diffusion_model.input_blocks.1...` |
| Kohya | `lora_unet_down_blocks_0...lora_down.weight` |
"""

import re

from torch import Tensor

PEFT_PREFIX = "base_model.model."
WHOLE = re.compile(r"^(base_model\.model\.|(model\.)?diffusion_model\.|unet\.)")
"""What precedes the name of a U-Net's layer."""
ENCODER = re.compile(r"^(text_encoders\.clip_l\.transformer\.|text_encoder\.)?(?=text_model\.)")
OURS = re.compile(r"(down_blocks|mid_block|up_blocks|conv_in|conv_out|time_embedding)\.")
ORIGINAL = re.compile(r"(input_blocks|middle_block|output_blocks|time_embed|out)\.")
"""First part of a layer's name: diffusers', and the original repository's."""
MATRIX = re.compile(r"\.(lora_(down|up)\.weight|alpha)$")
BUNDLE = "bundle_emb."
"""Prefix of the keys of words that a LoRA was trained with and contains (AUTOMATIC1111's convention)."""


def diffusers(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return `state` with the names of layers as diffusers reads them; what is not known keeps its name.

    Layers with original names are written as Kohya's, whose numbering of blocks diffusers knows how to convert, and so
    are then those of the text encoder, as diffusers reads no mixture.
    """
    bodies = {key: WHOLE.sub("", key) for key in state}
    original = any(map(ORIGINAL.match, bodies.values()))
    named: dict[str, Tensor] = {}
    for key, value in state.items():
        body, text = bodies[key], ENCODER.sub("", key)
        if ORIGINAL.match(body):
            named[_kohya("lora_unet_", body)] = value
        elif OURS.match(body):
            named[f"unet.{_peft(body)}"] = value
        elif text.startswith("text_model."):
            named[_kohya("lora_te_", text) if original else f"text_encoder.{_peft(text)}"] = value
        else:
            named[key] = value
    return named


def words(state: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return the words that are bundled in `state`, by name, and the rest of it."""
    found, rest = {}, {}
    for key, value in state.items():
        if key.startswith(BUNDLE):
            name, _, part = key.removeprefix(BUNDLE).partition(".")
            found[name] = value
            if part not in ("emb_params", "string_to_param.*"):
                rest[key] = value
        else:
            rest[key] = value
    return found, rest


def _kohya(prefix: str, body: str) -> str:
    """Return the name of a weight whose layer and matrix are parted by dots as Kohya writes it."""
    body = body.replace(".default.", ".").replace(".lora_A.", ".lora_down.").replace(".lora_B.", ".lora_up.")
    match = MATRIX.search(body)
    return prefix + (f"{body[: match.start()].replace('.', '_')}{match[0]}" if match else body)


def _peft(body: str) -> str:
    """Return the name of a weight with peft's names of the two matrices."""
    return body.replace(".default.", ".").replace(".lora_down.", ".lora_A.").replace(".lora_up.", ".lora_B.")
