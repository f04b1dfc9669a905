"""Membership inference: does the denoising loss (equation 1) of an image show that it was trained on?

The loss-threshold attack of Yeom et al. 2018 on diffusion models (Carlini et al. 2023, section 5): an image whose loss,
at noise and timesteps that are the same for all images, lies below a threshold is called a member.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..data.image_files import Pixels
from ..errors import UserError
from ..foundation import noise, sampling
from ..foundation.model import Foundation
from ..io.progress import meter
from ..io.report import Report
from . import distance
from .image_set import ImageSet
from .statistics import members, middle, resamples

TIMESTEPS = 10
"""Number of noise levels of each image's loss, spread evenly over the schedule."""
FALSE_POSITIVES = 0.01
COLUMNS = ("measure", "value", "low", "high", "by chance", "members", "non-members")


def measure(
    model: Foundation,
    members: ImageSet,
    others: ImageSet,
    prompt: str,
    *,
    timesteps: int = TIMESTEPS,
    seed: int = 0,
    draws: int = 1000,
    adapter: str = "none",
    digest: str = "",
) -> Report:
    """Return how well the attack separates `members` (trained on) from `others` (not), image by image.

    Args:
        model: foundation with its adapter merged.
        members: images that it was trained on.
        others: images of the same kind that it was not trained on.
        prompt: what it was trained with.
        timesteps: noise levels.
        seed: of the noise and of resampling.
        draws: bootstrap resamples for the intervals. adapter: merged into it.
        digest: hash of its weights with that adapter; that of the foundation where none is given.

    Raises UserError if there are fewer than two images of either kind.
    """
    first, second = (losses(model, images, prompt, timesteps, seed) for images in (members, others))
    scores = [-_by_group(values, images) for values, images in ((first, members), (second, others))]
    if min(map(len, scores)) < 2:
        raise UserError(f"{len(scores[0])} members and {len(scores[1])} others; at least two images of each are needed")
    chosen = resamples([range(len(score)) for score in scores], draws, seed)
    low, high = middle([_both(scores[0][ours], scores[1][theirs]) for ours, theirs in chosen])
    auc, rate = _both(*scores)
    counts = (len(scores[0]), len(scores[1]))
    rows = (
        ("AUC", auc, float(low[0]), float(high[0]), 0.5, *counts),
        ("TPR at 1 % FPR", rate, float(low[1]), float(high[1]), FALSE_POSITIVES, *counts),
    )
    facts = {
        "members": members.source, "others": others.source, "model": model.name, "adapter": adapter,
        "weights": digest or model.digest, "prompt": prompt, "timesteps": timesteps, "seed": seed,
        "resamplings": draws, "mean_loss_of_members": float(first.mean()), "mean_loss_of_others": float(second.mean()),
    }  # fmt: skip
    return Report(f"Membership inference on {model.name}", facts, COLUMNS, rows, _notes(counts[1]))


def losses(model: Foundation, images: ImageSet, prompt: str, timesteps: int, seed: int) -> NDArray[np.float64]:
    """Return the mean denoising loss of each of `images` over `timesteps` noise levels, the same noise for all."""
    found = np.empty(len(images))
    with meter("denoising losses", len(images)) as bar, torch.no_grad():
        text = model.encode_text([prompt])
        for index, image in enumerate(images):
            found[index] = _loss(model, image, text, timesteps, seed)
            bar.advance()
    return found


def _loss(model: Foundation, pixels: Pixels, text: Tensor, timesteps: int, seed: int) -> float:
    height, width = (side // 64 * 64 for side in pixels.shape[:2])
    if not height or not width:
        raise UserError(f"an image of {pixels.shape[1]}x{pixels.shape[0]} pixels; the foundation needs at least 64x64")
    latents = model.encode_pixels(pixels[None, :height, :width])
    total = model.scheduler.config.num_train_timesteps
    levels = torch.arange(timesteps) * total // timesteps + total // (2 * timesteps)
    squares = []
    for number, level in enumerate(levels):
        drawn = sampling.noise(tuple(latents.shape), seed, number).to(latents)
        timestep = level[None].to(latents.device)
        noisy = model.scheduler.add_noise(latents, drawn, timestep)
        prediction = model.unet(noisy, timestep, text).sample
        target = noise.target(model.scheduler, latents, drawn, timestep)
        squares.append((prediction - target).square().mean())
    return float(torch.stack(squares).mean())


def true_positive_rate(members: NDArray[np.float64], others: NDArray[np.float64], rate: float) -> float:
    """Return the share of members above the lowest threshold that at most `rate` of the others pass."""
    threshold = np.sort(others)[len(others) - 1 - int(rate * len(others))]
    return float((members > threshold).mean())


def _both(members: NDArray[np.float64], others: NDArray[np.float64]) -> tuple[float, float]:
    return distance.auc(members, others), true_positive_rate(members, others, FALSE_POSITIVES)


def _by_group(values: NDArray[np.float64], images: ImageSet) -> NDArray[np.float64]:
    """Return the mean of the windows of each image: windows of one image are not independent."""
    return np.array([values[own].mean() for own in members(images.groups)])


def _notes(others: int) -> tuple[str, ...]:
    notes = (
        "an image's score is minus its mean denoising loss at fixed noise and timesteps; low and high: 95 % interval "
        "from resampling images",
        "AUC 0.5: the attack guesses; above it, the model reveals what it was trained on",
    )
    if others * FALSE_POSITIVES < 1:
        allowed = f"with {others} non-members no false positive is allowed at 1 % FPR: the rate is a rough guide"
        return (*notes, allowed)
    return notes
