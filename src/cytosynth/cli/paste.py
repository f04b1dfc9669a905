"""`cytosynth paste`."""

from pathlib import Path
from typing import Annotated

import typer

from ..config import override
from ..data.sources import Source
from ..synthesis.pasting.settings import PasteSettings
from . import all_there, app, finish, there
from .options import Out, Scale, Settings


@app.command()
def paste(
    data: Annotated[Path, typer.Argument(callback=there, help="Real annotated images, normal and abnormal ones.")],
    out: Out,
    split: Annotated[str, typer.Option(help="Part of it: train, val, test; or all.")] = "train",
    scale: Scale = 1.0,
    count: Annotated[int, typer.Option(min=1, help="Images to make.")] = 10,
    like: Annotated[
        list[Path] | None,
        typer.Option(
            callback=all_there, help="Instead: the cells of this set of `edit`, at their places; may be repeated."
        ),
    ] = None,
    settings: Settings = None,
) -> None:
    """Copy-paste, what a generator has to beat: real abnormal cells pasted into the set's normal images.

    Cells are cut out under a feathered elliptical mask, turned, flipped, and shifted to the colours around them.
    """
    chosen = override(PasteSettings(), settings or [])
    from ..synthesis.pasting.paste import paste as make

    source = Source(root=data.name, scale=scale, split=split)
    made = make(source, out, data.resolve().parent, count=count, like=like or [], settings=chosen)
    finish(made, out, "README.md")
