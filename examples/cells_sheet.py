"""Sheets of edited beside real cells at one scale: docs/cells.jpg and docs/before_after.png.

    python examples/cells_sheet.py DATA cells.jpg before_after.png [--columns 10] [--seed 0]

DATA holds cric. The edited cells are NILM cells of the part `test`, one of an image, in an order that depends on the
seed alone; so are the real ones of each category. They are edited with the few-step weights (`--fast`), without a gate.
None is selected.
"""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from cytosynth.annotations import Cell
from cytosynth.bethesda import ABNORMAL, NILM
from cytosynth.cell.edit import CellEditor, PlannedEdit
from cytosynth.cell.settings import EditSettings
from cytosynth.config import override
from cytosynth.data import sources
from cytosynth.data.image_files import Pixels
from cytosynth.data.sources import Sample, Source
from cytosynth.io.progress import meter
from cytosynth.synthesis.fast import Fast

SIDE, SHOWN, TITLE = 112, 140, 22
"""Side of the part about a cell, and as it is shown, pixels; height of a title."""
Place = tuple[Sample, Cell]


def chosen(samples: list[Sample], category: str, count: int, rng: np.random.Generator) -> list[Place]:
    """Return `count` cells of a `category` at least half a part from the border, one of each image and then again."""
    found: list[Place] = []
    for _ in range(count):
        for index in rng.permutation(len(samples)):
            sample = samples[index]
            inner = [
                cell for cell in sample.cells
                if cell.category == category and (sample, cell) not in found
                and all(SIDE / 2 <= at <= side - SIDE / 2 for at, side in zip(cell.centre, sample.size, strict=True))
            ]  # fmt: skip
            if inner:
                found.append((sample, inner[int(rng.integers(len(inner)))]))
    return found[:count]


def about(pixels: Pixels, cell: Cell) -> Image.Image:
    """Return the part of `pixels` about `cell`."""
    x, y = (round(at - SIDE / 2) for at in cell.centre)
    part = np.ascontiguousarray(pixels[y : y + SIDE, x : x + SIDE])
    return Image.fromarray(part).resize((SHOWN, SHOWN), Image.Resampling.LANCZOS)


def row(parts: list[Image.Image], title: str) -> Image.Image:
    """Return `parts` beside each other under their `title`."""
    line = Image.new("RGB", (len(parts) * (SHOWN + 2), SHOWN + TITLE), "white")
    ImageDraw.Draw(line).text((4, 5), title, fill="black")
    for number, part in enumerate(parts):
        line.paste(part, (number * (SHOWN + 2), TITLE))
    return line


def main() -> None:
    """Read, edit and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("sheet", type=Path)
    parser.add_argument("pairs", type=Path)
    parser.add_argument("--columns", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    samples = list(sources.load([Source(root="cric", scale=0.5, split="test")], given.data))
    rng = np.random.default_rng(given.seed)
    editor = CellEditor.load(precision="bf16", distilled="bundled")
    few = [f"{key.removeprefix('cell.')}={value}" for key, value in Fast(cell="bundled").settings().items()]
    settings = editor.settled(override(EditSettings(), few), real=True)
    normal = chosen(samples, NILM, given.columns, rng)
    before = [about(sample.pixels, cell) for sample, cell in normal]
    rows, pairs = [row(before, f"{NILM}, real")], []
    with meter("editing", len(ABNORMAL) * len(normal)) as bar:
        for number, category in enumerate(ABNORMAL):
            after = []
            for index, (sample, cell) in enumerate(normal):
                assert settings.box_scale is not None
                edit = PlannedEdit.around(cell.box, settings.box_scale, sample.size, category, given.seed + index)
                after.append(about(editor.edit(np.asarray(sample.pixels), [edit], settings), cell))
                bar.advance()
            real = [about(one.pixels, cell) for one, cell in chosen(samples, category, given.columns, rng)]
            rows += [row(after, f"the {NILM} cells edited into {category}: synthetic"), row(real, f"{category}, real")]
            pairs += [row([before[number]], NILM), row([after[number]], category)]
    sheet = Image.new("RGB", (rows[0].width, sum(one.height for one in rows)), "white")
    for number, one in enumerate(rows):
        sheet.paste(one, (0, number * one.height))
    sheet.save(given.sheet, quality=88)
    strip = Image.new("RGB", (sum(one.width for one in pairs), pairs[0].height), "white")
    for number, one in enumerate(pairs):
        strip.paste(one, (number * one.width, 0))
    strip.save(given.pairs)


if __name__ == "__main__":
    main()
