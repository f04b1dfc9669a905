"""Latents of windows without abnormal cells, for the trainers of stage 1."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..bethesda import NILM
from ..data.sources import Sample
from ..errors import UserError
from ..foundation.latents import cached, encoding_dtype
from ..foundation.model import Foundation
from ..io import wording
from .low_frequencies import LowFrequencies
from .recipe import WindowRecipe
from .regions import ATTEMPTS, normal, usable


def normal_images(samples: Sequence[Sample], window: int) -> list[Sample]:
    """Return those of `samples` that have normal windows of `window` pixels a side; raise UserError if none has."""
    found = usable(samples, window)
    if not found:
        named = {cell.category for sample in samples for cell in sample.cells}
        sides = [min(sample.size) for sample in samples]
        why = ""
        if sides and max(sides) < window:
            why = f"; the largest is {max(sides)} pixels high or wide: --set window={max(64, max(sides) // 64 * 64)}"
        elif named and NILM not in named:
            why = f"; cells are annotated as {wording.listed(named)}, not {NILM} (`convert --rename`)"
        raise UserError(f"no normal image of at least {window} x {window} pixels in the recipe's data{why}")
    return found


class Windows:
    """Samples normal windows of images, in all eight orientations or as they are."""

    def __init__(
        self, model: Foundation, samples: Sequence[Sample], recipe: WindowRecipe, cache: Path, chosen: bool = False
    ) -> None:
        """Encode the normal images of `samples` with `model`, stored under `cache`, for the windows of `recipe`.

        With `chosen`, `samples` are the `normal_images` already. Raises UserError if there are none.
        """
        window = recipe.window
        self.factor, self.side = model.factor, window // model.factor
        self.turns = range(8) if recipe.turns else range(1)
        self.samples = samples if chosen else normal_images(samples, window)
        self.latents = cached(
            model, self.samples, cache / "latents", self.turns, encoding_dtype(recipe.mixed_precision)
        )

    def to(self, device: torch.device) -> None:
        """Move the latents to `device`."""
        self.latents = [[turn.to(device) for turn in turns] for turns in self.latents]

    @cached_property
    def low_frequencies(self) -> LowFrequencies:
        """Those of all images."""
        return LowFrequencies.of([turn for turns in self.latents for turn in turns])

    def draw(self, rng: np.random.Generator, size: int) -> Tensor:
        """Return latents (size, C, window/factor, window/factor) of windows that `rng` determines."""
        windows: list[Tensor] = []
        while len(windows) < size:
            index = int(rng.integers(len(self.samples)))
            turn = int(rng.choice(list(self.turns)))
            latent = self.latents[index][turn]
            for _ in range(ATTEMPTS):
                y, x = (int(rng.integers(extent - self.side + 1)) for extent in latent.shape[1:])
                window = (
                    self.factor * x,
                    self.factor * y,
                    self.factor * (x + self.side),
                    self.factor * (y + self.side),
                )
                if normal(self.samples[index], turn, window):
                    windows.append(latent[:, y : y + self.side, x : x + self.side])
                    break
        return torch.stack(windows).float()
