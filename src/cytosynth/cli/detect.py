"""`cytosynth detect`."""

from pathlib import Path
from typing import Annotated

import typer

from . import app, finish, there
from .options import Device, Mpp, Scale, Strict


@app.command()
def detect(
    images: Annotated[Path, typer.Argument(callback=there, help="An image, a slide, a folder, or a COCO data set.")],
    out: Annotated[Path, typer.Argument(help="Folder for what is found; the same command again continues it.")],
    detector: Annotated[
        str, typer.Option(help="Folder of the detector (RUN/weights of `train detector`), or 'bundled'.")
    ] = "bundled",
    threshold: Annotated[float, typer.Option(min=0, max=1, help="Least score of a cell.")] = 0.5,
    split: Annotated[str | None, typer.Option(help="Part of a COCO data set's split; none: all.")] = None,
    scale: Scale = 1.0,
    mpp: Mpp = None,
    strict: Strict = False,
    device: Device = "auto",
) -> None:
    """Find cells on images and whole slides: COCO annotations and results, GeoJSON for QuPath, images with boxes.

    Detectors report nothing below a score of 0.05.
    """
    from ..detection import folder, model
    from ..devices import available
    from ..io.bundled import model_folder

    found = folder.gather(images, split)
    finder = model.load(model_folder(detector, "detector"))
    finder.network.to(available(device))
    data = folder.detect(found, out, finder, threshold=threshold, scale=scale, mpp=mpp, strict=strict)
    finish(data, out, "annotations.json")
