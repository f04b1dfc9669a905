"""How much memory a step of training takes, counted without a GPU: the step is run on tensors without content.

Counted is what PyTorch would hold at once: weights, gradients, optimiser, and all that the passes keep or need for a
moment. Not counted is what a CUDA context, its kernels' workspaces and fragmentation add, about 1 GB.
"""

import weakref
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary
from transformers import CLIPTextConfig, CLIPTextModel

from ..adapters.load import attach
from ..foundation import sd15, tokens
from ..foundation.load import load
from ..foundation.model import DTYPES, Foundation
from ..foundation.names import STABLE_DIFFUSION
from ..io.progress import meter
from ..io.report import Report
from .recipe import NormalRecipe
from .train import freeze_as

GIB = 2**30
LESS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("settings of the recipe", {}),
    ("mixed_precision=bf16", {"mixed_precision": "bf16", "frozen_dtype": "fp32", "gradient_checkpointing": False}),
    ("and frozen_dtype=bf16",
     {"mixed_precision": "bf16", "frozen_dtype": "bf16", "gradient_checkpointing": False}),
    ("and gradient_checkpointing=true",
     {"mixed_precision": "bf16", "frozen_dtype": "bf16", "gradient_checkpointing": True}),
)  # fmt: skip
"""Settings that bring it down, each with those before it."""


class Need(NamedTuple):
    """Numbers that are trained, and the bytes of weights alone and of the whole step at its peak."""

    parameters: int
    weights: int
    peak: int


class Live(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Keeps account of the bytes of all tensors alive that were made under it."""

    def __init__(self) -> None:
        """Begin with nothing."""
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.peak = 0
        self.known = WeakIdKeyDictionary()

    def __torch_dispatch__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run `function` and take its results into account."""
        result = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                self.count(tensor)
        return result

    def count(self, tensor: Tensor) -> None:
        """Take the storage of `tensor` into account until it is gone."""
        storage = tensor.untyped_storage()
        if storage not in self.known:
            size = storage.nbytes()
            self.known[storage] = size
            weakref.finalize(storage, self._gone, size).atexit = False
            self.now += size
            self.peak = max(self.peak, self.now)

    def _gone(self, size: int) -> None:
        self.now -= size


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
        "counted on tensors without content: weights, gradients, optimiser, and all that the passes hold at once; a "
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
            _placed(part)
        freeze_as(model, DTYPES[recipe.frozen_dtype])
        if recipe.gradient_checkpointing:
            model.unet.enable_gradient_checkpointing()
        model.unet.train()
        parameters = [p for part in model.parts.values() for p in part.parameters() if p.requires_grad]
        optimizer = (
            torch.optim.SGD(parameters, momentum=0.9) if recipe.optimizer == "sgd" else torch.optim.Adam(parameters)
        )
        live = Live()
        for part in model.parts.values():
            for tensor in [*part.parameters(), *part.buffers()]:
                live.count(tensor)
        weights = live.now
        with live:
            for _ in range(2):  # the second finds the optimiser's state in place, as every later one does
                _step(recipe, model, prompt if adapter.encodes else None, optimizer)
    return Need(sum(p.numel() for p in parameters), weights, live.peak)


def _step(recipe: NormalRecipe, model: Foundation, prompt: str | None, optimizer: torch.optim.Optimizer) -> None:
    side, unet = recipe.window // model.factor, model.unet
    length, channels = model.tokenizer.model_max_length, model.text_encoder.config.hidden_size
    precision = DTYPES.get(recipe.mixed_precision, torch.bfloat16)
    with torch.autocast("cpu", dtype=precision, enabled=recipe.mixed_precision != "no"):
        latents = torch.randn(recipe.batch_size, model.channels, side, side)
        text = torch.randn(2, length, channels) if prompt is None else model.encode_text([prompt, ""])
        text = text[torch.zeros(recipe.batch_size, dtype=torch.long)]
        timesteps = torch.zeros(recipe.batch_size, dtype=torch.long)
        output = unet(latents.to(unet.dtype), timesteps, text.to(unet.dtype)).sample
        error = (output.float() - latents).square().mean()
    error.backward()
    optimizer.step()
    optimizer.zero_grad()


def _placed(module: torch.nn.Module) -> None:
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
    """Return the networks of `foundation` without content; Stable Diffusion 1.5's need not be fetched.

    Its tokenizer then knows the words of `texts`.
    """
    words = tokens.build(texts)
    if foundation == STABLE_DIFFUSION:
        unet, vae = UNet2DConditionModel(**sd15.UNET), AutoencoderKL(**sd15.VAE)
        text, schedule = CLIPTextModel(CLIPTextConfig(**sd15.TEXT)), DDPMScheduler()
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
