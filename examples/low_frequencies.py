"""The low frequencies of an adapter's training images, for adapters that were trained before they were kept.

    python examples/low_frequencies.py ADAPTER DATA [--scale 0.5] [--split train] [--foundation bundled] [--window 256]

Writes `low_frequencies.safetensors` next to the adapter (docs/normal_generator.md). DATA is what it was trained on.
"""

import argparse
import tempfile
from pathlib import Path

from cytosynth.data import sources
from cytosynth.data.sources import Source
from cytosynth.foundation.load import load
from cytosynth.normal.low_frequencies import FILE
from cytosynth.normal.recipe import PRESETS
from cytosynth.normal.windows import Windows, normal_images


def main() -> None:
    """Encode the images and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("adapter", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--split", default="train")
    parser.add_argument("--foundation", default="bundled")
    parser.add_argument("--window", type=int, default=256)
    given = parser.parse_args()
    if not given.adapter.is_dir():
        parser.error(f"{given.adapter}: no such folder; give that of an adapter")
    source = Source(root=given.data.name, scale=given.scale, split=given.split)
    samples = normal_images(sources.load([source], given.data.resolve().parent), given.window)
    changes = {"window": given.window, "turns": True, "mixed_precision": "no"}
    recipe = PRESETS["bundled"].model_copy(update=changes)
    with tempfile.TemporaryDirectory() as cache:
        Windows(load(given.foundation), samples, recipe, Path(cache)).low_frequencies.save(given.adapter)
    print(f"{given.adapter / FILE}: of {len(samples)} images")


if __name__ == "__main__":
    main()
