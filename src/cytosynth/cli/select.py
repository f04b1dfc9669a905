"""`cytosynth select`."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from ..augmentation.select.recipe import PRESETS
from ..config import override
from . import app, there


@app.command()
def select(
    run: Annotated[Path, typer.Argument(help="Run folder; the same command again continues it.")],
    synthetic: Annotated[
        list[str] | None, typer.Option(help="Synthetic data set below --data-root; may be repeated.")
    ] = None,
    detector: Annotated[
        str | None, typer.Option(help="Folder of your current detector; none: trained first on the real images.")
    ] = None,
    preset: Annotated[Literal["paper", "bundled"], typer.Option(help="Recipe to start from.")] = "bundled",
    data_root: Annotated[
        Path, typer.Option(callback=there, help="Folder that holds the data sets of the recipe.")
    ] = Path(),
    anyway: Annotated[
        float | None, typer.Option(min=0.001, metavar="RATIO", help="Write so many by rank; do not ask if they help.")
    ] = None,
    device: Annotated[str, typer.Option(help="cpu, or cuda:0,cuda:1 ...: trainings go to them in turn.")] = "cpu",
    workers: Annotated[
        int | None, typer.Option(min=1, max=64, help="Trainings at a time; none: one on each device.")
    ] = None,
    settings: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change a setting.")] = None,
) -> None:
    """How much and which synthetic data to add: ranks the images, finds the ratio that helps, writes those images.

    Images come first of which the current detector is unsure and that lie near real ones. Their number grows until it
    no longer surely helps on the validation part; the test part is never looked at. Where nothing helps, nothing is
    written but the curve.
    """
    given = [f"synthetic={synthetic}"] if synthetic else []
    given += [f"detector={detector}"] if detector else []
    recipe = override(PRESETS[preset], [*given, *(settings or [])])
    from ..augmentation.select import select as room

    devices = device.split(",")
    if anyway:
        found = room.anyway(recipe, run, data_root, anyway, devices)
    else:
        found = room.select(recipe, run, data_root, devices, workers or len(devices))
    if found.report:
        found.report.show()
        print(f"{run}/select.md {run}/curve.png")
    print(found.verdict)
    if found.folder:
        print(found.folder)
