"""`cytosynth merge`."""

from pathlib import Path
from typing import Annotated

import typer

from ..data.streaming import pack
from . import app, finish, there
from .options import PackOption


@app.command()
def merge(
    out: Annotated[Path, typer.Argument(help="Folder of the whole; the same command again continues it.")],
    shards: Annotated[list[Path], typer.Argument(callback=lambda paths: [there(path) for path in paths],
                                                 help="Folders that `--shard` made, all of them, in any order.")],
    to: PackOption = None,
) -> None:  # fmt: skip
    """Put the shards of a run together: the same bytes as the run would have written that is not divided."""
    from ..scale.merge import merge as join

    data = join(out, shards)
    pack(out, to)
    finish(data, out, "README.md" if (out / "README.md").exists() else "annotations.json")
