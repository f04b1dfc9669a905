"""`cytosynth check` and `cytosynth convert`."""

from pathlib import Path
from typing import Annotated

import typer

from ..io import wording
from ..io.plain import one_line
from ..registry import FORMATS_IN, FORMATS_OUT
from . import app

Kind = Annotated[str | None, typer.Option("--from", help=f"{', '.join(FORMATS_IN)}; guessed if not given.")]


@app.command()
def check(data: Annotated[Path, typer.Argument(help="The data set.")], kind: Kind = None) -> None:
    """List everything wrong with a data set; exit code 1 if there is anything."""
    from ..data import check as room

    there: list[str] = []
    problems = room.check(data, kind, there.append)
    for problem in problems:
        print(one_line(problem))
    print(f"{data}: {', '.join([*there, wording.amount(len(problems), 'problem')])}")
    if problems:
        raise typer.Exit(1)


@app.command()
def convert(
    data: Annotated[Path, typer.Argument(help="The data set.")],
    out: Annotated[Path, typer.Argument(help="A new folder.")],
    to: Annotated[str, typer.Option("--to", help=", ".join(FORMATS_OUT))],
    kind: Kind = None,
    box_side: Annotated[
        float | None, typer.Option(min=1, help="CRIC: side of the boxes on nucleus points, pixels (90).")
    ] = None,
    rename: Annotated[
        list[str] | None,
        typer.Option(metavar="OLD=NEW", help="Give a category another name, negative=NILM; may be repeated."),
    ] = None,
) -> None:
    """Write a data set in another format, images with it."""
    from ..data import convert as formats
    from ..data.rename import parsed, strange
    from ..errors import UsageError

    kind = kind or formats.guess(data)
    if box_side is not None and kind != "cric":
        raise UsageError("--box-side is for the CRIC release alone")
    options = {"side": box_side} if box_side is not None else {}
    done = formats.convert(data, out, kind, to, parsed(rename or []), **options)
    images, cells = len(done.images), sum(len(p.cells) for p in done.images)
    print(f"{out}: {wording.amount(images, 'image')}, {wording.amount(cells, 'cell')}, {to}")
    if line := strange(done):
        print(f"{out}: {line}")
