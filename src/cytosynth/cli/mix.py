"""`cytosynth mix`."""

from pathlib import Path
from typing import Annotated

import typer

from ..io import wording
from ..registry import FORMATS_OUT
from . import app, there


@app.command()
def mix(
    real: Annotated[Path, typer.Argument(callback=there, help="Data set of real images; its parts are kept.")],
    synthetic: Annotated[
        Path, typer.Argument(callback=there, help="Synthetic data set; all its images go into train.")
    ],
    out: Annotated[Path, typer.Argument(help="Folder of the new data set; the same command continues it.")],
    ratio: Annotated[
        float | None,
        typer.Option(
            min=0.001, help="Synthetic images per real image in train (the first ones are used). \\[default: all]"
        ),
    ] = None,
    to: Annotated[str, typer.Option("--to", help=f"Format: {', '.join(FORMATS_OUT)}.")] = "coco",
    keep_normal: Annotated[
        bool,
        typer.Option("--keep-normal", help="Keep boxes of NILM cells, although synthetic images annotate few or none."),
    ] = False,
) -> None:
    """Combine real and synthetic images into one data set to train a detector on, with parts and a flag per image.

    Synthetic images are in the part train only; `synthetic` of each image is the flag.
    """
    from ..augmentation.mix import mix as room

    data = room(real, synthetic, out, ratio=ratio, target=to, keep_normal=keep_normal)
    counted = data.info["mixed"]
    print(
        f"{out}: {wording.amount(counted['real'], 'real image')}, {counted['synthetic']} synthetic, {to}; see README.md"
    )
