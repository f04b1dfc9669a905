"""Sharpening the decoder of a trained autoencoder: a perceptual loss, then a discriminator of patches as well.

The encoder is unchanged, so that everything trained on its latents stays valid. The discriminator is trained from the
first step; it affects the decoder from `adversarial_start` on. Weights are selected by the power spectrum of held-out
reconstructions, which such training first brings near that of the originals and then beyond it.

With `regenerated` latents the decoder is trained on what it will be given. Each batch then also holds crops of these,
compared with their images by features and by what is coarse in them, and crops of sampled latents, which have no image.
What is coarse in those is to stay as with the decoder before; the discriminator is given all. Weights are then
selected by the spectrum of images of regenerated latents.
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
from ..pixels import to_pixels, whole
from ..save import save_part
from . import sharpness
from .autoencoder import preview
from .crops import Crops
from .discriminator import Discriminator, adaptive_weight, hinge, r1
from .losses import pixel_losses, weighted
from .perceptual import Perceptual
from .recipe import DecoderRecipe
from .regenerated import RESERVED, Regenerated

SCORED = 8
"""Held-out images, at most, by which weights are selected."""
SCORED_SIDE = 256
"""Side of what of them is decoded, pixels."""
ENCODED = 3 / 8
"""Share of a batch that are encoded crops, with `regenerated` ones: as many are of these, and the rest was sampled."""
COARSE = 4
"""Pixels, a side, whose mean is compared where details cannot be the same."""


class DecoderTask(Task):
    """Trains the decoder of an AutoencoderKL together with a discriminator."""

    def __init__(
        self, recipe: DecoderRecipe, samples: Sequence[Sample], held_out: Sequence[Sample], vae: AutoencoderKL,
        regenerated: Regenerated | None = None,
    ) -> None:  # fmt: skip
        """Go on with `vae`, its encoder frozen; `held_out` images are shown, and scored if nothing is `regenerated`."""
        super().__init__()
        self.recipe, self.held_out, self.vae = recipe, held_out, vae
        for frozen in (vae.encoder, vae.quant_conv):
            frozen.requires_grad_(False)
        self.crops = Crops(samples, recipe.crops, recipe.augment)
        self.perceptual = Perceptual()
        self.discriminator = Discriminator(recipe.discriminator_channels, recipe.discriminator_halvings)
        self.regenerated = regenerated
        if regenerated is not None:
            self.before = deepcopy(nn.Sequential(vae.post_quant_conv, vae.decoder)).requires_grad_(False)

    def batch(self, rng: np.random.Generator, size: int) -> Batch:
        """Return random crops `pixels` (n, 3, side, side) in -1..1, and whether R1 is taken.

        With `regenerated` latents also `latents`, `targets` and `sampled`, as `regenerated.Crops` has them.
        """
        if self.regenerated is None:
            return {"pixels": self.crops.batch(rng, size), "r1": rng.random() < self.recipe.r1_share}
        pixels = self.crops.batch(rng, max(1, int(size * ENCODED)))
        crops = self.regenerated.batch(rng, len(pixels), pixels.shape[-1])
        return {"pixels": pixels, "r1": rng.random() < self.recipe.r1_share, **crops._asdict()}

    def forward(self, batch: Batch) -> Losses:
        """Return the losses of `batch`: of the decoder `loss`, of the discriminator `adversary`, and their parts."""
        recipe, pixels = self.recipe, batch["pixels"]
        with torch.no_grad():
            latents = self.vae.encode(pixels).latent_dist.sample()
        output = self.vae.decode(latents).sample.float()
        found = pixel_losses(output, pixels) | {"perceptual": self.perceptual(output, pixels)}
        loss = weighted(found, recipe) + recipe.perceptual_weight * found["perceptual"]
        if self.regenerated is not None:
            made, losses = self._regenerated(batch, self.regenerated)
            found |= losses
            loss = loss + losses["regenerated"] + losses["sampled"]
            pixels, output = torch.cat([pixels, batch["targets"]]), torch.cat([output, made])
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

    def _regenerated(self, batch: Batch, source: Regenerated) -> tuple[Tensor, Losses]:
        """Return the images of regenerated and of sampled latents, (n, 3, side, side) together, and their losses."""
        recipe, targets, sampled = self.recipe, batch["targets"], batch["sampled"]
        regenerated = source.inner(self.vae.decode(batch["latents"]).sample)
        free = source.inner(self.vae.decode(sampled).sample)
        with torch.no_grad():
            as_before = source.inner(self.before(sampled))
        features = recipe.perceptual_weight * self.perceptual(regenerated, targets)
        compared = weighted(_coarse_losses(regenerated, targets), recipe) + features
        held = weighted(_coarse_losses(free, as_before), recipe)
        return torch.cat([regenerated, free]), {"regenerated": compared, "sampled": held}

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
        """Return by how many octaves of power images are off, on average over the bands.

        Of reconstructions of held-out images or, with `regenerated` latents, of those of them that are not trained on.
        """
        found = []
        if self.regenerated is not None:
            pairs = zip(self.regenerated.latents[:RESERVED], self.regenerated.pixels[:RESERVED].numpy(), strict=True)
            for latents, pixels in pairs:
                with torch.no_grad():
                    output = self.vae.decode(latents[None].to(self.vae.device, self.vae.dtype)).sample
                found.append(sharpness.compare(pixels, to_pixels(output)[0]))
            return sharpness.distance(found)
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
