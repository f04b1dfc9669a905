"""`cytosynth tiles`."""

from pathlib import Path
from typing import Annotated

import typer

from . import app, finish, there
from .options import Mpp, Out, Strict


@app.command()
def tiles(
    slides: Annotated[Path, typer.Argument(callback=there, help="Slide, or folder of slides.")],
    out: Out,
    annotations: Annotated[
        Path | None,
        typer.Option(
            help="GeoJSON or COCO file in slide pixels, or a folder of them. \\[default: files next to the slides]"
        ),
    ] = None,
    patients: Annotated[
        Path | None,
        typer.Option(help="CSV with columns slide and patient, to split by patient. \\[default: split by slide]"),
    ] = None,
    per_slide: Annotated[
        int | None, typer.Option(min=1, help="Maximum number of fields per slide. \\[default: all]")
    ] = None,
    side: Annotated[int, typer.Option(min=64, max=8192, help="Side of a field, pixels at x20.")] = 1024,
    min_nuclei: Annotated[
        int, typer.Option(min=0, help="Minimum number of nuclei in a field without annotated cells.")
    ] = 10,
    min_focus: Annotated[float, typer.Option(min=0, help="Minimum sharpness, relative to the slide's median.")] = 0.8,
    only_annotated: Annotated[
        bool, typer.Option("--only-annotated", help="Keep only fields with an annotated cell.")
    ] = False,
    mpp: Mpp = None,
    rename: Annotated[
        list[str] | None, typer.Option(metavar="OLD=NEW", help="Rename a category; may be repeated.")
    ] = None,
    strict: Strict = False,
) -> None:
    """Cut whole slides into a data set of sharp fields with cells, at x20, with their annotations."""
    from ..data import split
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
    finish(data, out, "annotations.json", split.Sizes(split.stated(out), data.images).lines(data))
