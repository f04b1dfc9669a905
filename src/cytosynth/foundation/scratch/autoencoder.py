"""Training an AutoencoderKL from scratch: the first half of the bundled foundation.

Loss: L1 on pixels, on their gradients at three scales and on colour differences, plus KL. On part of the
steps the latent is shrunk or turned and must decode to the shrunk or turned image (EQ-VAE, arXiv
2502.09509), which makes the latents smoother and the denoiser's work easier.
"""

from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from diffusers.models.downsampling import Downsample2D
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.upsampling import Upsample2D
from torch import Tensor, nn

from ...data import augment
from ...data.preview import grid, save_png
from ...data.sources import Sample
from ...training.task import Batch, Losses, Task
from ..pixels import to_tensor, whole
from ..save import save_part
from .crops import Crops
from .losses import pixel_losses, weighted
from .recipe import AutoencoderRecipe
from .sharpness import reconstruct

OPPONENT = torch.tensor([[0.58, 0.58, 0.58], [2.8, -2.8, 0.0], [1.6, 1.6, -3.3]])
"""Brightness, red-green, yellow-blue: colour, a tenth of the variance of stained cells, is made as loud."""


def build(recipe: AutoencoderRecipe) -> AutoencoderKL:
    """Return an untrained AutoencoderKL; each of its levels but one halves the image."""
    levels = len(recipe.block_out_channels)
    vae = AutoencoderKL(
        block_out_channels=tuple(recipe.block_out_channels),
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        layers_per_block=recipe.layers_per_block,
        latent_channels=recipe.latent_channels,
        norm_num_groups=recipe.norm_num_groups,
        mid_block_add_attention=False,
        sample_size=max(recipe.crops),
    )
    linearise(vae)
    return vae


@torch.no_grad()
def linearise(vae: AutoencoderKL) -> None:
    """Start `vae` near a linear pyramid: residual branches at zero, resampling as averaging, little noise.

    With the default initialisation each resampling halves the colour signal, each residual branch adds
    noise of unit size and so does the posterior: trials of 640 and 420 steps with it were still grey.
    """
    for module in vae.modules():
        if isinstance(module, ResnetBlock2D):
            nn.init.zeros_(module.conv2.weight)
            nn.init.zeros_(module.conv2.bias)
            if module.conv_shortcut is not None:
                nn.init.orthogonal_(module.conv_shortcut.weight)
        elif isinstance(module, Downsample2D):
            _along_channels(module.conv, torch.tensor([[0.25, 0.25, 0.0], [0.25, 0.25, 0.0], [0.0, 0.0, 0.0]]))
        elif isinstance(module, Upsample2D):
            _along_channels(module.conv, torch.tensor([[1.0, 2.0, 1.0], [2.0, 4.0, 2.0], [1.0, 2.0, 1.0]]) / 16)
    for conv in (vae.encoder.conv_in, vae.decoder.conv_in):
        nn.init.zeros_(conv.weight)
        nn.init.orthogonal_(conv.weight[:, :, 1, 1], gain=2.0)
    vae.encoder.conv_in.weight[:, :, 1, 1] = vae.encoder.conv_in.weight[:, :, 1, 1] @ OPPONENT
    logvar = slice(vae.config.latent_channels, None)
    nn.init.zeros_(vae.quant_conv.weight[logvar])
    nn.init.constant_(vae.quant_conv.bias[logvar], -6.0)


def _along_channels(conv: nn.Conv2d, kernel: Tensor) -> None:
    """Make the square 3x3 `conv` apply `kernel` to each channel by itself."""
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)
    conv.weight.copy_(torch.eye(conv.out_channels)[:, :, None, None] * kernel)


class AutoencoderTask(Task):
    """Trains an AutoencoderKL on crops of `samples`."""

    def __init__(
        self,
        recipe: AutoencoderRecipe,
        samples: Sequence[Sample],
        held_out: Sequence[Sample],
        vae: AutoencoderKL | None = None,
    ) -> None:
        """Build the network, or continue with `vae`; `held_out` images are only shown."""
        super().__init__()
        self.recipe, self.samples, self.held_out = recipe, samples, held_out
        self.vae = vae or build(recipe)
        self.crops = Crops(samples, recipe.crops, recipe.augment)

    def batch(self, rng: np.random.Generator, size: int) -> Batch:
        """Return random crops (n, 3, side, side) in -1..1, n x side^2 level, and how the latents are to be changed."""
        pixels = self.crops.batch(rng, size)
        changed = rng.random() < self.recipe.equivariance
        return {
            "pixels": pixels,
            "shrink": 2 if changed else 1,
            "turn": int(rng.integers(4)) if changed else 0,
        }

    def place(self, device: torch.device) -> None:
        """Move the images to `device`, where they fit."""
        self.crops.place(device)

    def networks(self) -> list[nn.Module]:
        """Return encoder and decoder."""
        return [self.vae.encoder, self.vae.decoder]

    def forward(self, batch: Batch) -> Losses:
        """Return reconstruction, gradient, colour and KL losses of `batch`."""
        pixels = batch["pixels"]
        posterior = self.vae.encode(pixels).latent_dist
        latents, target = posterior.sample(), pixels
        if batch["shrink"] > 1:
            latents = F.avg_pool2d(latents, batch["shrink"])
            target = F.avg_pool2d(target, batch["shrink"])
        latents, target = (torch.rot90(x, batch["turn"], (2, 3)) for x in (latents, target))
        output = self.vae.decode(latents).sample
        found = pixel_losses(output, target)
        kl = 0.5 * (posterior.mean.square() + posterior.var - 1 - posterior.logvar).mean()
        return {"loss": weighted(found, self.recipe) + self.recipe.kl_weight * kl, **found, "kl": kl}

    def preview(self, folder: Path, step: int) -> None:
        """Write held-out crops above their reconstructions."""
        preview(self.vae, self.held_out, folder / f"{step:08d}.png")

    def export(self, folder: Path) -> None:
        """Write the AutoencoderKL in diffusers' layout, its latents standardised on the training images."""
        vae = deepcopy(self.vae)
        means, deviations = self.latent_statistics()
        standardise(vae.cpu(), means, deviations)
        vae.register_to_config(scaling_factor=1.0)
        save_part(vae, folder, torch.float32)

    def latent_statistics(self) -> tuple[Tensor, Tensor]:
        """Return mean and standard deviation (C,) of the latents of up to 32 training images."""
        channels = self.vae.config.latent_channels
        total, square, count = torch.zeros(channels), torch.zeros(channels), 0
        for sample in self.samples[:: max(1, len(self.samples) // 32)]:
            width, height = (whole(extent, self.vae) for extent in sample.size)
            pixels = to_tensor(sample.pixels[None, :height, :width]).to(self.vae.device)
            mean = self.vae.encode(pixels).latent_dist.mean.cpu()
            total += mean.sum((0, 2, 3))
            square += mean.square().sum((0, 2, 3))
            count += mean[0, 0].numel()
        return total / count, (square / count - (total / count).square()).sqrt()


def preview(vae: AutoencoderKL, samples: Sequence[Sample], path: Path) -> None:
    """Write crops of the first six `samples`, if there are any, above their reconstructions."""
    rows = []
    for sample in samples[:6]:
        side = min(256, *(whole(extent, vae) for extent in sample.size))
        rows.append(augment.crop(sample.pixels, 0, 0, side))
    if rows:
        save_png(grid([*rows, *[reconstruct(vae, pixels) for pixels in rows]], columns=len(rows)), path)


@torch.no_grad()
def standardise(vae: AutoencoderKL, means: Tensor, deviations: Tensor) -> None:
    """Fold (z - mean) / deviation, by channel, into the 1x1 convolutions around the latents of `vae`.

    Images decode as before; latents get mean 0 and deviation 1, as a noise schedule expects.
    """
    quant, post = vae.quant_conv, vae.post_quant_conv
    channels = len(means)
    quant.weight[:channels] /= deviations[:, None, None, None]
    quant.bias[:channels] = (quant.bias[:channels] - means) / deviations
    quant.bias[channels:] -= 2 * deviations.log()
    post.bias += post.weight[:, :, 0, 0] @ means
    post.weight *= deviations[None, :, None, None]
