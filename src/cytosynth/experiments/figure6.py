"""Figure 6: fields of every adapter next to real ones, from the run folder of Table I."""

from pathlib import Path

import numpy as np

from ..data import image_files
from ..data.image_files import Pixels
from ..errors import UserError
from ..evaluate import sheet
from .recipe import Table1Recipe
from .table1 import real_windows

SIDE = 320
"""Side of a field in the image at least, pixels; larger fields are cut about their middle."""


def figure6(recipe: Table1Recipe, run: Path, data_root: Path, out: Path, samples: int = 4) -> Path:
    """Write `figure6.png` into `out`: a row for the real images and for each adapter, the first `samples` fields.

    Fields are those that Table I generated in the folder `run` with the recipe's first seed: none is selected by hand.
    Raises UserError if they are missing.
    """
    side = min(recipe.size, SIDE)
    tiles: list[tuple[Pixels, str]] = []
    real = real_windows(recipe.model_copy(update={"window": side}), data_root)
    rng = np.random.default_rng(0)
    tiles += [(real[int(index)], "real") for index in rng.permutation(len(real))[:samples]]
    if len(tiles) < samples:
        raise UserError(
            f"only {len(tiles)} real windows of {side} pixels without an abnormal cell; {samples} are needed"
        )
    for adapter in recipe.adapters:
        folder = run / adapter / f"seed-{recipe.seeds[0]}" / "fields"
        found = sorted(folder.glob("*.png"))[:samples]
        if len(found) < samples:
            raise UserError(f"{folder}: {len(found)} fields, {samples} are needed; run `experiment table1` first")
        tiles += [(_middle(image_files.read(path), side), adapter) for path in found]
    sheet.write(out / "figure6.png", tiles, columns=samples, side=side)
    return out / "figure6.png"


def _middle(pixels: Pixels, side: int) -> Pixels:
    height, width = pixels.shape[:2]
    y, x = (height - side) // 2, (width - side) // 2
    return pixels[y : y + side, x : x + side]
