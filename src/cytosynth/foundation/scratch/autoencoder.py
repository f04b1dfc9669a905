"""Training an AutoencoderKL from nothing: the first half of the bundled foundation.

Loss: L1 on pixels, on their gradients at three scales and on colour differences, plus KL. On part of the
steps the latent is shrunk or turned and must decode to the shrunk or turned image (EQ-VAE, arXiv
2502.09509), which makes the latents smoother and the denoiser's work easier.
"""

import math
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

from ...data import augment, varied
from ...data.preview import grid, save_png
from ...data.sources import Sample
from ...errors import UserError
from ...training.task import Batch, Losses, Task
from ..parts import save_part
from ..pixels import to_pixels, to_tensor
from .recipe import AutoencoderRecipe

OPPONENT = torch.tensor([[0.58, 0.58, 0.58], [2.8, -2.8, 0.0], [1.6, 1.6, -3.3]])
"""Brightness, red-green, yellow-blue: colour, a tenth of the variance of stained cells, is made as loud."""


def build(recipe: AutoencoderRecipe) -> AutoencoderKL:
    """Return an untrained AutoencoderKL of 4 latent channels at 1/8 scale."""
    levels = len(recipe.block_out_channels)
    vae = AutoencoderKL(
        block_out_channels=tuple(recipe.block_out_channels),
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        layers_per_block=recipe.layers_per_block,
        latent_channels=4,
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
    noise of unit size and so does the posterior: trials of 640 and 420 steps so begun were still grey.
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
        """Build the network, or go on with `vae`; `held_out` images are only shown."""
        super().__init__()
        varied.keep_size(recipe.augment, "the autoencoder")
        self.recipe, self.samples, self.held_out = recipe, samples, held_out
        self.vae = vae or build(recipe)
        if recipe.decoder_only:
            for frozen in (self.vae.encoder, self.vae.quant_conv):
                frozen.requires_grad_(False)
        for sample in samples:
            if min(sample.size) < max(recipe.crops):
                raise UserError(f"{sample.name}: smaller than the crops of {max(recipe.crops)} pixels at its scale")
        areas = np.array([math.prod(sample.size) for sample in samples], dtype=np.float64)
        self.weights = areas / areas.sum()

    def batch(self, rng: np.random.Generator, size: int) -> Batch:
        """Return random crops (n, 3, side, side) in -1..1, n x side^2 level, and how the latents are to be changed."""
        side = int(rng.choice(self.recipe.crops))
        count = max(1, round(size * self.recipe.crops[0] ** 2 / side**2))
        crops = []
        for index in rng.choice(len(self.samples), count, p=self.weights):
            pixels = self.samples[index].pixels
            x, y = (int(rng.integers(extent - side + 1)) for extent in (pixels.shape[1], pixels.shape[0]))
            turned = augment.d4(augment.crop(pixels, x, y, side), int(rng.integers(8)))
            crops.append(varied.at_this_step(turned, (), self.recipe.augment, rng)[0].copy())
        changed = rng.random() < self.recipe.equivariance
        return {
            "pixels": to_tensor(np.stack(crops)),
            "shrink": 2 if changed else 1,
            "turn": int(rng.integers(4)) if changed else 0,
        }

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
        l1 = (output - target).abs().mean()
        gradient = gradient_loss(output, target)
        chroma = (output.diff(dim=1) - target.diff(dim=1)).abs().mean()
        kl = 0.5 * (posterior.mean.square() + posterior.var - 1 - posterior.logvar).mean()
        weights = self.recipe
        loss = l1 + weights.gradient_weight * gradient + weights.chroma_weight * chroma + weights.kl_weight * kl
        return {"loss": loss, "l1": l1, "gradient": gradient, "chroma": chroma, "kl": kl}

    def preview(self, folder: Path, step: int) -> None:
        """Write held-out crops above their reconstructions."""
        rows = []
        for sample in self.held_out[:6]:
            side = min(256, *(extent // 8 * 8 for extent in sample.size))
            rows.append(augment.crop(sample.pixels, 0, 0, side))
        if not rows:
            return
        reconstructions = [reconstruct(self.vae, pixels) for pixels in rows]
        save_png(grid([*rows, *reconstructions], columns=len(rows)), folder / f"{step:08d}.png")

    def export(self, folder: Path) -> None:
        """Write the AutoencoderKL in diffusers' layout, its latents standardised on the training images."""
        if self.recipe.decoder_only:
            save_part(self.vae, folder, torch.float32)
            return
        vae = deepcopy(self.vae)
        means, deviations = self.latent_statistics()
        standardise(vae.cpu(), means, deviations)
        vae.register_to_config(scaling_factor=1.0)
        save_part(vae, folder, torch.float32)

    def latent_statistics(self) -> tuple[Tensor, Tensor]:
        """Return mean and standard deviation (4,) of the latents of up to 32 training images."""
        total, square, count = torch.zeros(4), torch.zeros(4), 0
        for sample in self.samples[:: max(1, len(self.samples) // 32)]:
            width, height = (extent // 8 * 8 for extent in sample.size)
            pixels = to_tensor(sample.pixels[None, :height, :width]).to(self.vae.device)
            mean = self.vae.encode(pixels).latent_dist.mean.cpu()
            total += mean.sum((0, 2, 3))
            square += mean.square().sum((0, 2, 3))
            count += mean[0, 0].numel()
        return total / count, (square / count - (total / count).square()).sqrt()


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


def gradient_loss(output: Tensor, target: Tensor, scales: int = 3) -> Tensor:
    """Return the mean L1 distance between horizontal and vertical differences at `scales` halvings."""
    total = output.new_zeros(())
    for scale in range(scales):
        if scale:
            output, target = F.avg_pool2d(output, 2), F.avg_pool2d(target, 2)
        for axis in (2, 3):
            total = total + (output.diff(dim=axis) - target.diff(dim=axis)).abs().mean()
    return total / scales


@torch.no_grad()
def reconstruct(vae: AutoencoderKL, pixels: np.ndarray) -> np.ndarray:
    """Return (height, width, 3) `pixels`, sides multiples of 8, encoded and decoded."""
    latents = vae.encode(to_tensor(pixels[None]).to(vae.device)).latent_dist.mode()
    return np.asarray(to_pixels(vae.decode(latents).sample)[0])


def psnr(first: np.ndarray, second: np.ndarray) -> float:
    """Return the peak signal-to-noise ratio of two byte images, dB."""
    error = np.mean((first.astype(np.float64) - second.astype(np.float64)) ** 2)
    return float(10 * np.log10(255**2 / max(float(error), 1e-12)))
