"""`cytosynth merge`."""

from pathlib import Path
from typing import Annotated

import typer

from ..data.streaming import pack
from . import app, finish, there
from .options import PackOption


@app.command()
def merge(
    out: Annotated[Path, typer.Argument(help="Folder for the merged data set; the same command continues it.")],
    shards: Annotated[list[Path], typer.Argument(callback=lambda paths: [there(path) for path in paths],
                                                 help="Folders of all shards, in any order.")],
    to: PackOption = None,
) -> None:  # fmt: skip
    """Merge the shards of a run; the result is the same, byte for byte, as that of the undivided run."""
    from ..scale.merge import merge as join

    data = join(out, shards)
    pack(out, to)
    finish(data, out, "README.md" if (out / "README.md").exists() else "annotations.json")
