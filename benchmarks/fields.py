"""How far generated fields are from real ones: the table of docs/bundled_models.md.

    python benchmarks/fields.py DATA [--fast bundled] [--split test] [--count 24] [--side 512] [--noise] [--output OUT]

DATA holds cric (or --root). Windows of 224 pixels, features of EfficientNet-Lite0: kernel distance x 1000 over as many
windows of both, and between halves of the real ones; precision, recall, density, coverage; gradient over that of the
real images, and power by octave over that of the real windows, coarse to fine.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cytosynth.adapters import distilled
from cytosynth.config import override
from cytosynth.data import sources
from cytosynth.data.image_files import Pixels
from cytosynth.data.sources import Source
from cytosynth.evaluate.distance import kid, prdc
from cytosynth.evaluate.networks import features
from cytosynth.evaluate.reconstruction import windows
from cytosynth.foundation.scratch import sharpness
from cytosynth.io.progress import meter
from cytosynth.normal.generate import NormalImageGenerator
from cytosynth.normal.settings import GenerateSettings
from cytosynth.provenance import png


def gradient(images: Sequence[Pixels]) -> float:
    """Return the mean length of the gradient of brightness."""
    bright = [image.astype(np.float64) @ (0.299, 0.587, 0.114) for image in images]
    return float(np.mean([np.hypot(*np.gradient(image)).mean() for image in bright]))


def power(parts: Sequence[Pixels]) -> np.ndarray:
    """Return the mean power of windows by octave, coarse to fine."""
    return np.mean([sharpness.octaves(sharpness.brightness(part)) for part in parts], axis=0)


def main() -> None:
    """Generate, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--foundation", default="bundled")
    parser.add_argument("--normal", default="bundled")
    parser.add_argument("--fast", help="distilled weights; the sampler and steps of their card, no guidance")
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--split", default="test")
    parser.add_argument("--count", type=int, default=24)
    parser.add_argument("--side", type=int, default=512)
    parser.add_argument("--root", default="cric", help="data set in DATA")
    parser.add_argument("--output", type=Path, help="folder to write the fields to")
    parser.add_argument("--set", action="append", default=[], help="KEY=VALUE of stage 1, as guidance_scale=8")
    parser.add_argument("--noise", action="store_true", help="begin with noise alone, without low frequencies")
    given = parser.parse_args()
    generator = NormalImageGenerator(given.foundation, given.normal, precision="bf16", distilled=given.fast)
    few: dict[str, object] = {"steps": given.steps}
    if given.fast:
        few = distilled.place(given.fast, "normal")[1].settings()
    start = {"low_frequencies": False} if given.noise else {}
    settings = override(GenerateSettings.model_validate({"size": given.side, **few, **start}), given.set)
    made = []
    with meter("generating fields", given.count) as bar:
        for index in range(given.count):
            made.append(generator.field(0, index, settings))
            if given.output:
                given.output.mkdir(parents=True, exist_ok=True)
                record = {"origin": "synthetic", "seed": 0, "key": index}
                (given.output / f"{index:04d}.png").write_bytes(png(made[-1], record))
            bar.advance()
    source = Source(root=given.root, scale=0.5, split=given.split)
    real = [sample.pixels for sample in sources.load([source], given.data)]
    extractor = features.load("efficientnet-lite0")
    parts = [[part for image in side for part in windows(image)] for side in (made, real)]
    ours, theirs = (extractor(side) for side in parts)
    size = min(len(ours), len(theirs))
    order = np.random.default_rng(0).permutation(len(theirs))
    first, second = theirs[order[: len(order) // 2]], theirs[order[len(order) // 2 :]]
    floor = kid(first, second, subsets=1, subset_size=min(len(first), len(second))).mean
    found = {
        "kernel distance x 1000": 1000 * kid(ours[:size], theirs[:size], subsets=1, subset_size=size).mean,
        "floor": 1000 * floor, "gradient": gradient(made) / gradient(real),
        **prdc(ours, theirs)._asdict(), "windows": len(ours), "real windows": len(theirs),
    }  # fmt: skip
    octaves = {"power by octave": (power(parts[0]) / power(parts[1])).round(2).tolist()}
    print(json.dumps({key: round(value, 3) for key, value in found.items()} | octaves))


if __name__ == "__main__":
    main()
