"""The memory that a training step of an adapter needs, by its recipe and with less (`foundation/memory.py`)."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..foundation.memory import GIB, Need, counted, empty, on_cpu
from ..io.progress import meter
from ..io.report import Report
from .recipe import NormalRecipe
from .train import NormalTask
from .windows import Windows

LESS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("settings of the recipe", {}),
    ("mixed_precision=bf16", {"mixed_precision": "bf16", "frozen_dtype": "fp32", "gradient_checkpointing": False}),
    ("and frozen_dtype=bf16",
     {"mixed_precision": "bf16", "frozen_dtype": "bf16", "gradient_checkpointing": False}),
    ("and gradient_checkpointing=true",
     {"mixed_precision": "bf16", "frozen_dtype": "bf16", "gradient_checkpointing": True}),
)  # fmt: skip
"""Settings that reduce the memory, each in addition to those before it."""


def report(recipe: NormalRecipe) -> Report:
    """Return what `recipe` trains and the memory of a step, with its own settings and with those that reduce it."""
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


class Blank(Windows):
    """Windows without content."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        """Make latents of `shape` (C, window/factor, window/factor)."""
        self.shape = shape

    def draw(self, _rng: np.random.Generator, size: int) -> Tensor:
        """Return latents (size, C, window/factor, window/factor)."""
        return torch.zeros(size, *self.shape)

    def to(self, device: torch.device) -> None:
        """Do nothing: there are no tensors to move."""


def count(recipe: NormalRecipe) -> Need:
    """Return the memory that a step of `recipe` needs."""
    recipe = on_cpu(recipe)
    with torch.device("meta"):
        model = empty(recipe.foundation, [recipe.prompt, recipe.initializer])
        side = recipe.window // model.factor
        task = NormalTask(recipe, model, lambda: Blank((model.channels, side, side)))
    return counted(task, recipe, list(model.parts.values()))
