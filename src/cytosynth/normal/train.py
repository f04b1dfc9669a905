"""`train normal`: tune a foundation to fields full of NILM cells (Section III-B, IV-A)."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ..adapters.adapter import save as save_adapter
from ..adapters.load import attach
from ..bethesda import NILM
from ..data import sources, varied
from ..data.image_files import Pixels
from ..data.preview import grid, save_png
from ..data.sources import Sample
from ..errors import UserError
from ..foundation import noise, samplers, sampling
from ..foundation.latents import cached
from ..foundation.load import load
from ..foundation.model import DTYPES, Foundation
from ..io import wording
from ..io.progress import meter
from ..training.loop import Outcome, train
from ..training.task import Batch, Losses, Task
from .places import ATTEMPTS, normal, usable
from .recipe import NormalRecipe

SHARED = ("window", "turns", "batch_size", "gradient_accumulation", "learning_rate", "optimizer", "seed")
"""Settings that go into `adapter.json` beside the adapter's own; all of them are in the run's `recipe.yaml`."""


Distance = Callable[[Sequence[Pixels]], float]
"""Returns how far drawn windows are from held-out real ones."""
HeldOut = Callable[[NormalRecipe, Sequence[Sample], Path], Distance]
"""Makes a Distance of held-out images; a folder keeps their features."""


class NormalTask(Task):
    """Trains an adapter on windows that hold nothing abnormal."""

    text: Tensor

    def __init__(
        self,
        recipe: NormalRecipe,
        model: Foundation,
        samples: Sequence[Sample],
        cache: Path,
        held_out: Callable[[], Distance] | None = None,
    ) -> None:
        """Attach the adapter to `model` and encode the normal images of `samples` (kept under `cache`).

        Scores are the distance, which `held_out` makes, of drawn windows to held-out real ones.
        """
        super().__init__()
        self.adapter, self.prompt = attach(model, recipe)
        freeze_as(model, DTYPES[recipe.frozen_dtype])
        if recipe.gradient_checkpointing:
            model.unet.enable_gradient_checkpointing()
        self.recipe, self.model, self.unet = recipe, model, model.unet
        self.others = nn.ModuleList([model.vae, model.text_encoder])
        self.turns = range(8) if recipe.turns else range(1)
        self.samples = usable(samples, recipe.window)
        if not self.samples:
            others = wording.listed({cell.category for sample in samples for cell in sample.cells} - {NILM})
            why = "" if others == "none" else f"; cells are annotated as {others}, not {NILM} (`convert --rename`)"
            raise UserError(f"no normal image of at least {recipe.window} pixels a side in the data of the recipe{why}")
        self.latents = cached(model, self.samples, cache / "latents", self.turns)
        self.distance = held_out() if held_out else None
        with torch.no_grad():
            self.register_buffer("text", model.encode_text([self.prompt, ""]), persistent=False)

    def batch(self, rng: np.random.Generator, size: int) -> Batch:
        """Return latents of normal windows (n, C, window/factor, window/factor) and whether each keeps its prompt."""
        factor = self.model.factor
        side = self.recipe.window // factor
        windows: list[Tensor] = []
        while len(windows) < size:
            index = int(rng.integers(len(self.samples)))
            turn = int(rng.choice(list(self.turns)))
            latent = self.latents[index][turn]
            for _ in range(ATTEMPTS):
                y, x = (int(rng.integers(extent - side + 1)) for extent in latent.shape[1:])
                window = (factor * x, factor * y, factor * (x + side), factor * (y + side))
                if normal(self.samples[index], turn, window):
                    windows.append(latent[:, y : y + side, x : x + side])
                    break
        empty = torch.as_tensor(rng.random(size) < self.recipe.caption_dropout)
        return {"latents": torch.stack(windows).float(), "caption": empty.long()}

    def networks(self) -> list[nn.Module]:
        """Return the U-Net."""
        return [self.unet]

    def place(self, device: torch.device) -> None:
        """Move the latents to `device`."""
        self.latents = [[turn.to(device) for turn in turns] for turns in self.latents]

    def forward(self, batch: Batch) -> Losses:
        """Return the noise loss (equation 1) of `batch`."""
        scheduler = self.model.scheduler
        noisy, target, timesteps = noise.add_noise(scheduler, batch["latents"], self.recipe.offset_noise)
        text = self._text()[batch["caption"]]
        prediction = self.unet(noisy.to(self.unet.dtype), timesteps, text.to(self.unet.dtype)).sample
        return {"loss": noise.loss(scheduler, prediction, target, timesteps, self.recipe.min_snr_gamma)}

    def preview(self, folder: Path, step: int) -> None:
        """Write four windows at fixed seeds, DDIM 25, guidance 5."""
        save_png(grid([self._drawn(index) for index in range(4)], columns=2), folder / f"{step:08d}.png")

    def score(self) -> float | None:
        """Return the kernel distance of windows drawn at fixed seeds to held-out real ones."""
        if self.distance is None:
            return None
        with meter("drawing for a score", self.recipe.validate_count) as bar:
            drawn = []
            for index in range(self.recipe.validate_count):
                drawn.append(self._drawn(index))
                bar.advance()
        return self.distance(drawn)

    def export(self, folder: Path) -> None:
        """Write the adapter in the layout of its ecosystem."""
        trained = sum(parameter.numel() for _, parameter in self.trained())
        facts = self.recipe.model_dump(mode="json", include={*self.adapter.settings, *SHARED})
        save_adapter(self.adapter, self.prompt, folder, {"parameters": trained, **facts})

    def _text(self) -> Tensor:
        """Return the embeddings (2, length, channels) of the prompt and of nothing."""
        return self.model.encode_text([self.prompt, ""]) if self.adapter.encodes else self.text

    def _drawn(self, index: int) -> Pixels:
        side, text = self.recipe.window // self.model.factor, self._text().to(self.unet.dtype)
        start = sampling.noise((1, self.model.channels, side, side), 0, index).to(self.model.device, self.unet.dtype)
        denoise = sampling.guided(self.unet, text[:1], text[1:])
        latents = sampling.sample(denoise, samplers.build("ddim", self.model.scheduler), start)
        return np.asarray(self.model.decode_latents(latents)[0])


def freeze_as(model: Foundation, dtype: torch.dtype) -> None:
    """Bring everything in `model` that is not trained to `dtype`, but for singular values, whose shifts are small."""
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

    Latents and features are kept in `run`/cache, or in a `cache` that several runs share. With `validate_every`, the
    best weights are kept by the distance that `held_out` makes (`evaluate.held_out.HeldOut`).
    """
    kept = cache or run / "cache"

    def make() -> NormalTask:
        loaded = sources.load(recipe.data, data_root)
        samples = varied.with_copies(loaded, recipe.augment, recipe.augment_copies, recipe.seed)
        model = load(recipe.foundation, denoiser="plain", prediction_type=recipe.prediction_type)
        scored = None
        if recipe.validate_every and held_out:
            scored = partial(held_out, recipe, sources.held_out(recipe.data, data_root), kept)
        return NormalTask(recipe, model, samples, kept, scored)

    return train(make, recipe, run, title=f"normal ({recipe.adapter})", max_minutes=max_minutes)
