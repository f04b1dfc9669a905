"""Latents that a generator makes of training images, to sharpen its decoder on (docs/training.md).

    python examples/regenerate.py DATA OUT.safetensors [--stage cell] [--model M] [--foundation F] [--sets SETS]

Noise is added to the latents of crops, and stage 1 (`normal`: the adapter M, on crops of all images) or stage 2
(`cell`: the synthesizer M, on close-ups of cells) removes it again, which keeps what is coarse. Latents that are
sampled from noise go into OUT, too. OUT is for `train foundation RUN --part decoder --set regenerated=OUT.safetensors`.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from pydantic import TypeAdapter, ValidationError
from safetensors.torch import save
from torch import Tensor

from cytosynth.adapters import distilled
from cytosynth.bethesda import NILM
from cytosynth.cell import crops
from cytosynth.cell.crops import Crop
from cytosynth.cell.edit import CellEditor, PlannedEdit
from cytosynth.cell.recipe import BUNDLED_RECIPE
from cytosynth.cell.settings import EditSettings
from cytosynth.data import augment, sources
from cytosynth.data.image_files import Pixels
from cytosynth.data.sources import Sample, Source
from cytosynth.errors import UserError
from cytosynth.foundation import samplers, sampling
from cytosynth.foundation.load import load
from cytosynth.foundation.model import Foundation
from cytosynth.foundation.names import CC_BY
from cytosynth.io import atomic
from cytosynth.io.progress import meter
from cytosynth.io.tensors import weights_digest
from cytosynth.normal.generate import NormalImageGenerator
from cytosynth.normal.settings import GenerateSettings

SIDE, BATCH = 256, 4
WEAKEST, STRONGEST = 0.25, 0.65
"""Least and greatest strength of the noise: fine structure is made anew, and what is coarse is kept."""
SLOW: dict[str, Any] = {"sampler": "ddim", "steps": 16}


def _steps(fast: str | None, stage: distilled.Stage) -> dict[str, Any]:
    """Return sampler and steps of `stage`: those of the card of its `fast` weights, if there are any."""
    return distilled.place(fast, stage)[1].settings() if fast else SLOW


class Stage(Protocol):
    """A generator, and the images of which it makes latents."""

    model: Foundation

    def regenerated(self, rng: np.random.Generator, seed: int) -> tuple[Pixels, Tensor]:
        """Return `BATCH` images (n, SIDE, SIDE, 3) and the latents (n, C, h, w) that are made of them."""

    def sampled(self, rng: np.random.Generator, seed: int) -> Tensor:
        """Return latents (n, C, h, w) that are made from noise."""


class Fields:
    """Stage 1, on crops of whole images, abnormal ones too."""

    def __init__(self, given: argparse.Namespace, foundation: Foundation, samples: Sequence[Sample]) -> None:
        """Load the adapter; raise UserError for an image smaller than a crop."""
        for sample in samples:
            if min(sample.size) < SIDE:
                raise UserError(f"{sample.name}: at its scale smaller than crops of {SIDE} pixels")
        options = {"precision": given.precision, "distilled": given.fast}
        self.generator = NormalImageGenerator(foundation, given.model, given.device, **options)
        self.model, self.samples = self.generator.model, samples
        self.settings = GenerateSettings.model_validate({"size": 2 * SIDE, **_steps(given.fast, "normal")})

    def regenerated(self, rng: np.random.Generator, seed: int) -> tuple[Pixels, Tensor]:
        """Return random crops, turned, and latents of a random strength."""
        pixels = []
        for index in rng.integers(len(self.samples), size=BATCH):
            sample = self.samples[index]
            x, y = (int(rng.integers(extent - SIDE + 1)) for extent in sample.size)
            pixels.append(augment.d4(augment.crop(sample.pixels, x, y, SIDE), int(rng.integers(8))))
        text = self.generator.prompts.encode([self.generator.prompt, ""])
        settings = self.generator.settled(self.settings)
        denoise = sampling.guided(
            self.model.unet, *(one[None].expand(BATCH, -1, -1) for one in text), guidance_scale=settings.guidance
        )
        clean = self.model.encode_pixels(np.stack(pixels)).float()
        return np.stack(pixels), denoised(self.model, denoise, clean, self.settings, strength(rng), seed)

    def sampled(self, rng: np.random.Generator, seed: int) -> Tensor:
        """Return a field's latents, twice `SIDE` wide."""
        return self.generator.latents([(seed, 0)], self.settings)


class Cells:
    """Stage 2, on close-ups of cells of every category that it can edit into."""

    def __init__(self, given: argparse.Namespace, foundation: Foundation, samples: Sequence[Sample]) -> None:
        """Load the synthesizer; raise UserError if there are no cells for it."""
        options = {"precision": given.precision, "distilled": given.fast}
        self.editor = CellEditor.load(foundation, given.model, given.device, **options)
        self.model, self.trained = self.editor.model, self.editor.trained
        scale = (self.editor.box_scale, self.editor.box_scale)
        names = sorted({NILM, *self.trained.targets})
        changes = {"categories": names, "variants": 2, "box_scale": scale, "nucleus": bool(self.trained.nucleus)}
        recipe = BUNDLED_RECIPE.model_copy(update=changes)
        found = crops.crops_of(samples, recipe, recipe.variants, self.trained.zoom)
        self.crops = {name: chosen for name in names if (chosen := [one for one in found if one.category == name])}
        known = [name for name in self.trained.targets if name in self.crops]
        if NILM not in self.crops or not known:
            lacking = NILM if NILM not in self.crops else " or ".join(self.trained.targets)
            raise UserError(f"no cell of {lacking} in images of at least {SIDE} pixels")
        settings = EditSettings.model_validate(_steps(given.fast, "cell"))
        self.known, self.settings = known, self.editor.settled(settings, real=True)

    def regenerated(self, rng: np.random.Generator, seed: int) -> tuple[Pixels, Tensor]:
        """Return close-ups and latents of a random strength, the cells' own categories and sizes requested."""
        names = [self.known[index] for index in rng.integers(len(self.known), size=BATCH)]
        chosen = [self.crops[name][rng.integers(len(self.crops[name]))] for name in names]
        squares = [one.nucleus if one.category in self.trained.nucleus else None for one in chosen]
        pixels = np.stack([one.pixels for one in chosen])
        return pixels, self._made(chosen, names, squares, strength(rng), seed)

    def sampled(self, rng: np.random.Generator, seed: int) -> Tensor:
        """Return latents of normal cells that are edited into the synthesizer's categories."""
        chosen = [self.crops[NILM][index] for index in rng.integers(len(self.crops[NILM]), size=BATCH)]
        targets = self.trained.targets
        names = [targets[index] for index in rng.integers(len(targets), size=BATCH)]
        factors = self.settings.nucleus_scale
        squares = [
            self.editor.nucleus(PlannedEdit(one.box, name, seed + place), one.zoom, factors)
            for place, (one, name) in enumerate(zip(chosen, names, strict=True))
        ]
        return self._made(chosen, names, squares, 1.0, seed)

    def _made(
        self, chosen: Sequence[Crop], names: Sequence[str], squares: Sequence[Any], share: float, seed: int
    ) -> Tensor:
        """Return latents of `chosen` close-ups, edited into `names`, nuclei in `squares`, with the strength `share`."""
        clean = self.model.encode_pixels(np.stack([one.pixels for one in chosen])).float()
        edits = [PlannedEdit(one.box, name, seed) for one, name in zip(chosen, names, strict=True)]
        settings = self.settings.model_copy(update={"strength": applied(share, self.settings.steps)})
        return self.editor.latents(clean, edits, squares, settings, [(seed, place) for place in range(len(chosen))])


def strength(rng: np.random.Generator) -> float:
    """Return a random strength of the noise."""
    return float(rng.uniform(WEAKEST, STRONGEST))


def applied(share: float, steps: int) -> float:
    """Return the strength `share`, or where it is less than one of `steps`, that of one."""
    return max(share, 1.01 / steps)


def denoised(
    model: Foundation, denoise: sampling.Denoiser, clean: Tensor, settings: Any, share: float, seed: int
) -> Tensor:
    """Return (n, C, h, w) `clean` latents after noise of the strength `share` was added and removed."""
    noise = torch.cat([sampling.noise((1, *clean.shape[1:]), seed, place) for place in range(len(clean))]).to(clean)
    return sampling.sample(
        denoise, samplers.build(settings.sampler, model.scheduler), noise, steps=settings.steps, clean=clean,
        strength=applied(share, settings.steps), seeds=[(seed, place) for place in range(len(clean))],
    )  # fmt: skip


@torch.no_grad()
def write(given: argparse.Namespace) -> None:
    """Make the latents, and write the file; raise UserError for anything that does not fit."""
    if not given.out.resolve().parent.is_dir():
        raise UserError(f"{given.out}: its folder does not exist")
    try:
        used = TypeAdapter(list[Source]).validate_python(json.loads(given.sets)) if given.sets else CC_BY
    except (ValueError, ValidationError):
        raise UserError(f'--sets {given.sets}: give JSON such as [{{"root": "fields", "scale": 0.5}}]') from None
    foundation = load(given.foundation)
    vae = foundation.vae
    digest, scale = weights_digest(vae.encoder, vae.quant_conv), vae.config.scaling_factor  # in float32, as loaded
    samples = list(sources.load(used, given.data))
    stage: Stage = Fields(given, foundation, samples) if given.stage == "normal" else Cells(given, foundation, samples)
    rng, latents, sampled, images = np.random.default_rng(given.seed), [], [], []
    with meter("regenerating", given.count) as bar:
        for first in range(0, given.count, BATCH):
            pixels, made = stage.regenerated(rng, given.seed + first)
            images.append(pixels)
            latents.append(made.cpu())
            bar.advance(min(BATCH, given.count - first))
    with meter("sampling", given.sampled) as bar:
        while sum(map(len, sampled)) < given.sampled:
            sampled.append(stage.sampled(rng, given.seed + given.count + BATCH * (len(sampled) + 1)).cpu())
            bar.advance(len(sampled[-1]))
    found = {
        "latents": (torch.cat(latents)[: given.count] / scale).half().contiguous(),
        "sampled": (torch.cat(sampled)[: given.sampled] / scale).half().contiguous(),
        "pixels": torch.from_numpy(np.concatenate(images)[: given.count]),
    }
    atomic.write_bytes(given.out, save(found, {"encoder": digest}))
    print(f"{given.out}: {given.count} regenerated and {given.sampled} sampled")


def positive(text: str) -> int:
    """Return a whole number above 0."""
    if (value := int(text)) < 1:
        raise ValueError(text)
    return value


def main() -> None:
    """Read the command line, and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder that holds the data sets")
    parser.add_argument("out", type=Path, help="file to write")
    parser.add_argument("--stage", choices=("normal", "cell"), default="normal", help="1 or 2 (default: normal)")
    parser.add_argument("--sets", help='JSON, as [{"root": "fields", "scale": 0.5}] (default: the bundled models\')')
    parser.add_argument("--foundation", default="bundled", help="(default: bundled)")
    parser.add_argument("--model", default="bundled", help="adapter or synthesizer (default: bundled)")
    parser.add_argument("--fast", help="few-step weights of the model: four steps without guidance")
    parser.add_argument("--count", type=positive, default=1200, help="number of regenerated crops (default: 1200)")
    parser.add_argument("--sampled", type=positive, default=80, help="number of sampled latents (default: 80)")
    parser.add_argument("--device", default="cpu", help="(default: cpu)")
    parser.add_argument("--precision", choices=("auto", "fp32", "bf16", "fp16"), default="auto", help="(default: auto)")
    parser.add_argument("--seed", type=int, default=0, help="(default: 0)")
    try:
        write(parser.parse_args())
    except UserError as error:
        parser.exit(1, f"{parser.prog}: {error}\n")


if __name__ == "__main__":
    main()
