"""The consistency function and its solver on a noise schedule: pure functions (LCM, arXiv 2310.04378, section 4).

x_t are latents (n, C, h, w), t timesteps (n,) as whole numbers, and the output of the network is the noise or the
velocity, as the schedule says.
"""

import torch
from diffusers import DDPMScheduler
from torch import Tensor

SCALING, DEVIATION = 10.0, 0.5
"""Of the timestep, and of the data, in the boundary condition, as diffusers' LCMScheduler has them."""


def grid(schedule: DDPMScheduler, steps: int) -> Tensor:
    """Return the (steps,) timesteps of the solver, rising: T/steps - 1, 2T/steps - 1 ... T - 1."""
    stride = int(schedule.config.num_train_timesteps) // steps
    return torch.arange(1, steps + 1) * stride - 1


def clean_and_noise(schedule: DDPMScheduler, output: Tensor, noisy: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """Return the x_0 and the noise that `output` at x_t and t implies."""
    signal = _at(schedule, t, noisy)
    a, b = signal.sqrt(), (1 - signal).sqrt()
    if schedule.config.prediction_type == "v_prediction":
        return a * noisy - b * output, a * output + b * noisy
    return (noisy - b * output) / a, output


def ddim(schedule: DDPMScheduler, output: Tensor, noisy: Tensor, t: Tensor, earlier: Tensor) -> Tensor:
    """Return x at the timesteps `earlier`: one step of DDIM (eta 0) from x_t."""
    clean, noise = clean_and_noise(schedule, output, noisy, t)
    signal = _at(schedule, earlier, noisy)
    return signal.sqrt() * clean + (1 - signal).sqrt() * noise


def consistent(schedule: DDPMScheduler, output: Tensor, noisy: Tensor, t: Tensor) -> Tensor:
    """Return f(x_t, t) = c_skip x_t + c_out x_0, which is x_t itself at t = 0 (equation 9)."""
    clean, _ = clean_and_noise(schedule, output, noisy, t)
    scaled = (SCALING * t.to(noisy))[:, None, None, None]
    square = scaled.square() + DEVIATION**2
    return DEVIATION**2 / square * noisy + scaled / square.sqrt() * clean


def pseudo_huber(difference: Tensor, c: float) -> Tensor:
    """Return sqrt(d² + c²) - c of each element."""
    return (difference.square() + c**2).sqrt() - c


def _at(schedule: DDPMScheduler, t: Tensor, like: Tensor) -> Tensor:
    """Return the (n, 1, 1, 1) shares of signal, squared, at `t`."""
    signal: Tensor = schedule.alphas_cumprod.to(like.device)[t.to(like.device)]
    return signal.to(like)[:, None, None, None]
