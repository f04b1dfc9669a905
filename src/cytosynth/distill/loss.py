"""The loss of latent consistency distillation (arXiv 2310.04378, algorithm 1), guidance at a fixed scale.

With phases it is that of phased consistency distillation (arXiv 2405.18407, section 3), without its adversarial loss.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from diffusers import DDPMScheduler
from torch import Tensor

from ..foundation.sampling import Denoiser
from . import consistency
from .recipe import Distillation
from .student import Student

Conditioned = Callable[[Any, float], Denoiser]
"""A U-Net under the conditions of a batch, with guidance of a scale."""


def loss(
    student: Student, schedule: DDPMScheduler, recipe: Distillation, latents: Tensor, conditioned: Conditioned,
    weight: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """Return how far f of the student at x_t is from f of the target one solver step of the teacher earlier.

    With phases both are x at the lower edge of the phase of t, to which one step of DDIM goes.

    Args:
        student: teacher, student and target; `Student.follow` has been called for this step.
        schedule: of the noise.
        recipe: solver, guidance and distance.
        latents: (n, C, h, w) z_0; x_t is made of them by the forward process.
        conditioned: gives all three the same conditions; the teacher alone is guided.
        weight: (n, 1, h, w) of each place; None: all alike.
    """
    timesteps = consistency.grid(schedule, recipe.solver_steps)
    noise = torch.randn(latents.shape).to(latents)
    t = timesteps[torch.randint(0, len(timesteps), (len(latents),))].to(latents.device)
    earlier = t - timesteps[0] - 1
    if recipe.phases is None:
        earlier = earlier.clamp(min=0)
        f = partial(consistency.consistent, schedule)
    else:
        f = partial(consistency.ddim, schedule, earlier=consistency.lower_edge(schedule, recipe.phases, t))
    noisy = schedule.add_noise(latents, noise, t)
    # The student first: autocast would keep copies of its weights that were made without gradients.
    ours = f(conditioned(student.unet, 1.0)(noisy, t), noisy, t)
    with torch.no_grad():
        with student.teacher() as unet:
            output = conditioned(unet, recipe.guidance_scale)(noisy, t)
        less_noisy = consistency.ddim(schedule, output, noisy, t, earlier)
        with student.target() as unet:
            output = conditioned(unet, 1.0)(less_noisy, earlier.clamp(min=0))
        theirs = f(output, less_noisy, earlier)
    difference = ours - theirs
    error = consistency.pseudo_huber(difference, recipe.huber) if recipe.loss == "huber" else difference.square()
    return (error if weight is None else error * weight).mean()
