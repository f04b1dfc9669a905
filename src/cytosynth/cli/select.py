"""`cytosynth select`."""

import json
from pathlib import Path
from typing import Annotated

import typer

from ..augmentation.select.recipe import PRESETS
from ..config import override
from . import app
from .options import DataRoot, Devices, Preset, Run, Settings, Workers


@app.command()
def select(
    run: Run,
    synthetic: Annotated[
        list[str] | None, typer.Option(help="Synthetic data set, relative to --data-root; may be repeated.")
    ] = None,
    detector: Annotated[
        str | None,
        typer.Option(help="Folder of your current detector. \\[default: one is trained on the real images first]"),
    ] = None,
    preset: Preset = "bundled",
    data_root: DataRoot = Path(),
    anyway: Annotated[
        float | None,
        typer.Option(
            min=0.001, metavar="RATIO", help="Write this ratio of images by rank, without testing whether it helps."
        ),
    ] = None,
    device: Devices = "auto",
    workers: Workers = None,
    settings: Settings = None,
) -> None:
    """Select synthetic images to add to a training set: rank them, find the ratio that helps, write those images.

    Images rank first if the current detector is uncertain about their cells and they resemble real images. Their number
    is increased until a further gain on the validation part is not significant; the test part is never used. If no
    number of images helps, only the curve is written.
    """
    given = [f"synthetic={json.dumps(synthetic)}"] if synthetic else []
    given += [f"detector={json.dumps(detector)}"] if detector else []
    recipe = override(PRESETS[preset], [*given, *(settings or [])])
    from ..augmentation.select import select as room

    devices = device.split(",")
    if anyway:
        found = room.anyway(recipe, run, data_root, anyway, devices)
    else:
        found = room.select(recipe, run, data_root, devices, workers or len(devices))
    written = [found.folder] if found.folder else []
    if found.report:
        found.report.show()
        written = [run / "select.md", run / "curve.png", *written]
    print(found.verdict)
    print(*written)
