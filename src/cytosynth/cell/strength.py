"""How far an edit goes: with a strength below 1 sampling starts from a z_t of less noise (SDEdit, arXiv 2108.01073)."""

from diffusers import DDIMScheduler
from torch import Tensor


def from_step(sampler: DDIMScheduler, strength: float) -> DDIMScheduler:
    """Return a sampler that walks only the last `strength` (0..1) of the timesteps of `sampler`, at least one.

    1 is the paper's: the walk starts from z_T, almost pure noise.
    """
    late = _LateStart.from_config(sampler.config)
    late.strength = strength
    return late


class _LateStart(DDIMScheduler):  # type: ignore[misc]
    strength = 1.0
    timesteps: Tensor

    def set_timesteps(self, num_inference_steps: int, device: object = None) -> None:
        super().set_timesteps(num_inference_steps, device)
        self.timesteps = self.timesteps[-max(1, round(num_inference_steps * self.strength)) :]
