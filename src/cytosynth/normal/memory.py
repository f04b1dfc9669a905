"""How much memory a step of training an adapter takes, as its recipe is and with less (`foundation/memory.py`)."""

from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from ..adapters.load import attach
from ..foundation.memory import GIB, Need, counted, empty, placed
from ..foundation.model import DTYPES, Foundation
from ..io.progress import meter
from ..io.report import Report
from .recipe import NormalRecipe
from .train import freeze_as

LESS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("settings of the recipe", {}),
    ("mixed_precision=bf16", {"mixed_precision": "bf16", "frozen_dtype": "fp32", "gradient_checkpointing": False}),
    ("and frozen_dtype=bf16",
     {"mixed_precision": "bf16", "frozen_dtype": "bf16", "gradient_checkpointing": False}),
    ("and gradient_checkpointing=true",
     {"mixed_precision": "bf16", "frozen_dtype": "bf16", "gradient_checkpointing": True}),
)  # fmt: skip
"""Settings that bring it down, each with those before it."""


def report(recipe: NormalRecipe) -> Report:
    """Return what `recipe` trains and how much memory a step takes, as it is and with less."""
    rows = []
    with meter("counting memory", len(LESS)) as bar:
        for name, changes in LESS:
            need = count(recipe.model_copy(update=changes))
            rows.append((name, need.parameters, need.weights / GIB, need.peak / GIB))
            bar.advance()
    facts = {"foundation": recipe.foundation, "adapter": recipe.adapter, "window": recipe.window,
             "batch_size": recipe.batch_size, "optimizer": recipe.optimizer}  # fmt: skip
    notes = (
        "counted on tensors without content: weights, gradients, optimiser, and all tensors that exist at once; a "
        "CUDA context and kernels' workspaces come on top, about 1 GiB",
        "autoencoder and text encoder are included; latents are encoded before training",
    )
    columns = ("settings", "trained parameters", "weights, GiB", "peak, GiB")
    return Report(f"Memory of training {recipe.adapter}", facts, columns, tuple(rows), notes)


def count(recipe: NormalRecipe) -> Need:
    """Return what a step of `recipe` needs."""
    with torch.device("meta"):
        model = empty(recipe.foundation, [recipe.prompt, recipe.initializer])
        adapter, prompt = attach(model, recipe)
    with FakeTensorMode():
        for part in model.parts.values():
            placed(part)
        freeze_as(model, DTYPES[recipe.frozen_dtype])
        if recipe.gradient_checkpointing:
            model.unet.enable_gradient_checkpointing()
        model.unet.train()
        written = prompt if adapter.encodes else None
        return counted(list(model.parts.values()), recipe, lambda: _loss(recipe, model, written))


def _loss(recipe: NormalRecipe, model: Foundation, prompt: str | None) -> Tensor:
    side, unet = recipe.window // model.factor, model.unet
    length, channels = model.tokenizer.model_max_length, model.text_encoder.config.hidden_size
    precision = DTYPES.get(recipe.mixed_precision, torch.bfloat16)
    with torch.autocast("cpu", dtype=precision, enabled=recipe.mixed_precision != "no"):
        latents = torch.randn(recipe.batch_size, model.channels, side, side)
        text = torch.randn(2, length, channels) if prompt is None else model.encode_text([prompt, ""])
        text = text[torch.zeros(recipe.batch_size, dtype=torch.long)]
        timesteps = torch.zeros(recipe.batch_size, dtype=torch.long)
        output = unet(latents.to(unet.dtype), timesteps, text.to(unet.dtype)).sample
        return (output.float() - latents).square().mean()
