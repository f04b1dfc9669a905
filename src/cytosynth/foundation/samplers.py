"""The samplers by name: diffusers' schedulers on the noise schedule of a foundation."""

from typing import Any

import torch
from diffusers import DDPMScheduler, LCMScheduler, TCDScheduler
from torch import Tensor

from ..registry import SAMPLERS

OPTIONS: dict[str, dict[str, Any]] = {
    "dpm++2m": {"algorithm_type": "dpmsolver++", "solver_order": 2},
    "ddim-trailing": {"timestep_spacing": "trailing"},  # arXiv 2305.08891, table 2
}
STOCHASTIC = (LCMScheduler, TCDScheduler)
"""Samplers that add new noise at every step, for models distilled for them."""


def build(name: str, schedule: DDPMScheduler) -> Any:
    """Return the sampler `name` on the betas of `schedule`; `ddim` with eta 0 is the paper's (Section IV-A)."""
    return SAMPLERS.load(name).from_config(schedule.config, **OPTIONS.get(name, {}))


def kept(steps: int, strength: float) -> int:
    """Return how many of `steps` are taken at `strength` 0..1: as in diffusers' image-to-image, at least one."""
    return max(1, min(int(steps * strength), steps))


def walked(sampler: Any, steps: int, strength: float, device: torch.device) -> Tensor:
    """Set `steps` timesteps of `sampler`; return those that are used: the last `strength` (0..1) of them."""
    sampler.set_timesteps(steps, device=device)
    first = (steps - kept(steps, strength)) * sampler.order
    if first and hasattr(sampler, "set_begin_index"):
        sampler.set_begin_index(first)
    return torch.as_tensor(sampler.timesteps[first:])
