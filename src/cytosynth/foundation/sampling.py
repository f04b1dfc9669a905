"""The one sampling loop: classifier-free guidance over any diffusers scheduler."""

import inspect
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn

from ..errors import UserError
from . import samplers
from .names import EVERY_TIMESTEP, PAPER_GUIDANCE

Denoiser = Callable[[Tensor, Tensor], Tensor]
"""x_t (n, C, h, w), scaled as its scheduler asks, and t (scalar or (n,)) to the model's output, guidance included."""


def guided(
    unet: UNet2DConditionModel,
    prompt: Tensor,
    negative: Tensor,
    guidance_scale: float = PAPER_GUIDANCE,
    guidance_rescale: float = 0.0,
    guidance_interval: tuple[int, int] = EVERY_TIMESTEP,
    extra_channels: Tensor | None = None,
    grounding: dict[str, Tensor] | None = None,
) -> Denoiser:
    """Return `unet` under its conditions with classifier-free guidance (arXiv 2207.12598).

    Args:
        unet: the denoiser. One that takes the guidance scale as a condition (`time_cond_proj_dim`, as in latent
            consistency models) gets it as input, and is run once per step.
        prompt: (n, length, channels) text embeddings.
        negative: the same of the empty prompt.
        guidance_scale: 1 is no guidance.
        guidance_rescale: share of Lin et al.'s rescaling (arXiv 2305.08891, section 3.4); 0 is the paper's.
        guidance_interval: first and last timestep with guidance (arXiv 2404.07724); at others the U-Net is run once,
            with the conditions.
        extra_channels: (n, C + 1, h, w) mask and masked latents of the inpainting U-Net.
        grounding: GLIGEN's `boxes` (n, k, 4), `positive_embeddings` (n, k, channels), `masks` (n, k);
            the unguided half gets the same boxes with masks 0.
    """
    channels = unet.config.time_cond_proj_dim  # a distilled network takes the guidance scale as an input instead
    scale_embedding = None
    if channels is not None:
        scale_embedding = guidance_embedding(guidance_scale, channels).to(prompt).expand(len(prompt), -1)
    twice = guidance_scale != 1.0 and scale_embedding is None
    both = torch.cat([negative, prompt])
    tokens = {guided: _grounding(grounding, guided) for guided in (False, True)}

    def run(x: Tensor, t: Tensor, embeddings: Tensor, guided: bool) -> Tensor:
        model_input = x if extra_channels is None else torch.cat([x, extra_channels], dim=1)
        output: Tensor = unet(
            (torch.cat([model_input, model_input]) if guided else model_input).to(unet.dtype),
            t,
            embeddings,
            timestep_cond=scale_embedding,
            cross_attention_kwargs=_copy(tokens[guided]),
        ).sample.to(x)
        return output

    def denoise(x: Tensor, t: Tensor) -> Tensor:
        if not twice or not _within(t, guidance_interval):
            return run(x, t, prompt, False).clone()  # the next call of a compiled network writes into the same memory
        free, conditional = run(x, torch.cat([t, t]) if t.ndim else t, both, True).chunk(2)
        return rescale(free + guidance_scale * (conditional - free), conditional, guidance_rescale)

    return denoise


def _within(t: Tensor, interval: tuple[int, int]) -> bool:
    """Return whether the timestep `t`, or each of them, is in `interval`; nothing is read where that is every one."""
    return interval == EVERY_TIMESTEP or bool(((t >= interval[0]) & (t <= interval[1])).all())


@torch.no_grad()
def sample(
    denoise: Denoiser,
    scheduler: Any,
    latents: Tensor,
    *,
    steps: int = 25,
    clean: Tensor | None = None,
    strength: float = 1.0,
    strengths: Tensor | None = None,
    seeds: Sequence[Sequence[int]] | None = None,
) -> Tensor:
    """Return clean latents, denoised from `latents`.

    Args:
        denoise: the model under its conditions (`guided`).
        scheduler: any diffusers scheduler (`samplers.build`).
        latents: (n, C, h, w) noise of unit variance.
        steps: sampler steps.
        clean: (n, C, h, w) z_0 of which z_T is made by the forward process; None: z_T is noise.
        strength: with `clean`, the share of the steps that is used (SDEdit, arXiv 2108.01073); 1: all.
        strengths: with `clean`, a strength of each place, (n, 1, h, w): as long as more steps are left than its share,
            a place is held at z_t of z_0 (Differential Diffusion, arXiv 2306.00950), so that as many change it as with
            that `strength`. Less than one step is blended: 0 is z_0. None: `strength` everywhere.
        seeds: of each image, for samplers that add noise at every step, so that it does not depend on the batch.
            ValueError where such a sampler is given none.

    Raises UserError if they are not finite.
    """
    timesteps = samplers.walked(scheduler, steps, strength if clean is not None else 1.0, latents.device)
    if strengths is not None and hasattr(scheduler, "disable_corrector"):
        scheduler.disable_corrector = list(range(steps))  # it would go back to latents from before they were held
    initial, latents = latents, _started(scheduler, latents, clean, timesteps)
    draws = _draws(scheduler, seeds)
    for index, t in enumerate(timesteps):
        if clean is not None and strengths is not None:
            held = (strengths * steps + 1e-4).floor() <= len(timesteps) - index
            latents = torch.where(held, scheduler.add_noise(clean, initial, t.expand(len(clean))), latents)
        output = denoise(scheduler.scale_model_input(latents, t), t)
        latents = scheduler.step(output, t, latents, **draws).prev_sample
    if clean is not None and strengths is not None:
        latents = torch.lerp(clean, latents, (strengths * steps).clamp(max=1))
    if not latents.isfinite().all():
        raise UserError(
            "the denoiser returns NaN or infinity: its weights or an adapter's are damaged, or precision=fp16 is too "
            "narrow for them; try precision=bf16"
        )
    return latents


def guidance_embedding(scale: float, channels: int) -> Tensor:
    """Return the (1, channels) sines and cosines that encode the guidance scale for a distilled network (arXiv
    2310.04378).

    Frequencies fall from 1 to 1/10,000; they are of 1000 (scale - 1), since 1 is no guidance.
    """
    half = channels // 2
    angles = 1000 * (scale - 1) * torch.exp(torch.arange(half) * (-math.log(10_000) / (half - 1)))
    return nn.functional.pad(torch.cat([angles.sin(), angles.cos()]), (0, channels % 2))[None]


def rescale(guided: Tensor, conditional: Tensor, share: float) -> Tensor:
    """Return `guided` pulled by `share` towards the standard deviation of `conditional`."""
    if not share:
        return guided
    axes = tuple(range(1, guided.ndim))
    scaled = guided * (conditional.std(dim=axes, keepdim=True) / guided.std(dim=axes, keepdim=True))
    return share * scaled + (1 - share) * guided


def _started(scheduler: Any, noise: Tensor, clean: Tensor | None, timesteps: Tensor) -> Tensor:
    """Return the latents at the first of `timesteps`."""
    if clean is None:
        return torch.as_tensor(noise * scheduler.init_noise_sigma)
    return torch.as_tensor(scheduler.add_noise(clean, noise, timesteps[:1].expand(len(clean))))


def noise(shape: tuple[int, ...], *seed: int) -> Tensor:
    """Return Gaussian noise that depends only on `seed`: the same on every device and in every batch."""
    return torch.randn(shape, generator=generator(*seed))


def generator(*seed: int) -> torch.Generator:
    """Return a generator on the CPU that depends on `seed` alone."""
    state = np.random.SeedSequence(list(seed)).generate_state(2)
    return torch.Generator().manual_seed(int(state[0]) << 32 | int(state[1]))


def _draws(scheduler: Any, seeds: Sequence[Sequence[int]] | None) -> dict[str, Any]:
    """Return the keyword argument with one noise generator per image, for schedulers that take one."""
    if seeds is None and isinstance(scheduler, samplers.STOCHASTIC):
        raise ValueError(f"{type(scheduler).__name__} adds noise at every step: give the seed of each image")
    if seeds is None or "generator" not in inspect.signature(scheduler.step).parameters:
        return {}
    return {"generator": [generator(*seed, 2) for seed in seeds]}


def _grounding(grounding: dict[str, Tensor] | None, guided: bool) -> dict[str, Any] | None:
    if grounding is None:
        return None
    if not guided:
        return {"gligen": grounding}
    doubled = {key: torch.cat([value, value]) for key, value in grounding.items()}
    doubled["masks"][: len(grounding["masks"])] = 0
    return {"gligen": doubled}


def _copy(kwargs: dict[str, Any] | None) -> dict[str, Any] | None:
    """diffusers pops `gligen` from the dictionary it is given."""
    return dict(kwargs) if kwargs else None
