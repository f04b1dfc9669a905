"""Stable Diffusion for the tests: drawn by us and by diffusers' pipeline, and in the names of other tools' files."""

import json
import re
from pathlib import Path

import numpy as np
import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import load_file

from cytosynth.foundation import load as foundations
from cytosynth.foundation import samplers, sampling
from cytosynth.foundation.model import Foundation


def fresh(tiny: Path) -> Foundation:
    return foundations.load(str(tiny / "foundation")).freeze()


def draw(model: Foundation, prompt: str) -> np.ndarray:
    text = model.encode_text([prompt, ""])
    start = sampling.noise((1, 4, 16, 16), 1)
    with torch.no_grad():
        latents = sampling.sample(
            sampling.guided(model.unet, text[:1], text[1:]), samplers.build("ddim", model.scheduler), start, steps=4
        )
        return model.decode_latents(latents)[0].astype(int)


def pipeline(model: Foundation) -> StableDiffusionPipeline:
    made = StableDiffusionPipeline(
        model.vae, model.text_encoder, model.tokenizer, model.unet, samplers.build("ddim", model.scheduler), None, None,
        requires_safety_checker=False,
    )  # fmt: skip
    made.set_progress_bar_config(disable=True)
    return made


def drawn_by(made: StableDiffusionPipeline, prompt: str) -> np.ndarray:
    images = made(
        prompt, height=128, width=128, num_inference_steps=4, guidance_scale=5.0, output_type="np",
        latents=sampling.noise((1, 4, 16, 16), 1),
    ).images  # fmt: skip
    return np.rint(images[0] * 255).astype(int)


Tensors = dict[str, torch.Tensor]


def kohya(model: Foundation, rank: int, alpha: float) -> tuple[Tensors, Tensors]:
    """Return a LoRA of both networks in Kohya's names, and what it adds to each weight by its name in `model`."""
    torch.manual_seed(2)
    state, added = {}, {}
    unet = ("attn1.to_q", "attn2.to_q", "attn2.to_k", "attn2.to_v", "attn2.to_out.0", "ff.net.0.proj", "proj_in")
    text = ("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2")
    for part, prefix, ends in (("unet", "lora_unet_", unet), ("text_encoder", "lora_te_text_model_", text)):
        for name, module in model.parts[part].named_modules():
            if name.endswith(ends):
                shape = module.weight.shape
                kernel = (1,) * (len(shape) - 2)
                down, up = torch.randn(rank, shape[1], *kernel), 0.1 * torch.randn(shape[0], rank, *kernel)
                key = f"{prefix}{name.removeprefix('text_model.').replace('.', '_')}"
                state |= {f"{key}.lora_down.weight": down, f"{key}.lora_up.weight": up}
                state[f"{key}.alpha"] = torch.tensor(alpha)
                added[f"{part}.{name}"] = (alpha / rank * up.flatten(1) @ down.flatten(1)).reshape(shape)
    return state, added


def weight_of(model: Foundation, name: str) -> torch.Tensor:
    part, _, layer = name.partition(".")
    return model.parts[part].get_submodule(layer).weight


def original_layout(folder: Path) -> tuple[dict[str, torch.Tensor], dict[str, dict]]:
    """Return the weights of the tiny foundation under the key names of the original Stable Diffusion files."""
    configs = {
        part: json.loads((folder / part / "config.json").read_text()) for part in ("unet", "vae", "text_encoder")
    }
    unet = load_file(folder / "unet/diffusion_pytorch_model.safetensors")
    vae = load_file(folder / "vae/diffusion_pytorch_model.safetensors")
    text = load_file(folder / "text_encoder/model.safetensors")
    out = {f"model.diffusion_model.{ldm_unet(key)}": value for key, value in unet.items()}
    out |= {f"first_stage_model.{ldm_vae(key)}": value for key, value in vae.items()}
    for key, value in text.items():
        out["cond_stage_model.transformer." + (key if key.startswith("text_model.") else f"text_model.{key}")] = value
    return out, configs


INNER = [("norm1", "in_layers.0"), ("conv1", "in_layers.2"), ("norm2", "out_layers.0"), ("conv2", "out_layers.3"),
         ("time_emb_proj", "emb_layers.1"), ("conv_shortcut", "skip_connection")]  # fmt: skip


def ldm_unet(key: str, layers: int = 1, attends: tuple[bool, ...] = (True, True, False, False)) -> str:
    simple = {"time_embedding.linear_1": "time_embed.0", "time_embedding.linear_2": "time_embed.2",
              "conv_in": "input_blocks.0.0", "conv_norm_out": "out.0", "conv_out": "out.2"}  # fmt: skip
    for ours, theirs in simple.items():
        if key.startswith(ours + "."):
            return key.replace(ours, theirs, 1)
    if ".resnets." in key:
        for ours, theirs in INNER:
            key = key.replace(f".{ours}.", f".{theirs}.")
    if match := re.match(r"mid_block\.(resnets|attentions)\.(\d)\.(.*)", key):
        kind, index, rest = match.groups()
        return f"middle_block.{1 if kind == 'attentions' else 2 * int(index)}.{rest}"
    kind, block, part, index, rest = re.match(r"(down|up)_blocks\.(\d)\.(\w+)\.(\d)\.(.*)", key).groups()
    block, index = int(block), int(index)
    if kind == "down":
        if part == "downsamplers":
            return f"input_blocks.{(block + 1) * (layers + 1)}.0.op.{rest.removeprefix('conv.')}"
        return f"input_blocks.{1 + block * (layers + 1) + index}.{0 if part == 'resnets' else 1}.{rest}"
    if part == "upsamplers":
        return f"output_blocks.{block * (layers + 1) + layers}.{2 if attends[block] else 1}.{rest}"
    return f"output_blocks.{block * (layers + 1) + index}.{0 if part == 'resnets' else 1}.{rest}"


def ldm_vae(key: str) -> str:
    key = key.replace("conv_shortcut", "nin_shortcut").replace("conv_norm_out", "norm_out")
    key = re.sub(r"encoder\.down_blocks\.(\d)\.resnets\.(\d)", r"encoder.down.\1.block.\2", key)
    key = re.sub(r"encoder\.down_blocks\.(\d)\.downsamplers\.0", r"encoder.down.\1.downsample", key)
    key = re.sub(r"decoder\.up_blocks\.(\d)\.resnets\.(\d)", lambda m: f"decoder.up.{3 - int(m[1])}.block.{m[2]}", key)
    key = re.sub(r"decoder\.up_blocks\.(\d)\.upsamplers\.0", lambda m: f"decoder.up.{3 - int(m[1])}.upsample", key)
    for ours, theirs in (("group_norm", "norm"), ("to_q", "q"), ("to_k", "k"), ("to_v", "v"), ("to_out.0", "proj_out")):
        key = key.replace(f"mid_block.attentions.0.{ours}.", f"mid.attn_1.{theirs}.")
    return re.sub(r"mid_block\.resnets\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}", key)
