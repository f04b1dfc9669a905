"""The memory that a training step needs, counted without a GPU: the step is run on tensors without content.

The count includes all tensors that exist at the same time: weights, gradients, optimiser, and activations and temporary
tensors of both passes. It does not include a CUDA context, its kernels' workspaces and fragmentation, about 1 GB.
"""

import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary
from transformers import CLIPTextConfig, CLIPTextModel

from ..training.recipe import Recipe
from ..training.task import Task
from ..training.trainer import Trainer
from . import sd15, tokens
from .load import load
from .model import Foundation
from .names import STABLE_DIFFUSION

R = TypeVar("R", bound=Recipe)
GIB = 2**30


class Need(NamedTuple):
    """Number of trained parameters, and the bytes of the weights alone and of the whole step at its peak."""

    parameters: int
    weights: int
    peak: int


class Live(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of all live tensors that were created within it."""

    def __init__(self) -> None:
        """Begin with nothing."""
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.peak = 0
        self.known = WeakIdKeyDictionary()

    def __torch_dispatch__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run `function` and count its results."""
        result = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                self.count(tensor)
        return result

    def count(self, tensor: Tensor) -> None:
        """Count the storage of `tensor` until it is freed."""
        storage = tensor.untyped_storage()
        if storage not in self.known:
            size = storage.nbytes()
            self.known[storage] = size
            weakref.finalize(storage, self._gone, size).atexit = False
            self.now += size
            self.peak = max(self.peak, self.now)

    def _gone(self, size: int) -> None:
        self.now -= size


def on_cpu(recipe: R) -> R:
    """Return `recipe` with types of equal size that a CPU's autocast supports, uncompiled, one micro-step per step."""
    changes: dict[str, Any] = {"compile": False, "gradient_accumulation": 1, "memory_format": "contiguous"}
    for name in ("mixed_precision", "frozen_dtype"):
        if getattr(recipe, name, "") == "fp16":
            changes[name] = "bf16"
    return recipe.model_copy(update=changes)


def counted(task: Task, recipe: Recipe, networks: Sequence[nn.Module]) -> Need:
    """Return the memory that a training step of `task`, whose tensors are on the device `meta`, needs with `recipe`.

    Weights are those of `networks`, which are part of it.
    """
    live = Live()
    with FakeTensorMode(allow_non_fake_inputs=True):  # of the noise schedule
        placed(task)
        for network in networks:
            for tensor in [*network.parameters(), *network.buffers()]:
                live.count(tensor)
        weights = live.now
        with live:
            trainer = Trainer(lambda: task, recipe, Path(), place=False)
            for _ in range(2):  # the second finds the optimiser's state in place, as every later one does
                trainer.advance()
    return Need(sum(p.numel() for _, p in task.trained()), weights, live.peak)


def placed(module: nn.Module) -> None:
    """Give the parameters and buffers of `module`, which are nowhere, a place (on the CPU, in name only)."""
    for child in module.modules():
        for name, parameter in list(child._parameters.items()):
            if parameter is not None:
                empty = torch.empty(parameter.shape, dtype=parameter.dtype)
                child._parameters[name] = torch.nn.Parameter(empty, parameter.requires_grad)
        for name, buffer in list(child._buffers.items()):
            if buffer is not None:
                child._buffers[name] = torch.zeros(buffer.shape, dtype=buffer.dtype)


def empty(foundation: str, texts: Sequence[str] = ()) -> Foundation:
    """Return the networks of `foundation` without content; Stable Diffusion 1.5 is not downloaded.

    Its tokenizer then has the words of `texts`.
    """
    words = tokens.build(texts)
    if foundation == STABLE_DIFFUSION:
        unet, vae = UNet2DConditionModel(**sd15.UNET), AutoencoderKL(**sd15.VAE)
        text = CLIPTextModel(CLIPTextConfig(**sd15.TEXT))
        with torch.device("cpu"):
            schedule = DDPMScheduler()
        words.model_max_length = text.config.max_position_embeddings
        return Foundation(unet, vae, text, words, schedule, foundation)
    with torch.device("cpu"):
        real = load(foundation)
    configs = [dict(part.config) for part in (real.unet, real.vae)]
    for config in configs:
        config.pop("_use_default_values", None)  # from_config would reset to its default whatever is named there
    unet, vae = UNet2DConditionModel.from_config(configs[0]), AutoencoderKL.from_config(configs[1])
    text = CLIPTextModel(real.text_encoder.config)
    return Foundation(unet, vae, text, real.tokenizer, real.scheduler, foundation)
