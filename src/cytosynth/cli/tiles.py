"""`cytosynth tiles`."""

from pathlib import Path
from typing import Annotated

import typer

from . import app, finish, there
from .options import Mpp, Out, Strict


@app.command()
def tiles(
    slides: Annotated[Path, typer.Argument(callback=there, help="A slide, or a folder of slides.")],
    out: Out,
    annotations: Annotated[
        Path | None,
        typer.Option(help="GeoJSON or COCO in pixels of the slides, or a folder of such. \\[default: beside them]"),
    ] = None,
    patients: Annotated[
        Path | None, typer.Option(help="CSV with columns slide and patient: parts are by patient, else by slide.")
    ] = None,
    per_slide: Annotated[int | None, typer.Option(min=1, help="Fields of a slide at most. \\[default: all]")] = None,
    side: Annotated[int, typer.Option(min=64, max=8192, help="Side of a field, pixels at x20.")] = 1024,
    min_nuclei: Annotated[int, typer.Option(min=0, help="Nuclei in a field without annotated cells.")] = 10,
    min_focus: Annotated[float, typer.Option(min=0, help="Sharpness over the slide's median.")] = 0.8,
    only_annotated: Annotated[
        bool, typer.Option("--only-annotated", help="Only fields with an annotated cell.")
    ] = False,
    mpp: Mpp = None,
    rename: Annotated[
        list[str] | None, typer.Option(metavar="OLD=NEW", help="Give a category another name; may be repeated.")
    ] = None,
    strict: Strict = False,
) -> None:
    """From whole slides to a data set: sharp fields with cells, at x20, with their annotations."""
    from ..data.rename import parsed
    from ..data.slides import fields

    for path in (annotations, patients):
        if path is not None:
            there(path)
    settings = fields.FieldSettings(
        side=side, per_slide=per_slide, min_nuclei=min_nuclei, min_focus=min_focus, only_annotated=only_annotated,
        mpp=mpp,
    )  # fmt: skip
    data = fields.tiles(
        slides, out, settings, annotated=annotations, patients=patients, names=parsed(rename or []), strict=strict
    )
    finish(data, out, "annotations.json")
