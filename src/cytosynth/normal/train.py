"""`train normal`: tune a foundation to fields full of NILM cells (Section III-B, IV-A)."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ..adapters.adapter import save as save_adapter
from ..adapters.load import attach
from ..data import sources, varied
from ..data.image_files import Pixels
from ..data.preview import grid, save_png
from ..data.sources import Sample
from ..foundation import noise, samplers, sampling
from ..foundation.load import load
from ..foundation.model import DTYPES, Foundation
from ..io.progress import meter
from ..training.images import noted
from ..training.loop import Outcome, train
from ..training.task import Batch, Losses, Task
from .recipe import NormalRecipe
from .windows import Windows, normal_images

SHARED = ("window", "turns", "batch_size", "gradient_accumulation", "learning_rate", "optimizer", "seed")
"""Settings that go into `adapter.json` with the adapter's own; all of them are in the run's `recipe.yaml`."""


Distance = Callable[[Sequence[Pixels]], float]
"""Returns the distance of generated windows to held-out real ones."""
HeldOut = Callable[[NormalRecipe, Sequence[Sample], Path], Distance]
"""Makes a Distance of held-out images; a folder keeps their features."""


class NormalTask(Task):
    """Trains an adapter on windows without abnormal cells."""

    text: Tensor

    def __init__(
        self,
        recipe: NormalRecipe,
        model: Foundation,
        windows: Callable[[], Windows],
        held_out: Callable[[], Distance] | None = None,
    ) -> None:
        """Attach the adapter to `model`, and then encode the `windows` that it is trained on.

        The score is the distance of generated windows to held-out real ones, by the function that `held_out` returns.
        """
        super().__init__()
        self.adapter, self.prompt = attach(model, recipe)
        freeze_as(model, DTYPES[recipe.frozen_dtype])
        if recipe.gradient_checkpointing:
            model.unet.enable_gradient_checkpointing()
        self.recipe, self.model, self.unet = recipe, model, model.unet
        self.others = nn.ModuleList([model.vae, model.text_encoder])
        self.distance = held_out() if held_out else None  # first: encoding takes long, and held-out images may lack
        self.windows = windows()
        with torch.no_grad():
            self.register_buffer("text", model.encode_text([self.prompt, ""]), persistent=False)

    def batch(self, rng: np.random.Generator, size: int) -> Batch:
        """Return latents of normal windows (n, C, window/factor, window/factor) and whether each keeps its prompt."""
        latents = self.windows.draw(rng, size)
        empty = torch.as_tensor(rng.random(size) < self.recipe.caption_dropout)
        return {"latents": latents, "caption": empty.long()}

    def networks(self) -> list[nn.Module]:
        """Return the U-Net."""
        return [self.unet]

    def place(self, device: torch.device) -> None:
        """Move the latents to `device`."""
        self.windows.to(device)

    def forward(self, batch: Batch) -> Losses:
        """Return the noise loss (equation 1) of `batch`."""
        scheduler = self.model.scheduler
        noisy, target, timesteps = noise.add_noise(scheduler, batch["latents"], self.recipe.offset_noise)
        text = self._text()[batch["caption"]]
        prediction = self.unet(noisy.to(self.unet.dtype), timesteps, text.to(self.unet.dtype)).sample
        return {"loss": noise.loss(scheduler, prediction, target, timesteps, self.recipe.min_snr_gamma)}

    def preview(self, folder: Path, step: int) -> None:
        """Write four windows at fixed seeds, DDIM 25, guidance of the recipe."""
        save_png(grid([self._drawn(index) for index in range(4)], columns=2), folder / f"{step:08d}.png")

    def score(self) -> float | None:
        """Return the kernel distance of windows generated at fixed seeds to held-out real ones."""
        if self.distance is None:
            return None
        with meter("generating for a score", self.recipe.validate_count) as bar:
            drawn = []
            for index in range(self.recipe.validate_count):
                drawn.append(self._drawn(index))
                bar.advance()
        return self.distance(drawn)

    def export(self, folder: Path) -> None:
        """Write the adapter in the layout of its ecosystem, and the low frequencies of its training images."""
        trained = sum(parameter.numel() for _, parameter in self.trained())
        facts = self.recipe.model_dump(mode="json", include={*self.adapter.settings, *SHARED})
        guidance = self.recipe.guidance_scale
        save_adapter(self.adapter, self.prompt, folder, {"parameters": trained, **facts}, guidance)
        self.windows.low_frequencies.save(folder)

    def _text(self) -> Tensor:
        """Return the embeddings (2, length, channels) of the prompt and of nothing."""
        return self.model.encode_text([self.prompt, ""]) if self.adapter.encodes else self.text

    def _drawn(self, index: int) -> Pixels:
        side, text = self.recipe.window // self.model.factor, self._text().to(self.unet.dtype)
        start = sampling.noise((1, self.model.channels, side, side), 0, index).to(self.model.device, self.unet.dtype)
        denoise = sampling.guided(self.unet, text[:1], text[1:], self.recipe.guidance_scale)
        latents = sampling.sample(denoise, samplers.build("ddim", self.model.scheduler), start)
        return np.asarray(self.model.decode_latents(latents)[0])


def freeze_as(model: Foundation, dtype: torch.dtype) -> None:
    """Convert all frozen weights of `model` to `dtype`, except singular values, whose shifts are small."""
    for part in model.parts.values():
        for name, tensor in [*part.named_parameters(), *part.named_buffers()]:
            if tensor.is_floating_point() and not tensor.requires_grad and not name.endswith(".sigma"):
                tensor.data = tensor.data.to(dtype)


def train_normal(
    recipe: NormalRecipe,
    run: Path,
    data_root: Path,
    max_minutes: float | None = None,
    cache: Path | None = None,
    held_out: HeldOut | None = None,
) -> Outcome:
    """Train the Normal Image Generator in the run folder `run`, or continue it.

    Latents and features are stored in `run`/cache, or in a `cache` that several runs share. With `validate_every`, the
    best weights are selected by the distance from `held_out` (`evaluate.held_out.HeldOut`).
    """
    kept = cache or run / "cache"

    def make() -> NormalTask:
        unseen = sources.held_out(recipe.data, data_root) if recipe.validate_every and held_out else None
        loaded = noted(sources.load(recipe.data, data_root), run, unseen)
        copies = varied.with_copies(loaded, recipe.augment, recipe.augment_copies, recipe.seed)
        samples = normal_images(copies, recipe.window)
        model = load(recipe.foundation, denoiser="plain", prediction_type=recipe.prediction_type)
        scored = partial(held_out, recipe, unseen, kept) if held_out and unseen is not None else None
        return NormalTask(recipe, model, partial(Windows, model, samples, recipe, kept, chosen=True), scored)

    return train(make, recipe, run, title=f"normal ({recipe.adapter})", max_minutes=max_minutes)
