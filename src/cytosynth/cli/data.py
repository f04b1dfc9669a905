"""`cytosynth check` and `cytosynth convert`."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import UsageError
from ..io import wording
from ..io.plain import one_line
from ..registry import FORMATS_IN, FORMATS_OUT, FORMATS_PACKED
from . import app, there_if
from .data_options import Annotations, ImageFolder, Key, Pseudonymise, Recursive, pseudonyms

if TYPE_CHECKING:
    from ..annotations import DataSet
    from ..data.split import Sizes

Kind = Annotated[str | None, typer.Option("--from", help=f"Format: {', '.join(FORMATS_IN)}. \\[default: detected]")]


@app.command()
def check(
    data: Annotated[Path, typer.Argument(help="Data set.")],
    kind: Kind = None,
    annotations: Annotations = None,
    images: ImageFolder = None,
    recursive: Recursive = False,
) -> None:
    """List all problems of a data set; the exit code is 1 if there are any."""
    from ..data import check as room
    from ..data import streaming
    from ..data.read import Place

    there: list[str] = []
    if packed := streaming.kind(data):
        _read_as(data, packed, kind, annotations or images or recursive)
        found: Iterable[str] = streaming.check(data, there.append)
    else:
        found = room.check(data, kind, there.append, Place(annotations, images, recursive))
    problems = 0
    for problem in found:
        print(one_line(problem))
        problems += 1
    for line in there[1:]:
        print(f"{data}: {one_line(line)}")
    print(f"{data}: {', '.join([*there[:1], wording.amount(problems, 'problem')])}")
    if problems:
        raise typer.Exit(1)


@app.command()
def convert(
    data: Annotated[Path, typer.Argument(help="Data set.")],
    out: Annotated[Path, typer.Argument(help="New folder.")],
    to: Annotated[str, typer.Option("--to", help=f"Format: {', '.join([*FORMATS_OUT, *FORMATS_PACKED])}.")],
    kind: Kind = None,
    box_side: Annotated[
        float | None, typer.Option(min=1, help="CRIC: side of the boxes around nucleus points, pixels. \\[default: 90]")
    ] = None,
    rename: Annotated[
        list[str] | None,
        typer.Option(metavar="OLD=NEW", help="Rename a category, for example negative=NILM; may be repeated."),
    ] = None,
    patients: Annotated[
        Path | None,
        typer.Option(callback=there_if, help="CSV with the columns image and patient: parts are by patient."),
    ] = None,
    annotations: Annotations = None,
    images: ImageFolder = None,
    recursive: Recursive = False,
    pseudonymise: Pseudonymise = False,
    key: Key = None,
) -> None:
    """Write a data set in another format, with its images and parts."""
    from ..data import convert as formats
    from ..data import streaming
    from ..data.read import Place, guess
    from ..data.rename import parsed
    from ..data.split import Sizes

    place = Place(annotations, images, recursive)
    if to in FORMATS_PACKED or streaming.kind(data):
        if patients:
            raise UsageError(f"--patients does not work on packed data sets; first convert {data} to coco with it")
        if pseudonymise:
            raise UsageError(f"--pseudonymise does not work on packed data sets; first convert {data} to coco with it")
        if box_side is not None:
            raise UsageError(f"--box-side does not work on packed data sets; first convert {data} to coco with it")
        pseudonyms(pseudonymise, key)
        if packed := streaming.kind(data):
            _read_as(data, packed, kind, annotations or images or recursive)
        written = streaming.convert(data, out, kind, to, parsed(rename or []), place)
        _said(out, to, (written.images, written.cells), written.about, written.sizes)
        return
    kind = kind or guess(data, place)
    if box_side is not None and kind != "cric":
        raise UsageError("--box-side applies only to the CRIC release (--from cric)")
    options = {"side": box_side} if box_side is not None else {}
    done = formats.convert(
        data, out, kind, to, parsed(rename or []), place=place, pseudonyms=pseudonyms(pseudonymise, key),
        whose=patients, **options,
    )  # fmt: skip
    cells = sum(len(image.cells) for image in done.images)
    _said(out, to, (len(done.images), cells), done, Sizes(done.parts, done.images))


def _read_as(data: Path, packed: str, kind: str | None, placed: object) -> None:
    """Raise UsageError if `data`, whose format is `packed`, is given another `kind`, or its files as `placed`."""
    if kind not in (None, packed):
        raise UsageError(f"{data}: is {packed}, not {kind}; leave --from out")
    if placed:
        raise UsageError(f"{data}: is packed or in parts; leave --annotations, --images and --recursive out")


def _said(out: Path, to: str, counts: tuple[int, int], data: "DataSet", sizes: "Sizes") -> None:
    """Print what was written to `out`: the numbers of images and cells, the parts, and what is strange about `data`."""
    from ..data.rename import strange

    images, cells = counts
    for line in [*sizes.lines(data), strange(data)]:
        if line:
            print(f"{out}: {one_line(line)}")
    print(f"{out}: {wording.amount(images, 'image')}, {wording.amount(cells, 'cell')}, {to}")
