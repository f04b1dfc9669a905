"""A trained network made faster for detection: batch norm becomes a part of the convolution before it."""

from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.ops import FrozenBatchNorm2d

SIDE, TOLERANCE = 64, 1e-3
"""Side of the image on which feature maps are compared, pixels; the difference allowed, relative to their largest."""


def faster(network: nn.Module) -> nn.Module:
    """Return `network` with its backbone folded, or as it is if its feature maps would then be others.

    They would be where a backbone from outside registers its modules in another order than it calls them. One that
    takes no image as small as that of the comparison is left as it is, too.
    """
    backbone = getattr(network, "backbone", None)
    if not isinstance(backbone, nn.Module):
        return network
    folded = fold(deepcopy(backbone))
    image = torch.rand(1, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    try:
        wanted, found = (_maps(one, image) for one in (backbone, folded))
    except RuntimeError:
        return network
    if all(
        (one - other).abs().max() <= TOLERANCE * other.abs().max() for one, other in zip(found, wanted, strict=True)
    ):
        network.set_submodule("backbone", folded)
    return network


@torch.no_grad()
def _maps(backbone: nn.Module, image: Tensor) -> list[Tensor]:
    found = backbone(image)
    return list(found.values()) if isinstance(found, dict) else list(found)


@torch.no_grad()
def fold(network: nn.Module) -> nn.Module:
    """Put every batch norm of `network` into the convolution that is registered just before it, in place.

    With fixed statistics, a norm multiplies each channel by a factor and adds a constant, which the weights and the
    bias of a convolution can do for nothing. The activation after it then overwrites its input. The network returns
    the same but for rounding, and can neither be trained further nor saved: its tensors have other names and values.

    Returns `network`.
    """
    for parent in list(network.modules()):
        before: nn.Module | None = None
        folded = False
        for name, module in list(parent.named_children()):
            if isinstance(before, nn.Conv2d) and _follows(module, before):
                _put(module, before)
                setattr(parent, name, nn.Identity())
                folded = True
            elif folded and isinstance(module, nn.ReLU | nn.ReLU6):
                module.inplace = True
            before = module
    return network


def _follows(norm: Any, convolution: nn.Conv2d) -> bool:
    """Return whether `norm` is a batch norm, with statistics and factors, of the channels of `convolution`."""
    if not isinstance(norm, FrozenBatchNorm2d | nn.BatchNorm2d) or norm.running_mean is None or norm.weight is None:
        return False
    return bool(norm.weight.numel() == convolution.out_channels)


def _put(norm: Any, convolution: nn.Conv2d) -> None:
    """Multiply and shift the output of `convolution` as `norm` does; computed in double precision."""
    factor = norm.weight.double() * (norm.running_var.double() + norm.eps).rsqrt()
    own = 0 if convolution.bias is None else convolution.bias.double()
    kind = convolution.weight.dtype
    convolution.weight = _fixed(convolution.weight.double() * factor[:, None, None, None], kind)
    convolution.bias = _fixed(norm.bias.double() + (own - norm.running_mean.double()) * factor, kind)


def _fixed(values: Tensor, kind: torch.dtype) -> nn.Parameter:
    return nn.Parameter(values.to(kind), requires_grad=False)
