"""Teacher, student and target in one U-Net: without its LoRA, with it, and with the average of its product B·A."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn
from torch.func import functional_call

from ..adapters import lora

TARGETS = (
    "to_q", "to_k", "to_v", "to_out.0", "proj_in", "proj_out", "ff.net.0.proj", "ff.net.2", "conv1", "conv2",
    "conv_shortcut", "downsamplers.0.conv", "upsamplers.0.conv", "time_emb_proj",
)  # fmt: skip
"""LCM-LoRA's: every linear and convolutional layer of the blocks (arXiv 2311.05556)."""
OVERSAMPLED, ITERATIONS = 8, 4
"""Of the truncated singular value decomposition (Halko et al., arXiv 0909.4061)."""


class Student(nn.Module):
    """A U-Net with a LoRA that is trained, and the running average of what that adds to each weight.

    The average is of the product: B and A apart have no meaning of their own, any M in (B·M)(M⁻¹·A) gives the same
    network, so the average of B times that of A is the average of nothing.
    """

    averaged_to: Tensor

    def __init__(self, unet: UNet2DConditionModel, rank: int, decay: float | None) -> None:
        """Add a LoRA of `rank` to `unet`; `decay` is of the average, None: there is none."""
        super().__init__()
        lora.add(unet, rank, TARGETS)
        self.unet, self.rank, self.decay = unet, rank, decay
        self.layers = {name: layer for name, layer in unet.named_modules() if isinstance(layer, LoraLayer)}
        if decay is not None:
            self.register_buffer("averaged_to", torch.tensor(-1))
            for number, layer in enumerate(self.layers.values()):
                self.register_buffer(f"product_{number}", torch.zeros_like(layer.weight, dtype=torch.float32))

    def follow(self, step: int) -> None:
        """Take the LoRA as it is before `step` into the average; once a step, however often it is called."""
        if self.decay is None or int(self.averaged_to) >= step:
            return
        with torch.no_grad():
            for layer, product in zip(self.layers.values(), self.products(), strict=True):
                product.lerp_(layer.get_delta_weight("default").float(), 1 - self.decay)
            self.averaged_to.fill_(step)

    def products(self) -> list[Tensor]:
        """Return the average of B·A of each layer, in the shape of its weight."""
        return [getattr(self, f"product_{number}") for number in range(len(self.layers))]

    @contextmanager
    def teacher(self) -> Iterator[UNet2DConditionModel]:
        """Yield the U-Net without its LoRA, for the length of the block."""
        self.unet.disable_adapters()
        try:
            yield self.unet
        finally:
            self.unet.enable_adapters()

    @contextmanager
    def target(self) -> Iterator[Any]:
        """Yield the U-Net with the average in the place of its LoRA; if there is none, with its LoRA."""
        if self.decay is None:
            yield self.unet
            return
        weights = {
            f"{name}.base_layer.weight": (layer.weight.float() + product).to(layer.weight.dtype)
            for (name, layer), product in zip(self.layers.items(), self.products(), strict=True)
        }
        with self.teacher() as unet:
            yield _Replaced(unet, weights)

    @contextmanager
    def shipped(self) -> Iterator[UNet2DConditionModel]:
        """Yield the U-Net as it is saved: with the LoRA of its rank that is nearest to the average."""
        if self.decay is None:
            yield self.unet
            return
        before = [[side["default"].weight.detach().clone() for side in sides(layer)] for layer in self.layers.values()]
        try:
            for layer, product in zip(self.layers.values(), self.products(), strict=True):
                for side, value in zip(sides(layer), truncated(product, self.rank), strict=True):
                    weight = side["default"].weight
                    weight.data.copy_(value.reshape(weight.shape))
            yield self.unet
        finally:
            for layer, values in zip(self.layers.values(), before, strict=True):
                for side, value in zip(sides(layer), values, strict=True):
                    side["default"].weight.data.copy_(value)


def sides(layer: Any) -> tuple[Any, Any]:
    """Return A and B of a `layer` of peft's, by adapter."""
    return layer.lora_A, layer.lora_B


def truncated(product: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Return A (rank, in x kernel) and B (out, rank) whose product is the nearest to `product` (out, in, ...).

    Where the matrix has a lower rank than that, they are filled with zeros.
    """
    matrix = product.flatten(1)
    kept = min(rank, *matrix.shape)
    with torch.random.fork_rng(devices=[matrix.device] if matrix.is_cuda else []):
        torch.manual_seed(0)
        u, sigma, v = torch.svd_lowrank(matrix, q=min(kept + OVERSAMPLED, *matrix.shape), niter=ITERATIONS)
    root = sigma[:kept].sqrt()
    a, b = matrix.new_zeros(rank, matrix.shape[1]), matrix.new_zeros(matrix.shape[0], rank)
    a[:kept], b[:, :kept] = root[:, None] * v[:, :kept].T, u[:, :kept] * root
    return a, b


class _Replaced:
    """A U-Net that runs with other `weights` (by name) instead of its own."""

    def __init__(self, unet: UNet2DConditionModel, weights: dict[str, Tensor]) -> None:
        self.unet, self.weights = unet, weights
        self.config, self.dtype = unet.config, unet.dtype

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return functional_call(self.unet, self.weights, args, kwargs)
