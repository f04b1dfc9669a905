"""`cytosynth mix`."""

from pathlib import Path
from typing import Annotated

import typer

from ..io import wording
from ..registry import FORMATS_OUT
from . import app, there


@app.command()
def mix(
    real: Annotated[Path, typer.Argument(callback=there, help="Data set of real images; its parts stay.")],
    synthetic: Annotated[Path, typer.Argument(callback=there, help="Synthetic data set: all of it goes into train.")],
    out: Annotated[Path, typer.Argument(help="Folder of the new data set; the same command again continues it.")],
    ratio: Annotated[
        float | None,
        typer.Option(min=0.001, help="Synthetic images for each real one in train, the first N. \\[default: all]"),
    ] = None,
    to: Annotated[str, typer.Option("--to", help=", ".join(FORMATS_OUT))] = "coco",
    keep_normal: Annotated[
        bool,
        typer.Option("--keep-normal", help="Keep boxes of NILM cells, which synthetic images do not annotate."),
    ] = False,
) -> None:
    """Put real and synthetic images into one data set, with parts and a flag an image, to train a detector on.

    Synthetic images are in the part train alone, and `synthetic` of each image says what it is.
    """
    from ..augmentation.mix import mix as room

    data = room(real, synthetic, out, ratio=ratio, target=to, keep_normal=keep_normal)
    counted = data.info["mixed"]
    print(
        f"{out}: {wording.amount(counted['real'], 'real image')}, {counted['synthetic']} synthetic, "
        f"{to}; README.md says more"
    )
