"""Global Image Generation: 1024x1024 fields full of NILM cells (Section III-B, IV-A)."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from ..adapters.adapter import AdapterCard, read_card
from ..adapters.load import merge, merge_distilled
from ..bethesda import NORMAL_PROMPT
from ..data.image_files import Pixels
from ..devices import available
from ..errors import UsageError
from ..foundation import samplers, sampling
from ..foundation.load import load
from ..foundation.model import Foundation
from ..foundation.names import BUNDLED, PAPER_GUIDANCE, PrecisionSetting, PredictionType
from ..foundation.precision import at_a_time, prepare, resolved
from ..foundation.prompts import Prompts
from ..io.bundled import model_folder
from ..io.tensors import equal_weights, weights_digest
from ..registry import ADAPTERS
from .low_frequencies import FILE, LowFrequencies
from .settings import GenerateSettings


class NormalImageGenerator:
    """A foundation with its adapter, ready to generate normal fields.

    Attributes:
        model: the foundation, everything merged into it.
        prompt: with which the adapter was trained.
        digest: hash of all weights that determine the output.
        distilled: hash of the few-step weights; empty if there are none.
        low_frequencies: of the adapter's training images; None if it has none.
        guidance_scale: of the adapter's card; the paper's, if it has none.
    """

    def __init__(
        self,
        foundation: str | Foundation = BUNDLED,
        adapter: str | None = BUNDLED,
        device: str = "cpu",
        precision: PrecisionSetting = "fp32",
        prediction_type: PredictionType | None = None,
        distilled: str | None = None,
    ) -> None:
        """Load `foundation` and merge the `adapter` of any kind (folder, file, `bundled`, or None) into it.

        Then the `distilled` weights, for few steps: 'bundled', a folder, a run or a file; None: none.

        If the foundation is already loaded, in float32, its autoencoder is shared and its U-Net is taken over. The
        networks have `precision`; latents and samplers are always float32. `prediction_type` is what the U-Net
        predicts; None: what the foundation states.
        """
        if not isinstance(foundation, Foundation):
            foundation = load(foundation, denoiser="plain", prediction_type=prediction_type)
        base = foundation
        self.model, self.prompt = base, NORMAL_PROMPT
        changed: list[torch.nn.Module] = []
        self.low_frequencies: LowFrequencies | None = None
        self.guidance_scale = PAPER_GUIDANCE
        if adapter:
            folder = model_folder(adapter, "normal")
            self.low_frequencies = LowFrequencies.load(folder, base.channels)
            self.model = base.with_own_text()
            self.prompt = merge(self.model, folder)
            if card := _card(folder):
                self.guidance_scale = card.guidance_scale
            changed.append(self.model.unet)
            if not equal_weights(self.model.text_encoder, base.text_encoder):
                changed.append(self.model.text_encoder)
        # What was not changed is in the foundation's digest: no weights are hashed twice.
        self.digest = weights_digest(*changed, beside=[base.digest, self.model.conventions, self.prompt])
        self.distilled = ""
        if distilled:
            self.distilled = merge_distilled(self.model, distilled, "normal", self.digest)
            self.digest = weights_digest(beside=[self.digest, self.distilled])
        prepare(self.model.freeze().to(available(device)), resolved(precision, device))
        self.prompts = Prompts(self.model)

    @property
    def start(self) -> str:
        """16 hexadecimal digits of the low frequencies of the training images; empty if there are none."""
        return hashlib.sha256(self.low_frequencies.content).hexdigest()[:16] if self.low_frequencies else ""

    def settled(self, settings: GenerateSettings) -> GenerateSettings:
        """Return `settings` with what the adapter decides, where it is not set.

        Raises UsageError if low frequencies are asked for, and there are none.
        """
        if settings.low_frequencies and self.low_frequencies is None:
            raise UsageError(
                f"low_frequencies=true: the adapter has no {FILE}; train it again, or write them "
                "(examples/low_frequencies.py)"
            )
        found = {"low_frequencies": self.low_frequencies is not None, "guidance_scale": self.guidance_scale}
        return settings.model_copy(update={key: to for key, to in found.items() if getattr(settings, key) is None})

    def field(self, seed: int, index: int, settings: GenerateSettings) -> Pixels:
        """Return field number `index` of `seed`: (size, size, 3). It depends only on these and the weights."""
        return self.fields([(seed, index)], settings)[0]

    @torch.no_grad()
    def fields(self, wanted: Sequence[tuple[int, int]], settings: GenerateSettings) -> list[Pixels]:
        """Return the field of each (seed, index) `wanted`: (size, size, 3).

        `settings.batch` are denoised at a time, never fewer: an incomplete last batch is filled up by repeating its
        last field. On several threads of a CPU it is one at a time. So the pixels of a field do not depend, to the bit
        on a CPU, on the others in its batch. They are decoded one by one.
        """
        drawn: list[Pixels] = []
        batch = at_a_time(settings.batch, self.model.device)
        for first in range(0, len(wanted), batch):
            chosen = wanted[first : first + batch]
            latents = self.latents([*chosen, *[chosen[-1]] * (batch - len(chosen))], settings)
            drawn += [np.asarray(self.model.decode_latents(one[None])[0]) for one in latents[: len(chosen)]]
        return drawn

    @torch.no_grad()
    def latents(self, wanted: Sequence[tuple[int, int]], settings: GenerateSettings) -> torch.Tensor:
        """Return the (n, C, size/factor, size/factor) scaled latents of the fields `wanted`, denoised together."""
        settings = self.settled(settings)
        side, count = settings.size // self.model.factor, len(wanted)
        noise = [sampling.noise((1, self.model.channels, side, side), *field, 1) for field in wanted]
        start = torch.cat(noise).to(self.model.device)
        low = None
        if settings.low_frequencies and self.low_frequencies:
            low = torch.cat([self.low_frequencies.draw(side, *field, 3) for field in wanted]).to(start)
        text = self.prompts.encode([settings.prompt or self.prompt, ""])
        denoise = sampling.guided(
            self.model.unet, text[:1].expand(count, -1, -1), text[1:].expand(count, -1, -1),
            guidance_scale=settings.guidance, guidance_rescale=settings.guidance_rescale,
            guidance_interval=settings.guidance_interval,
        )  # fmt: skip
        return sampling.sample(
            denoise, samplers.build(settings.sampler, self.model.scheduler), start, steps=settings.steps, clean=low,
            seeds=[(*field, 1) for field in wanted],
        )  # fmt: skip


def _card(adapter: Path) -> AdapterCard | None:
    """Return the card of the `adapter`, a folder or the file of its weights; None if it has none."""
    if adapter.is_dir():
        return read_card(adapter)
    known = {ADAPTERS.load(name).file for name in ADAPTERS}
    return read_card(adapter.parent) if adapter.name in known else None
