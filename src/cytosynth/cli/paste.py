"""`cytosynth paste`."""

from pathlib import Path
from typing import Annotated

import typer

from ..config import override
from ..data.sources import Source
from ..synthesis.pasting.settings import PasteSettings
from . import all_there, app, finish, there
from .options import KeepAbnormal, Out, Scale, Settings


@app.command()
def paste(
    data: Annotated[
        Path, typer.Argument(callback=there, help="Data set of real images, with and without abnormal cells.")
    ],
    out: Out,
    split: Annotated[str, typer.Option(help="Part of the data set: train, val, test or all.")] = "train",
    scale: Scale = 1.0,
    count: Annotated[int, typer.Option(min=1, help="Number of images to make.")] = 10,
    like: Annotated[
        list[Path] | None,
        typer.Option(
            callback=all_there,
            help="Paste where this data set of `edit` has its cells, instead of --count images; may be repeated.",
        ),
    ] = None,
    keep_abnormal: KeepAbnormal = False,
    settings: Settings = None,
) -> None:
    """Copy-paste, the baseline for a generator: paste real abnormal cells into normal images of the data set.

    Cells are cut out under a feathered elliptical mask, rotated, flipped, and shifted to the colours around them.
    """
    chosen = override(PasteSettings(), settings or [])
    from ..synthesis.pasting.paste import paste as make

    source = Source(root=data.name, scale=scale, split=split)
    made = make(source, out, data.resolve().parent, count=count, like=like or [], settings=chosen,
                keep_abnormal=keep_abnormal)  # fmt: skip
    finish(made, out, "README.md")
