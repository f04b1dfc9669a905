"""`distill normal`: the Normal Image Generator in few steps."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..adapters.distilled import DistilledCard
from ..data import sources, varied
from ..data.image_files import Pixels
from ..data.preview import grid, save_png
from ..data.sources import Sample
from ..evaluate.held_out import HeldOut
from ..foundation import samplers, sampling
from ..foundation.model import DTYPES
from ..io.progress import meter
from ..normal.generate import NormalImageGenerator
from ..normal.train import Distance, freeze_as
from ..normal.windows import Windows
from ..training.images import noted
from ..training.loop import Outcome, train
from ..training.task import Batch, Losses, Task
from . import export
from .loss import loss
from .recipe import NormalDistillRecipe
from .student import Student


class NormalDistillTask(Task):
    """Distils a generator with its adapter, on windows without abnormal cells."""

    text: Tensor

    def __init__(
        self,
        recipe: NormalDistillRecipe,
        teacher: NormalImageGenerator,
        samples: Sequence[Sample],
        cache: Path,
        held_out: Callable[[], Distance] | None = None,
    ) -> None:
        """Add a LoRA to the `teacher` and encode the normal images of `samples` (kept under `cache`).

        Scores are the distance, which `held_out` makes, of generated windows to held-out real ones.
        """
        super().__init__()
        self.recipe, self.model = recipe, teacher.model
        self.card = DistilledCard(
            stage="normal", sampler=recipe.sampler, steps=recipe.steps, guidance_scale=recipe.guidance_scale,
            teacher=teacher.digest, foundation=Path(self.model.name).name,
        )  # fmt: skip
        self.student = Student(self.model.unet, recipe.rank, recipe.average)
        freeze_as(self.model, DTYPES[recipe.frozen_dtype])
        if recipe.gradient_checkpointing:
            self.model.unet.enable_gradient_checkpointing()
        self.frozen = nn.ModuleList([self.model.vae, self.model.text_encoder])
        self.windows = Windows(self.model, samples, recipe, cache)
        self.distance = held_out() if held_out else None
        with torch.no_grad():
            self.register_buffer("text", self.model.encode_text([teacher.prompt, ""]), persistent=False)

    def batch(self, rng: np.random.Generator, size: int) -> Batch:
        """Return latents of normal windows (n, C, window/factor, window/factor)."""
        return {"latents": self.windows.draw(rng, size)}

    def place(self, device: torch.device) -> None:
        """Move the latents to `device`."""
        self.windows.to(device)

    def trained_buffers(self) -> Iterator[tuple[str, Tensor]]:
        """Yield the average of the product."""
        return ((f"student.{name}", value) for name, value in self.student.named_buffers(recurse=False))

    def forward(self, batch: Batch) -> Losses:
        """Return the consistency loss of `batch`."""
        self.student.follow(self.step)
        return {"loss": loss(self.student, self.model.scheduler, self.recipe, batch["latents"], self._conditioned)}

    def _conditioned(self, unet: Any, guidance_scale: float) -> sampling.Denoiser:
        """Return `unet` under the prompt, for a batch of any size."""
        text = self.text.to(unet.dtype)

        def denoise(x: Tensor, t: Tensor) -> Tensor:
            prompt, negative = (half.expand(len(x), -1, -1) for half in (text[:1], text[1:]))
            return sampling.guided(unet, prompt, negative, guidance_scale)(x, t)

        return denoise

    def preview(self, folder: Path, step: int) -> None:
        """Write four windows at fixed seeds, in the recipe's number of steps."""
        with self.student.shipped() as unet:
            save_png(grid([self._drawn(unet, index) for index in range(4)], columns=2), folder / f"{step:08d}.png")

    def score(self) -> float | None:
        """Return the kernel distance of windows generated at fixed seeds to held-out real ones."""
        if self.distance is None:
            return None
        drawn = []
        with self.student.shipped() as unet, meter("generating for a score", self.recipe.validate_count) as bar:
            for index in range(self.recipe.validate_count):
                drawn.append(self._drawn(unet, index))
                bar.advance()
        return self.distance(drawn)

    def _drawn(self, unet: Any, index: int) -> Pixels:
        side = self.recipe.window // self.model.factor
        start = sampling.noise((1, self.model.channels, side, side), 0, index, 1).to(self.text.device)
        latents = sampling.sample(
            self._conditioned(unet, 1.0), samplers.build(self.card.sampler, self.model.scheduler), start,
            steps=self.recipe.steps, seeds=[(0, index, 1)],
        )  # fmt: skip
        return np.asarray(self.model.decode_latents(latents)[0])

    def export(self, folder: Path) -> None:
        """Write the LoRA as `load_lora_weights` reads it, half precision, and its card."""
        export.write(self.student, self.card, self.recipe, folder)


def distill_normal(
    recipe: NormalDistillRecipe, run: Path, data_root: Path, max_minutes: float | None = None
) -> Outcome:
    """Distil the Normal Image Generator of `recipe` in the run folder `run`, or continue it."""
    cache = run / "cache"

    def make() -> NormalDistillTask:
        unseen = sources.held_out(recipe.data, data_root) if recipe.validate_every else None
        loaded = noted(sources.load(recipe.data, data_root), run, unseen)
        samples = varied.with_copies(loaded, recipe.augment, recipe.augment_copies, recipe.seed)
        teacher = NormalImageGenerator(
            recipe.foundation, None if recipe.normal == "none" else recipe.normal,
            prediction_type=recipe.prediction_type,
        )  # fmt: skip
        scored = None if unseen is None else partial(HeldOut, recipe, unseen, cache)
        return NormalDistillTask(recipe, teacher, samples, cache, scored)

    return train(make, recipe, run, title="normal, distilled", max_minutes=max_minutes)
