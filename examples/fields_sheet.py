"""A sheet of generated beside real fields at one scale, both preparations: docs/fields.jpg.

    python examples/fields_sheet.py DATA SHEET.jpg [--columns 6]

DATA holds cric and lbc_x40. Generated fields are numbers 0, 1 ... of seed 0; real ones the first of the part `test`, by
name. None is selected.
"""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from cytosynth.data import sources
from cytosynth.data.image_files import Pixels
from cytosynth.data.sources import Source
from cytosynth.io.bundled import bundled
from cytosynth.io.progress import meter
from cytosynth.normal.generate import NormalImageGenerator
from cytosynth.normal.settings import GenerateSettings

SIDE, SHOWN = 512, 256
FAST = GenerateSettings(size=SIDE, sampler="lcm", steps=4, guidance_scale=1.0)


def real(root: str, data: Path, count: int) -> list[Pixels]:
    """Return the upper left corners of `count` images."""
    found = sorted(sources.load([Source(root=root, scale=0.5, split="test")], data), key=lambda sample: sample.name)
    return [sample.pixels[:SIDE, :SIDE] for sample in found[:count]]


def row(images: list[Pixels], title: str) -> Image.Image:
    """Return `images` beside each other under their `title`."""
    line = Image.new("RGB", (len(images) * SHOWN, SHOWN + 22), "white")
    ImageDraw.Draw(line).text((4, 5), title, fill="black")
    for number, image in enumerate(images):
        height, width = image.shape[:2]
        size = (SHOWN * width // SIDE, SHOWN * height // SIDE)
        line.paste(Image.fromarray(np.ascontiguousarray(image)).resize(size), (number * SHOWN, 22))
    return line


def main() -> None:
    """Generate, read and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("sheet", type=Path)
    parser.add_argument("--columns", type=int, default=6)
    given = parser.parse_args()
    rows = []
    for adapter, root, title in (
        ("normal", "cric", "conventional"), ("normal_liquid", "lbc_x40", "liquid-based")
    ):  # fmt: skip
        generator = NormalImageGenerator(adapter=str(bundled(adapter)), precision="bf16", distilled="bundled")
        made = []
        with meter(f"generating {title} fields", given.columns) as bar:
            for index in range(given.columns):
                made.append(generator.field(0, index, FAST))
                bar.advance()
        rows += [row(made, f"generated, {title}: synthetic, not for diagnosis")]
        rows += [row(real(root, given.data, given.columns), f"real, {title}")]
    sheet = Image.new("RGB", (rows[0].width, sum(one.height for one in rows)), "white")
    for number, one in enumerate(rows):
        sheet.paste(one, (0, sum(above.height for above in rows[:number])))
    sheet.save(given.sheet, quality=88)


if __name__ == "__main__":
    main()
