"""A decoder whose normalisation does not depend on the tile.

Group normalisation divides by the statistics of all that is decoded at once. Tiles of a slide have different cells, so
each would get its own tone, and the slide a pattern of blocks. Here the statistics are taken once, from places all over
the slide together, and every tile is decoded with them, as if the slide were decoded whole (cf. Tiled VAE in
https://github.com/pkuliyi2015/multidiffusion-upscaler-for-automatic1111, which takes them from a reduced image).
"""

from copy import deepcopy
from dataclasses import replace

import torch
from torch import Tensor, nn

from ..foundation import openvino_engine
from ..foundation.model import Foundation


class Pooled(nn.Module):
    """Group normalisation with the statistics of the first batch that it sees, all its images together."""

    def __init__(self, norm: nn.GroupNorm) -> None:
        """Take the place of `norm`."""
        super().__init__()
        self.norm = norm
        self.scale: Tensor | None = None
        self.shift: Tensor | None = None

    def forward(self, features: Tensor) -> Tensor:
        """Return normalised (n, channels, ...) `features`."""
        if self.scale is None or self.shift is None:
            self.scale, self.shift = self._measured(features)
        shape = (1, -1, *(1,) * (features.ndim - 2))
        return features * self.scale.to(features).view(shape) + self.shift.to(features).view(shape)

    def _measured(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Return factor and summand of each channel."""
        norm = self.norm
        grouped = features.float().reshape(len(features), norm.num_groups, -1)
        mean, variance = grouped.mean(dim=(0, 2)), grouped.var(dim=(0, 2), unbiased=False)
        each = features.shape[1] // norm.num_groups
        factor = (variance + norm.eps).rsqrt().repeat_interleave(each)
        scale = factor * norm.weight.float()
        return scale, norm.bias.float() - mean.repeat_interleave(each) * scale


@torch.no_grad()
def pooled(model: Foundation, places: Tensor) -> Foundation:
    """Return `model` with a decoder normalised by the statistics of the (n, C, h, w) latents of `places` together.

    A tiny decoder does not normalise, and stays as it is.
    """
    if model.tiny_decoder is not None:
        return model
    vae = deepcopy(model.vae)
    for name, module in list(vae.decoder.named_modules()):
        if isinstance(module, nn.GroupNorm):
            vae.decoder.set_submodule(name, Pooled(module))
    fixed = replace(model, vae=vae)
    fixed.decode_latents(places.to(model.device))
    converted = openvino_engine.of(model.vae.decoder)
    if converted:  # the copy was PyTorch's
        openvino_engine.use(fixed, converted.precision)
    return fixed
