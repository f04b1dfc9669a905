"""`cytosynth check` and `cytosynth convert`."""

from pathlib import Path
from typing import Annotated

import typer

from ..io import wording
from ..io.plain import one_line
from ..registry import FORMATS_IN, FORMATS_OUT
from . import app
from .places import Annotations, ImageFolder, Key, Pseudonymise, Recursive, pseudonyms

Kind = Annotated[str | None, typer.Option("--from", help=f"{', '.join(FORMATS_IN)}; guessed if not given.")]


@app.command()
def check(
    data: Annotated[Path, typer.Argument(help="The data set.")],
    kind: Kind = None,
    annotations: Annotations = None,
    images: ImageFolder = None,
    recursive: Recursive = False,
) -> None:
    """List everything wrong with a data set; exit code 1 if there is anything."""
    from ..data import check as room
    from ..data.read import Place

    there: list[str] = []
    problems = room.check(data, kind, there.append, Place(annotations, images, recursive))
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
    annotations: Annotations = None,
    images: ImageFolder = None,
    recursive: Recursive = False,
    pseudonymise: Pseudonymise = False,
    key: Key = None,
) -> None:
    """Write a data set in another format, images and parts with it."""
    from ..data import convert as formats
    from ..data.read import Place, guess
    from ..data.rename import parsed, strange
    from ..errors import UsageError

    place = Place(annotations, images, recursive)
    kind = kind or guess(data, place)
    if box_side is not None and kind != "cric":
        raise UsageError("--box-side is for the CRIC release alone")
    options = {"side": box_side} if box_side is not None else {}
    done = formats.convert(
        data, out, kind, to, parsed(rename or []), place=place, pseudonyms=pseudonyms(pseudonymise, key), **options
    )
    cells = sum(len(image.cells) for image in done.images)
    print(f"{out}: {wording.amount(len(done.images), 'image')}, {wording.amount(cells, 'cell')}, {to}")
    if line := strange(done):
        print(f"{out}: {line}")
