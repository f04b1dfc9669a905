"""`cytosynth synthesize` and `cytosynth edit`."""

from pathlib import Path
from typing import Annotated

import typer

from ..settings import PipelineSettings, check
from ..training.recipe import override
from . import app

Out = Annotated[Path, typer.Argument(help="Data set folder; the same command again continues it.")]
Model = Annotated[str, typer.Option(help="Folder of the model, or 'bundled'.")]
Foundation = Annotated[str, typer.Option(help="Stable Diffusion 1.x: 'bundled', folder, .safetensors, hub id.")]
Seed = Annotated[int, typer.Option(min=0, max=2**63 - 1, help="Seed of the whole run.")]
Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:1, mps ...")]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change a setting: cell.steps=50, most=3 ..."),
]


@app.command()
def synthesize(
    out: Out,
    count: Annotated[int, typer.Option(min=1, help="Images in all.")] = 10,
    start: Annotated[int, typer.Option(min=0, help="Number of the first image.")] = 0,
    seed: Seed = 0,
    foundation: Foundation = "bundled",
    normal: Annotated[str, typer.Option(help="LoRA of stage 1: folder, file, 'bundled' or 'none'.")] = "bundled",
    cell: Model = "bundled",
    detector: Model = "bundled",
    device: Device = "cpu",
    settings: Settings = None,
) -> None:
    """Make an annotated data set: normal fields, some of whose cells are edited into abnormal ones."""
    chosen = _settings(PipelineSettings(seed=seed), settings)
    from .. import pipeline

    pipeline.synthesize(
        out, count=count, start=start, settings=chosen, foundation=foundation, normal=normal, cell=cell,
        detector=detector, device=device,
    )  # fmt: skip


@app.command()
def edit(
    images: Annotated[Path, typer.Argument(help="Folder of normal images, or a COCO data set.")],
    out: Out,
    seed: Seed = 0,
    foundation: Foundation = "bundled",
    cell: Model = "bundled",
    detector: Model = "bundled",
    device: Device = "cpu",
    scale: Annotated[float, typer.Option(min=0.01, max=8, help="Factor that brings the images to x20.")] = 1.0,
    label: Annotated[str | None, typer.Option(help="Of a COCO set, take images of this image-level label.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Take only the first so many.")] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Stop at an image that cannot be used.")] = False,
    settings: Settings = None,
) -> None:
    """Real-to-synthetic: edit cells of your own normal images into abnormal ones (stage 2 alone)."""
    chosen = _settings(PipelineSettings(seed=seed, scale=scale), settings)
    from .. import pipeline

    pipeline.edit(
        images, out, settings=chosen, foundation=foundation, cell=cell, detector=detector, device=device,
        label=label, limit=limit, strict=strict,
    )  # fmt: skip


def _settings(base: PipelineSettings, changes: list[str] | None) -> PipelineSettings:
    settings = override(base, changes or [])
    check(settings)
    return settings
