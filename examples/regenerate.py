"""Latents that a generator makes of training images, to sharpen its decoder on (docs/training.md).

    python examples/regenerate.py DATA OUT.safetensors [--stage cell] [--model M] [--foundation F] [--sets SETS]

DATA holds the data sets SETS, as JSON (default: those of the bundled models). Noise is added to the latents of crops of
their images, and stage 1 (`normal`: the adapter M) or stage 2 (`cell`: the synthesizer M, on close-ups) removes
it again. OUT is for `train foundation RUN --part decoder --set regenerated=OUT.safetensors`, which begins with the
autoencoder in RUN/autoencoder/weights.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from cytosynth.bethesda import ABNORMAL, NILM, abnormal_prompt
from cytosynth.cell import crops, synthesizer
from cytosynth.cell.edit import CellEditor, PlannedEdit
from cytosynth.cell.recipe import BUNDLED_RECIPE
from cytosynth.data import augment, sources
from cytosynth.data.image_files import Pixels
from cytosynth.data.sources import Sample, Source
from cytosynth.foundation import samplers, sampling
from cytosynth.foundation.load import load
from cytosynth.foundation.model import Foundation
from cytosynth.foundation.names import CC_BY, PrecisionSetting
from cytosynth.io.progress import meter
from cytosynth.io.tensors import weights_digest
from cytosynth.normal.generate import NormalImageGenerator
from cytosynth.normal.settings import GenerateSettings

SIDE, TOGETHER, STEPS = 256, 4, 16
LEAST, MOST = 0.25, 0.65
"""Strength of the noise: all details are made anew, and what is coarse is kept."""


class Fields:
    """Stage 1, on crops of whole images."""

    def __init__(self, model: str, foundation: Foundation, precision: PrecisionSetting, samples: list[Sample]) -> None:
        self.generator = NormalImageGenerator(foundation, model, precision=precision)
        self.model, self.samples = self.generator.model, samples
        self.scale = self.generator.settled(GenerateSettings()).guidance

    def crop(self, rng: np.random.Generator) -> Pixels:
        """Return (SIDE, SIDE, 3) of a random image."""
        sample = self.samples[rng.integers(len(self.samples))]
        x, y = (int(rng.integers(extent - SIDE + 1)) for extent in sample.size)
        return np.ascontiguousarray(augment.d4(augment.crop(sample.pixels, x, y, SIDE), int(rng.integers(8))))

    def again(self, rng: np.random.Generator, seed: int) -> tuple[list[Pixels], Tensor]:
        """Return images and the latents that are made of them."""
        pixels = [self.crop(rng) for _ in range(TOGETHER)]
        text = self.generator.prompts.encode([self.generator.prompt, ""])
        denoise = sampling.guided(
            self.model.unet, *(one[None].expand(TOGETHER, -1, -1) for one in text), guidance_scale=self.scale
        )
        return pixels, made_again(self.model, denoise, np.stack(pixels), float(rng.uniform(LEAST, MOST)), seed)

    def sampled(self, rng: np.random.Generator, seed: int) -> Tensor:
        """Return latents that are made from noise."""
        return self.generator.latents([(seed, 0)], GenerateSettings(size=2 * SIDE))


class Cells:
    """Stage 2, on close-ups of cells."""

    def __init__(self, model: str, foundation: Foundation, precision: PrecisionSetting, samples: list[Sample]) -> None:
        self.editor = CellEditor.load(foundation, model, precision=precision)
        self.model = self.editor.model
        recipe = BUNDLED_RECIPE.model_copy(update={"categories": [NILM, *self.editor.categories], "variants": 2})
        found = crops.crops_of(samples, recipe, recipe.variants, self.editor.trained.zoom)
        self.crops = {name: [one for one in found if one.category == name] for name in (NILM, *self.editor.categories)}

    def again(self, rng: np.random.Generator, seed: int) -> tuple[list[Pixels], Tensor]:
        """Return close-ups and the latents that are made of them, their cells of the same categories and sizes."""
        known = [name for name, found in self.crops.items() if found]
        names = [known[rng.integers(len(known))] for _ in range(TOGETHER)]
        chosen = [self.crops[name][rng.integers(len(self.crops[name]))] for name in names]
        latents = self._made(chosen, names, [one.nucleus for one in chosen], float(rng.uniform(LEAST, MOST)), seed)
        return [one.pixels for one in chosen], latents

    def sampled(self, rng: np.random.Generator, seed: int) -> Tensor:
        """Return latents of normal cells that are edited into abnormal ones."""
        chosen = [self.crops[NILM][rng.integers(len(self.crops[NILM]))] for _ in range(TOGETHER)]
        names = [ABNORMAL[rng.integers(len(ABNORMAL))] for _ in chosen]
        edits = [
            PlannedEdit(one.box, name, seed + at) for at, (one, name) in enumerate(zip(chosen, names, strict=True))
        ]
        nuclei = [
            self.editor.nucleus(edit, one.zoom, self.editor.trained.nucleus_scale)
            for edit, one in zip(edits, chosen, strict=True)
        ]
        return self._made(chosen, names, nuclei, 1.0, seed)

    def _made(self, chosen: list, names: list[str], nuclei: list, strength: float, seed: int) -> Tensor:
        pixels, size, factor = np.stack([one.pixels for one in chosen]), chosen[0].pixels.shape[0], self.model.factor
        clean = self.model.encode_pixels(pixels).float()
        masks = torch.stack([synthesizer.mask_of(one.box, size, factor) for one in chosen])
        discs = torch.stack([synthesizer.disc_of(nucleus, size, factor) for nucleus in nuclei])
        prompts = self.editor.prompts
        denoise = sampling.guided(
            self.model.unet, prompts.encode(list(map(abnormal_prompt, names))), prompts.encode([""] * len(names)),
            extra_channels=synthesizer.extra_channels(clean, masks, discs),
            grounding=synthesizer.grounding([one.box for one in chosen], size, prompts.pool(names)),
        )  # fmt: skip
        return made_again(self.model, denoise, pixels, strength, seed)


def made_again(model: Foundation, denoise: sampling.Denoiser, pixels: Pixels, strength: float, seed: int) -> Tensor:
    """Return (n, C, h, w) latents of (n, height, width, 3) `pixels` after noise of this `strength` was removed."""
    clean = model.encode_pixels(pixels).float()
    noise = torch.cat([sampling.noise((1, *clean.shape[1:]), seed, place) for place in range(len(clean))])
    return sampling.sample(
        denoise, samplers.build("ddim", model.scheduler), noise, steps=STEPS, clean=clean, strength=strength
    )


@torch.no_grad()
def main() -> None:
    """Make the latents, and write the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--stage", choices=("normal", "cell"), default="normal")
    parser.add_argument("--sets", help='as JSON: [{"root": "fields", "scale": 0.5}]')
    parser.add_argument("--foundation", default="bundled")
    parser.add_argument("--model", default="bundled", help="adapter or synthesizer")
    parser.add_argument("--count", type=int, default=1200, help="of regenerated crops")
    parser.add_argument("--sampled", type=int, default=80, help="of sampled latents")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    used = [Source(**one) for one in json.loads(given.sets)] if given.sets else CC_BY
    foundation = load(given.foundation)
    digest = weights_digest(foundation.vae.encoder, foundation.vae.quant_conv)  # before it is in another precision
    samples = list(sources.load(used, given.data))
    stage = (Fields if given.stage == "normal" else Cells)(given.model, foundation, given.precision, samples)
    rng, again, free, images = np.random.default_rng(given.seed), [], [], []
    with meter("regenerating", given.count) as bar:
        while len(images) < given.count:
            pixels, latents = stage.again(rng, given.seed + len(images))
            images += pixels
            again.append(latents)
            bar.advance(len(pixels))
    with meter("sampling", given.sampled) as bar:
        while sum(map(len, free)) < given.sampled:
            free.append(stage.sampled(rng, given.seed + 1_000_000 + TOGETHER * len(free)))
            bar.advance(len(free[-1]))
    scale = foundation.vae.config.scaling_factor
    found = {
        "latents": (torch.cat(again) / scale).half().cpu().contiguous(),
        "sampled": (torch.cat(free) / scale).half().cpu().contiguous(),
        "pixels": torch.from_numpy(np.stack(images)),
    }
    save_file(found, str(given.out), {"encoder": digest})
    print(f"{given.out}: {len(images)} regenerated and {len(found['sampled'])} sampled")


if __name__ == "__main__":
    main()
