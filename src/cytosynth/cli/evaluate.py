"""`cytosynth evaluate reconstruction|detection`."""

import json
from pathlib import Path
from typing import Annotated

import typer

from . import app

evaluate_app = typer.Typer(help="Measure a model on held-out data.", no_args_is_help=True)
app.add_typer(evaluate_app, name="evaluate")

Data = Annotated[Path, typer.Argument(help="COCO data set.")]
Split = Annotated[str, typer.Option(help="Part of its split.json: train, val, test; or all.")]
Scale = Annotated[float, typer.Option(min=0.01, max=8, help="Factor that brings the images to x20.")]


@evaluate_app.command()
def reconstruction(
    data: Data,
    foundation: Annotated[str, typer.Option(help="Foundation whose autoencoder is measured.")] = "bundled",
    split: Split = "test",
    scale: Scale = 1.0,
    sheet: Annotated[Path | None, typer.Option(help="PNG to write: originals above reconstructions.")] = None,
) -> None:
    """PSNR of images that the autoencoder encodes and decodes."""
    from ..data import sources
    from ..foundation.load import load
    from ..foundation.reconstruction import measure
    from ..training.recipe import Source

    samples = sources.load([Source(root=data.name, scale=scale, split=split)], data.parent)
    print(json.dumps(measure(load(foundation).freeze().vae, samples, sheet).summary()))


@evaluate_app.command()
def detection(
    data: Data,
    detector: Annotated[str, typer.Option(help="Folder of the detector, or 'bundled'.")] = "bundled",
    split: Split = "test",
    scale: Scale = 1.0,
) -> None:
    """COCO average precision of a detector."""
    from dataclasses import asdict

    from ..data import sources
    from ..detect import model
    from ..detect.train import measure
    from ..foundation.load import bundled
    from ..foundation.recipe import BUNDLED
    from ..training.recipe import Source

    samples = sources.load([Source(root=data.name, scale=scale, split=split)], data.parent)
    found = model.load(bundled("detector") if detector == BUNDLED else Path(detector))
    scores = measure(found, samples)
    print(json.dumps({"pictures": len(samples)} | {k: _short(v) for k, v in asdict(scores).items()}))


def _short(value: object) -> object:
    if isinstance(value, dict):
        return {key: _short(inner) for key, inner in value.items()}
    return None if value != value else round(float(value), 4)  # type: ignore[arg-type]
