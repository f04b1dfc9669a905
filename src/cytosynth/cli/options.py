"""Options that several commands share, defined once."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from ..registry import SAMPLERS
from . import there

Run = Annotated[Path, typer.Argument(help="Run folder; the same command again continues it.")]
Out = Annotated[Path, typer.Argument(help="Data set folder; the same command again continues it.")]
Preset = Annotated[Literal["paper", "bundled"], typer.Option(help="Recipe to start from.")]
DataRoot = Annotated[Path, typer.Option(callback=there, help="Folder that holds the data sets which the recipe names.")]
Settings = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change a setting.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps ...")]
Devices = Annotated[str, typer.Option(help="auto, cpu, or cuda:0,cuda:1 ...: trainings go to them in turn.")]
Workers = Annotated[int | None, typer.Option(min=1, max=64, help="Trainings at a time; none: one on each device.")]
Seed = Annotated[int | None, typer.Option(min=0, max=2**63 - 1, help="Seed of the whole run. \\[default: 0]")]
Sampler = Annotated[str | None, typer.Option(help=f"One of {', '.join(SAMPLERS)}. \\[default: ddim]")]
Scale = Annotated[float, typer.Option(min=0.01, max=8, help="Factor that brings the images to x20.")]
Model = Annotated[str, typer.Option(help="Folder of the model or its training run, or 'bundled'.")]
Foundation = Annotated[str, typer.Option(help="Stable Diffusion 1.x: 'bundled', folder, .safetensors, hub id.")]
Normal = Annotated[str, typer.Option(help="Adapter of stage 1: folder, file, 'bundled' or 'none'.")]
Label = Annotated[str | None, typer.Option(help="Of a COCO set, take images of this image-level label.")]
Strict = Annotated[bool, typer.Option("--strict", help="Stop at an image that cannot be used.")]
Mpp = Annotated[float | None, typer.Option(min=0.05, max=5, help="Microns per pixel of slides whose files do not say.")]
PackOption = Annotated[
    Literal["webdataset", "parquet"] | None,
    typer.Option("--to", help="Pack the finished set too: into OUT/webdataset or OUT/parquet."),
]
RayOption = Annotated[
    str | None,
    typer.Option("--ray", metavar="local|ADDRESS", help="Work on a Ray cluster: one on this machine, or at ADDRESS."),
]
ShardOption = Annotated[
    str | None,
    typer.Option("--shard", metavar="I/N", help="Make shard I of N only; `merge` joins them."),
]
