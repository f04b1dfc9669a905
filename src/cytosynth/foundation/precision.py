"""Precision, memory format, compilation and engine of the networks of a foundation."""

from typing import get_args

import torch

from .. import devices
from . import openvino_engine
from .model import DTYPES, Foundation
from .names import EngineName, Precision, PrecisionSetting


def resolved(precision: PrecisionSetting, device: str) -> Precision:
    """Return `precision`, and for `auto` the fast one on `device`.

    bf16 on CUDA GPUs and on CPUs that multiply matrices in it (AMX, AVX512-BF16), else fp32. The device may be on
    another machine, a worker of a cluster; its GPU is assumed to have bf16.
    """
    if precision != "auto":
        return precision
    kind = devices.kind(device)
    if kind == "cuda" and torch.cuda.is_available():
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    return "bf16" if kind == "cuda" or (kind == "cpu" and cpu_has_bf16()) else "fp32"


def precision_of(model: Foundation) -> Precision:
    """Return the precision in which the networks of `model` compute."""
    converted = openvino_engine.of(model.unet)
    if converted:
        return converted.precision
    names: dict[torch.dtype, Precision] = {DTYPES[name]: name for name in get_args(Precision)}
    return names[model.unet.dtype]


def engine_of(model: Foundation) -> EngineName:
    """Return what computes the networks of `model`."""
    return "openvino" if openvino_engine.of(model.unet) else "torch"


def cpu_has_bf16() -> bool:
    """Return whether this CPU has instructions for products of bf16 matrices."""
    return bool(torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported())


def memory_format(precision: Precision) -> torch.memory_format:
    """Return how images and convolutions lie in memory.

    In half precision channels come last, which is faster on CPUs and GPUs. fp32 is unchanged from earlier versions, to
    the bit.
    """
    return torch.contiguous_format if precision == "fp32" else torch.channels_last


def at_a_time(batch: int, device: torch.device) -> int:
    """Return how many images of a `batch` go through a network together on `device`: all, or one.

    On several threads of a CPU they go one by one. There, products of few rows and activations are divided among the
    threads at positions that depend on the batch, and elements next to a border are rounded by other code, so the bits
    of an image would depend on its place in the batch.
    """
    return 1 if device.type == "cpu" and torch.get_num_threads() > 1 else batch


def prepare(
    model: Foundation, precision: Precision, compiled: bool = False, engine: EngineName | None = None
) -> Foundation:
    """Convert the networks of `model` to `precision` and its memory format; return it.

    Latents and samplers are always float32. With `compiled`, torch.compile compiles the U-Net and the decoder at the
    first call for each shape, which takes minutes; on CUDA it also records graphs. With the `engine` openvino, the
    networks stay in float32, and OpenVINO computes in `precision` (None: torch).
    """
    if engine == "openvino":
        openvino_engine.check(precision, compiled, str(model.device))
        openvino_engine.use(model.to(torch.float32), precision)
        return model
    model.to(DTYPES[precision])
    for part in (model.unet, *model.autoencoders):
        torch.nn.Module.to(part, memory_format=memory_format(precision))
    if compiled:
        mode = "reduce-overhead" if model.device.type == "cuda" else None
        for network in (model.unet, *(one.decoder for one in model.autoencoders)):
            if network._compiled_call_impl is None:
                network.compile(mode=mode, dynamic=False)
    return model
