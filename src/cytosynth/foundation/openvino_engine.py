"""OpenVINO instead of PyTorch for U-Nets, encoders and decoders, on CPUs.

A network is converted in memory at its first call with inputs of a shape, and computes them from then on. Everything
else, and what a network is called with, stays as it is.
"""

import time
import warnings
from functools import cache
from importlib.util import find_spec
from typing import Any

import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionOutput
from torch import Tensor, nn
from torch.utils import _pytree

from .. import devices
from ..errors import EnvironmentProblem, UsageError
from ..io.progress import console
from .model import Foundation
from .names import Precision

HINTS: dict[Precision, str] = {"fp32": "f32", "bf16": "bf16"}
"""What OpenVINO calls the precisions that it has on CPUs."""
SLOW = 2.0
"""Seconds from which a conversion is reported."""


def check(precision: Precision, compiled: bool, device: str) -> None:
    """Raise UsageError for what OpenVINO does not do, EnvironmentProblem where it or bf16 is missing."""
    kind = devices.kind(device)
    if kind != "cpu":
        raise UsageError(f"engine=openvino: computes on CPUs only, not on {kind}; use --device cpu or engine=torch")
    if compiled:
        raise UsageError("engine=openvino: torch.compile (--compile) has no effect on it; leave one of both out")
    if precision not in HINTS:
        raise UsageError(f"engine=openvino: computes in fp32 or bf16, not in {precision}; use another precision")
    if find_spec("openvino") is None:
        raise EnvironmentProblem("engine=openvino needs the extra: pip install 'cytosynth[openvino]'")
    if precision == "bf16" and "BF16" not in _core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        raise EnvironmentProblem("engine=openvino: this CPU has no bf16 for OpenVINO; use precision=fp32")


def use(model: Foundation, precision: Precision) -> None:
    """Let OpenVINO compute the U-Net, encoder and decoder of `model`, which are in float32, in `precision`.

    It takes the place of a compiled network (`torch.nn.Module.compile`), so a copy of a network is PyTorch's again.
    """
    coders = (half for one in model.autoencoders for half in (one.encoder, one.decoder))
    for network in (model.unet, *coders):
        if of(network) is None:
            network._compiled_call_impl = Converted(network, precision)


def of(network: nn.Module) -> "Converted | None":
    """Return what computes `network` with OpenVINO; None if PyTorch does."""
    found = network._compiled_call_impl
    return found if isinstance(found, Converted) else None


class Converted:
    """A network that is called as before and computed by OpenVINO, with PyTorch's number of threads.

    Attributes:
        network: PyTorch's, which is converted; its weights must not change any more.
        precision: in which OpenVINO computes; inputs and outputs are float32.
    """

    def __init__(self, network: nn.Module, precision: Precision) -> None:
        """Convert nothing yet."""
        self.network, self.precision = network, precision
        self._requests: dict[Any, Any] = {}

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Return what the network returns for the same arguments."""
        leaves, _ = _pytree.tree_flatten((args, kwargs))
        tensors = [one for one in leaves if isinstance(one, Tensor)]
        key = (
            torch.get_num_threads(),
            tuple((one.shape, one.dtype) if isinstance(one, Tensor) else one for one in leaves),
        )
        if key not in self._requests:
            self._requests[key] = self._request(args, kwargs, tensors)
        outputs = self._requests[key].infer([one.numpy() for one in tensors], share_inputs=True)
        output = torch.from_numpy(outputs[0])
        return UNet2DConditionOutput(sample=output) if hasattr(self.network, "time_embedding") else output

    def _request(self, args: Any, kwargs: Any, tensors: list[Tensor]) -> Any:
        """Return OpenVINO's network for the shapes of `tensors`, which are those in the arguments."""
        begun = time.perf_counter()
        options = {
            "INFERENCE_PRECISION_HINT": HINTS[self.precision], "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "NUM_STREAMS": 1, "PERFORMANCE_HINT": "LATENCY", "ENABLE_CPU_PINNING": False,
        }  # fmt: skip
        request = _core().compile_model(_converted(_Flat(self.network, args, kwargs), tensors), "CPU", options)
        seconds = time.perf_counter() - begun
        if seconds >= SLOW:
            shape = "x".join(map(str, tensors[0].shape))
            name = type(self.network).__name__
            console.print(f"OpenVINO: {name} converted for inputs of {shape} in {seconds:.0f} s", soft_wrap=True)
        return request.create_infer_request()


class _Flat(nn.Module):
    """A network as a function of the tensors in its arguments, however they are nested there."""

    def __init__(self, network: nn.Module, args: Any, kwargs: Any) -> None:
        """Take the place of `network`, called with these arguments."""
        super().__init__()
        self.network = network
        self.leaves, self.spec = _pytree.tree_flatten((args, kwargs))

    def forward(self, *tensors: Tensor) -> Tensor:
        """Return the one tensor that the network returns for `tensors` in the place of those in its arguments."""
        left = iter(tensors)
        leaves = [next(left) if isinstance(one, Tensor) else one for one in self.leaves]
        args, kwargs = _pytree.tree_unflatten(leaves, self.spec)
        output = self.network.forward(*args, **kwargs)
        return output if isinstance(output, Tensor) else output.sample


@torch.no_grad()
def _converted(network: nn.Module, tensors: list[Tensor]) -> Any:
    """Return OpenVINO's model of `network` for the shapes of `tensors`.

    As `openvino.convert_model` makes it, which would report its use to OpenVINO's makers.
    """
    from openvino.frontend import FrontEndManager
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of shapes that become constants, as they should
        traced = torch.jit.trace(network.eval(), tuple(tensors), check_trace=False, strict=False)  # type: ignore[no-untyped-call]
    decoder = TorchScriptPythonDecoder(traced)  # has to live until the model is converted
    front = FrontEndManager().load_by_framework("pytorch")
    model = front.convert(front.load(decoder))
    model.reshape({port: list(one.shape) for port, one in zip(model.inputs, tensors, strict=True)})
    return model


@cache
def _core() -> Any:
    """Return OpenVINO's runtime."""
    import openvino

    return openvino.Core()
