"""Sharpening the decoder of a trained autoencoder: a perceptual loss, then a discriminator of patches as well.

The encoder is unchanged, so that everything trained on its latents stays valid. The discriminator is trained from the
first step; it affects the decoder from `adversarial_start` on. Weights are selected by the power spectrum of held-out
reconstructions, which such training first brings near that of the originals and then beyond it.

With `regenerated` latents the decoder is trained on what it will be given: each batch also holds crops of these,
compared with their images by features and by what is coarse in them, and crops of sampled latents, which have no image.
What is coarse in those is to stay as the decoder drew it before; the discriminator judges the rest.
"""

from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from torch import Tensor, nn

from ...data.sources import Sample
from ...training.task import Batch, Losses, Task
from ..pixels import scale_factor, whole
from ..save import save_part
from . import sharpness
from .autoencoder import preview
from .crops import Crops
from .discriminator import Discriminator, adaptive_weight, hinge, r1
from .losses import pixel_losses, weighted
from .perceptual import Perceptual
from .recipe import DecoderRecipe
from .regenerated import Regenerated

SCORED = 8
"""Held-out images, at most, by which weights are selected."""
SCORED_SIDE = 256
"""Side of what of them is decoded, pixels."""
ENCODED = 0.375
"""Share of a batch that are encoded crops, with `regenerated` ones: as many are of these, and the rest was sampled."""
COARSE = 4
"""Pixels, a side, whose mean is compared where details cannot be the same."""


class DecoderTask(Task):
    """Trains the decoder of an AutoencoderKL together with a discriminator."""

    def __init__(
        self, recipe: DecoderRecipe, samples: Sequence[Sample], held_out: Sequence[Sample], vae: AutoencoderKL
    ) -> None:
        """Go on with `vae`, its encoder frozen; `held_out` images are shown and scored."""
        super().__init__()
        self.recipe, self.held_out, self.vae = recipe, held_out, vae
        for frozen in (vae.encoder, vae.quant_conv):
            frozen.requires_grad_(False)
        self.crops = Crops(samples, recipe.crops, recipe.augment)
        self.perceptual = Perceptual()
        self.discriminator = Discriminator(recipe.discriminator_channels, recipe.discriminator_halvings)
        self.regenerated: Regenerated | None = None
        if recipe.regenerated:
            factor, side = scale_factor(vae), max(recipe.crops)
            self.regenerated = Regenerated(Path(recipe.regenerated), recipe.encoder, factor, side)
            self.before = deepcopy(vae).requires_grad_(False)

    def batch(self, rng: np.random.Generator, size: int) -> Batch:
        """Return random crops (n, 3, side, side) in -1..1, whether R1 is taken, and crops of `regenerated` latents."""
        if self.regenerated is None:
            return {"pixels": self.crops.batch(rng, size), "r1": rng.random() < self.recipe.r1_share}
        pixels = self.crops.batch(rng, max(1, round(size * ENCODED)))
        latents, aims, sampled = self.regenerated.batch(rng, len(pixels), pixels.shape[-1])
        taken = rng.random() < self.recipe.r1_share
        return {"pixels": pixels, "r1": taken, "latents": latents, "aims": aims, "sampled": sampled}

    def forward(self, batch: Batch) -> Losses:
        """Return the losses of `batch`: of the decoder `loss`, of the discriminator `adversary`, and their parts."""
        recipe, pixels = self.recipe, batch["pixels"]
        with torch.no_grad():
            latents = self.vae.encode(pixels).latent_dist.sample()
        output = self.vae.decode(latents).sample.float()
        found = pixel_losses(output, pixels) | {"perceptual": self.perceptual(output, pixels)}
        loss = weighted(found, recipe) + recipe.perceptual_weight * found["perceptual"]
        if self.regenerated is not None:
            again, free, losses = self._regenerated(batch, self.regenerated)
            found |= losses
            loss = loss + losses["regenerated"] + losses["sampled"]
            pixels, output = torch.cat([pixels, batch["aims"]]), torch.cat([output, again, free])
        adversarial = -self.discriminator.fixed(output).mean()
        weight = torch.zeros_like(adversarial)
        if self.step >= recipe.adversarial_start:
            weight = adaptive_weight(loss, adversarial, self.vae.decoder.conv_out.weight, recipe.adversarial_weight)
        adversary = hinge(self.discriminator(pixels), self.discriminator(output.detach()))
        penalty = r1(self.discriminator, pixels) if batch["r1"] else torch.zeros_like(adversary)
        return {
            "loss": loss + weight * adversarial,
            "adversary": adversary + recipe.r1_weight / recipe.r1_share * penalty,
            **found, "adversarial": adversarial, "adaptive weight": weight, "hinge": adversary,
        }  # fmt: skip

    def _regenerated(self, batch: Batch, source: Regenerated) -> tuple[Tensor, Tensor, Losses]:
        """Return the images of regenerated and of sampled latents, each (n, 3, side, side), and their losses."""
        recipe, aims, sampled = self.recipe, batch["aims"], batch["sampled"]
        again = source.inner(self.vae.decode(batch["latents"]).sample)
        free = source.inner(self.vae.decode(sampled).sample)
        with torch.no_grad():
            as_before = source.inner(self.before.decode(sampled).sample)
        features = recipe.perceptual_weight * self.perceptual(again, aims)
        compared = weighted(_coarse_losses(again, aims), recipe) + features
        return again, free, {"regenerated": compared, "sampled": weighted(_coarse_losses(free, as_before), recipe)}

    def groups(self) -> list[tuple[list[nn.Parameter], float]]:
        """Return the decoder."""
        return [([p for name, p in self.trained() if not name.startswith("discriminator.")], 1.0)]

    def adversary_groups(self) -> list[tuple[list[nn.Parameter], float]]:
        """Return the discriminator."""
        return [(list(self.discriminator.parameters()), 1.0)]

    def networks(self) -> list[nn.Module]:
        """Return encoder, decoder and the network of the perceptual loss."""
        return [self.vae.encoder, self.vae.decoder, self.perceptual]

    def place(self, device: torch.device) -> None:
        """Move the images to `device`, where they fit."""
        self.crops.place(device)

    def score(self) -> float | None:
        """Return by how many octaves of power held-out reconstructions are off, on average over the bands."""
        found = []
        for sample in self.held_out[:SCORED]:
            side = min(SCORED_SIDE, *(whole(extent, self.vae) for extent in sample.size))
            pixels = sample.pixels[:side, :side]
            found.append(sharpness.compare(pixels, sharpness.reconstruct(self.vae, pixels)))
        return sharpness.distance(found) if found else None

    def preview(self, folder: Path, step: int) -> None:
        """Write held-out crops above their reconstructions."""
        preview(self.vae, self.held_out, folder / f"{step:08d}.png")

    def export(self, folder: Path) -> None:
        """Write the AutoencoderKL in diffusers' layout."""
        save_part(self.vae, folder, torch.float32)


def _coarse_losses(output: Tensor, target: Tensor) -> Losses:
    """Return the losses on pixels of what is coarse in (n, 3, side, side) images."""
    return pixel_losses(F.avg_pool2d(output, COARSE), F.avg_pool2d(target, COARSE))
