"""The consistency functions and their solver on a noise schedule: pure functions (LCM, arXiv 2310.04378, section 4).

x_t are latents (n, C, h, w), t timesteps (n,) as whole numbers, and the output of the network is the noise or the
velocity, as the schedule says. With phases (PCM, arXiv 2405.18407, section 3) f is `ddim` from t to `lower_edge` of t.
"""

import torch
from diffusers import DDPMScheduler
from torch import Tensor

from ..errors import UserError
from .recipe import TIMESTEPS

SCALING, DEVIATION = 10.0, 0.5
"""Of the timestep, and of the data, in the boundary condition, as diffusers' LCMScheduler has them."""
END = -1
"""Where the sampler ends, as a timestep: the one after 0."""


def grid(schedule: DDPMScheduler, steps: int) -> Tensor:
    """Return the (steps,) timesteps of the solver, rising: T/steps - 1, 2T/steps - 1 ... T - 1."""
    stride = int(schedule.config.num_train_timesteps) // steps
    return torch.arange(1, steps + 1) * stride - 1


def lower_edge(schedule: DDPMScheduler, phases: int, t: Tensor) -> Tensor:
    """Return the (n,) timesteps s_m at which the phases of `t` end, as the steps of DDIM with trailing spacing do.

    A timestep at an edge belongs to the phase below it. The lowest edge is `END`, the end of the sampler.

    Raises UserError if `schedule` has other timesteps than those for which recipes are checked.
    """
    total = int(schedule.config.num_train_timesteps)
    if total != TIMESTEPS:
        raise UserError(f"phases={phases}: the noise of the foundation has {total} timesteps; {TIMESTEPS} are needed")
    length = total // phases
    return t // length * length - 1


def clean_and_noise(schedule: DDPMScheduler, output: Tensor, noisy: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """Return the x_0 and the noise that `output` at x_t and t implies."""
    signal = _at(schedule, t, noisy)
    a, b = signal.sqrt(), (1 - signal).sqrt()
    if schedule.config.prediction_type == "v_prediction":
        return a * noisy - b * output, a * output + b * noisy
    return (noisy - b * output) / a, output


def ddim(schedule: DDPMScheduler, output: Tensor, noisy: Tensor, t: Tensor, earlier: Tensor) -> Tensor:
    """Return x at the timesteps `earlier`, or at `END`: one step of DDIM (eta 0) from x_t.

    From t to t it is x_t, whatever `output` is.
    """
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
    """Return the (n, 1, 1, 1) shares of signal, squared, at `t`; at `END` as diffusers' DDIMScheduler ends."""
    signals, t = schedule.alphas_cumprod.to(like.device), t.to(like.device)
    end = torch.ones_like(signals[0]) if schedule.config.get("set_alpha_to_one", True) else signals[0]
    signal = torch.where(t == END, end, signals[t.clamp(min=0)])
    return signal.to(like)[:, None, None, None]
