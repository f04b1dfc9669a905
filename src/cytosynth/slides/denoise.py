"""Denoising a plane of latents by windows, a step at a time: a step is finished, or started again."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import UserError
from ..foundation import samplers, sampling
from ..foundation.model import Foundation
from ..io.progress import Meter
from ..normal.settings import GenerateSettings
from .mapped import MappedArray, wrapped
from .noise import white
from .preparation import Preparation
from .settings import WindowsName
from .windows import Plane, share

FIRST = 1
"""Stream of z_T; that of the noise which distilled models add at step n is FIRST + 1 + n."""
LAID_OUT = 0.6
"""Share of the steps in which gaps between cells are kept empty."""
ETA = 0.3
"""Of TCD's step in diffusers: share of the way that is added again as noise."""
NOTHING = 1e-3
"""Cover below which a place is empty glass."""


@dataclass
class Denoising:
    """Denoises the latents of a slide.

    Attributes:
        model: the foundation with its adapter.
        prompt: of normal fields.
        settings: of stage 1; the window is a field of them.
        plane: of the latents.
        margin: latents around the kept part of a window, as context for the denoiser.
        kind: where the windows lie.
        seed: of the run.
        preparation: where cells may lie.
        glass: (C, 1, 1) latents of empty glass.
        factor: pixels for one of the latents.
        folder: holds the latents of two steps.
    """

    model: Foundation
    prompt: str
    settings: GenerateSettings
    plane: Plane
    margin: int
    kind: WindowsName
    seed: int
    preparation: Preparation
    glass: Tensor
    factor: int
    folder: Path

    def latents(self, step: int) -> MappedArray:
        """Return the (C, height, width) latents after `step` steps: two files take turns."""
        shape = (len(self.glass), self.plane.height, self.plane.width)
        return MappedArray(self.folder / f"latents{step % 2}.f32", shape, np.float32)

    def run(self, done: int, finished: Callable[[int], None], bar: Meter) -> None:
        """Take the steps after `done`; call `finished` with the number of each that is on disk."""
        text = self.model.encode_text([self.settings.prompt or self.prompt, ""])
        denoiser = sampling.guided(
            self.model.unet,
            text[:1],
            text[1:],
            self.settings.guidance,
            self.settings.guidance_rescale,
            self.settings.guidance_interval,
        )
        for step in range(done, self.settings.steps):
            self._step(step, denoiser, bar)
            finished(step + 1)

    @torch.no_grad()
    def _step(self, step: int, denoiser: sampling.Denoiser, bar: Meter) -> None:
        scheduler = samplers.build(self.settings.sampler, self.model.scheduler)
        samplers.walked(scheduler, self.settings.steps, 1.0, self.model.device)
        before, after = self.latents(step), self.latents(step + 1)
        weight = 1 / share(self.kind)
        if weight < 1:
            after.array[:] = 0
        last_row = None
        for x, y in self.plane.windows(self.kind, self.seed, step):
            if y != last_row:  # memory of a row of windows is given back
                before.release()
                after.release()
                last_row = y
            new = self._window(step, scheduler, denoiser, before, x, y)
            for rows, own_rows in wrapped(y, self.plane.side, self.plane.height):
                for columns, own in wrapped(x, self.plane.side, self.plane.width):
                    place = after.array[:, rows, columns]
                    place[:] = weight * new[:, own_rows, own] + (place if weight < 1 else 0)
            bar.advance(f"step {step + 1} of {self.settings.steps}")
        before.release()
        after.release()

    def _window(
        self, step: int, scheduler: Any, denoiser: sampling.Denoiser, before: MappedArray, x: int, y: int
    ) -> np.ndarray:
        """Return the (C, side, side) latents that are kept of the window around (x, y), after `step`."""
        cover = torch.from_numpy(self._gather(self._cover, x, y))
        start = torch.from_numpy(self._gather(self._white(FIRST), x, y))
        kept = slice(self.margin, self.margin + self.plane.side)
        if float(cover[kept, kept].max()) < NOTHING:
            left = noised(scheduler, self.glass.expand_as(start), start, step + 1)
            return np.asarray(left[:, kept, kept].numpy())
        if step == 0:
            latents = start * scheduler.init_noise_sigma
        else:
            latents = torch.from_numpy(self._gather(lambda rows, columns: before.array[:, rows, columns], x, y))
        if step <= LAID_OUT * self.settings.steps:
            held = noised(scheduler, self.glass.expand_as(start), start, step)
            latents = cover * latents + (1 - cover) * held
        placed = latents[None].float().to(self.model.device)
        added = self._white(FIRST + 1 + step)
        moved = stepped(scheduler, step, denoiser, placed, lambda: torch.from_numpy(self._gather(added, x, y)))
        result = moved[0].cpu()
        if not result.isfinite().all():
            raise UserError("the denoiser returns NaN or infinity: its weights or an adapter's are damaged")
        return np.asarray(result[:, kept, kept].numpy())

    def _gather(self, read: Callable[[slice, slice], Any], x: int, y: int) -> np.ndarray:
        """Return what `read` gives of the window around (x, y), whose parts may lie on both ends of the plane."""
        side = self.plane.side + 2 * self.margin
        x, y = x - self.margin, y - self.margin
        rows = [
            np.concatenate(
                [np.asarray(read(down, across)) for across, _ in wrapped(x, side, self.plane.width)], axis=-1
            )
            for down, _ in wrapped(y, side, self.plane.height)
        ]  # fmt: skip
        return np.concatenate(rows, axis=-2)

    def _white(self, stream: int) -> Callable[[slice, slice], np.ndarray]:
        def read(down: slice, across: slice) -> np.ndarray:
            size = (across.stop - across.start, down.stop - down.start)
            return np.asarray(white((self.seed, 0, stream), len(self.glass), across.start, down.start, *size).numpy())

        return read

    def _cover(self, down: slice, across: slice) -> np.ndarray:
        size = (across.stop - across.start, down.stop - down.start)
        return self.preparation.cover(across.start, down.start, *size, self.factor).astype(np.float32)


def noised(scheduler: Any, clean: Tensor, noise: Tensor, index: int) -> Tensor:
    """Return `clean` latents with as much `noise` as they have at timestep number `index`, none after the last."""
    if index == len(scheduler.timesteps):
        return clean
    if hasattr(scheduler, "sigmas"):
        return torch.as_tensor(clean + scheduler.sigmas[index] * noise)
    alpha = scheduler.alphas_cumprod[int(scheduler.timesteps[index])]
    return torch.as_tensor(alpha.sqrt() * clean + (1 - alpha).sqrt() * noise)


def stepped(
    scheduler: Any, index: int, denoiser: sampling.Denoiser, latents: Tensor, draw: Callable[[], Tensor]
) -> Tensor:
    """Return the (1, C, h, w) `latents` after step number `index`, with the noise from `draw` if any is added.

    diffusers' samplers take noise from a generator, in the order of their calls, which moving windows do not have.
    Their result is a_t x + b_t n; they return x, and the factors are those of the schedule (LCM: arXiv 2310.04378,
    algorithm 3; TCD: arXiv 2402.19159, algorithm 4).
    """
    if hasattr(scheduler, "set_begin_index"):
        scheduler._step_index = None  # of the window before
        scheduler.set_begin_index(index)
    timestep = scheduler.timesteps[index]
    output = denoiser(scheduler.scale_model_input(latents, timestep), timestep)
    moved = scheduler.step(output, timestep, latents)
    if index + 1 == len(scheduler.timesteps) or not isinstance(scheduler, samplers.STOCHASTIC):
        return torch.as_tensor(moved.prev_sample)
    following = int(scheduler.timesteps[index + 1])
    target, reached, clean = scheduler.alphas_cumprod[following], 1.0, getattr(moved, "denoised", None)
    if clean is None:  # TCD goes to (1 - eta) of the next timestep, and back up with noise
        clean, reached = moved.pred_noised_sample, float(scheduler.alphas_cumprod[math.floor((1 - ETA) * following)])
    ratio = float(target) / reached
    return torch.as_tensor(math.sqrt(ratio) * clean + math.sqrt(1 - ratio) * draw()[None].to(latents))
