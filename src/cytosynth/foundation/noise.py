"""The noise objective of latent diffusion (equation 1) and its weighting."""

import torch
from diffusers import DDPMScheduler
from torch import Tensor


def add_noise(scheduler: DDPMScheduler, latents: Tensor, offset: float = 0.0) -> tuple[Tensor, Tensor, Tensor]:
    """Sample timesteps and noise for clean `latents` (n, C, h, w).

    Args:
        scheduler: the noise schedule.
        latents: scaled latents z_0.
        offset: strength of noise that is constant over each channel; 0 is equation 1.

    Returns z_t, the regression target (noise, or velocity for v-prediction), and t (n,), from the global CPU generator,
    so that they are the same on every device.
    """
    noise = torch.randn(latents.shape)
    if offset:
        noise = noise + offset * torch.randn(*latents.shape[:2], 1, 1)
    timesteps = torch.randint(0, scheduler.config.num_train_timesteps, (len(latents),))
    noise, timesteps = noise.to(latents), timesteps.to(latents.device)
    return scheduler.add_noise(latents, noise, timesteps), target(scheduler, latents, noise, timesteps), timesteps


def target(scheduler: DDPMScheduler, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
    """Return the regression target of the denoiser at `timesteps` (n,): the noise, or the velocity for v-prediction."""
    if scheduler.config.prediction_type == "v_prediction":
        return torch.as_tensor(scheduler.get_velocity(latents, noise, timesteps))
    return noise


def loss(
    scheduler: DDPMScheduler,
    prediction: Tensor,
    target: Tensor,
    timesteps: Tensor,
    min_snr_gamma: float | None = None,
) -> Tensor:
    """Return the mean squared error of equation 1, with min-SNR weights (arXiv 2303.09556) where gamma is given."""
    error = (prediction.float() - target.float()).square().mean(dim=(1, 2, 3))
    if min_snr_gamma is None:
        return error.mean()
    signal = scheduler.alphas_cumprod.to(error.device)[timesteps]
    snr = signal / (1 - signal)
    divisor = snr if scheduler.config.prediction_type == "epsilon" else snr + 1
    weighted: Tensor = error * snr.clamp(max=min_snr_gamma) / divisor
    return weighted.mean()
