"""Options that several commands share, defined once."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from ..errors import UsageError
from ..registry import SAMPLERS
from . import there

Run = Annotated[Path, typer.Argument(help="Run folder; the same command continues it.")]
Out = Annotated[Path, typer.Argument(help="Data set folder; the same command continues it.")]
Preset = Annotated[Literal["paper", "bundled"], typer.Option(help="Recipe to start from.")]
TrainPreset = Annotated[Literal["paper", "paper-24gb", "bundled"], typer.Option(help="Recipe to start from.")]
DataRoot = Annotated[Path, typer.Option(callback=there, help="Folder that contains the data sets named in the recipe.")]
Settings = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change a setting.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps ...")]
Devices = Annotated[str, typer.Option(help="auto, cpu, or cuda:0,cuda:1 ...: trainings are distributed over them.")]
Workers = Annotated[
    int | None,
    typer.Option(min=1, max=64, help="Trainings that run at the same time. \\[default: one for each device]"),
]
Precision = Annotated[
    Literal["auto", "fp32", "bf16", "fp16"] | None,
    typer.Option(
        help="Precision of the diffusion networks; auto: bf16 if this machine is fast at it. \\[default: auto]"
    ),
]
KeepAbnormal = Annotated[
    bool,
    typer.Option(
        "--keep-abnormal",
        help="Also use images with annotated abnormal cells; these stay as they are, with their boxes.",
    ),
]
Compile = Annotated[
    bool | None, typer.Option("--compile", help="Compile the networks: takes minutes at the start, faster afterwards.")
]
Engine = Annotated[
    Literal["torch", "openvino"] | None,
    typer.Option(
        help="What computes the diffusion networks; openvino: on CPUs, needs the extra \\[openvino]. \\[default: torch]"
    ),
]
Decoder = Annotated[
    str | None,
    typer.Option(help="A tiny decoder (AutoencoderTiny) for the foundation's latents: folder or hub id."),
]
Seed = Annotated[int | None, typer.Option(min=0, max=2**63 - 1, help="Random seed of the run. \\[default: 0]")]
Sampler = Annotated[str | None, typer.Option(help=f"One of {', '.join(SAMPLERS)}. \\[default: ddim]")]
Scale = Annotated[float, typer.Option(min=0.01, max=8, help="Resize images by this factor, to bring them to x20.")]
Model = Annotated[str, typer.Option(help="Folder of a model or of its training run, or 'bundled'.")]
Foundation = Annotated[
    str, typer.Option(help="Stable Diffusion 1.x: 'bundled', a folder, a .safetensors file, or a hub id.")
]
Normal = Annotated[str, typer.Option(help="Adapter of stage 1: a folder, a file, 'bundled' or 'none'.")]
FastOption = Annotated[
    bool,
    typer.Option("--fast", help="Use few sampler steps, with the bundled distilled weights (docs/distillation.md)."),
]
FastNormal = Annotated[
    str | None, typer.Option(help="Distilled weights of stage 1: folder or run of `distill normal`, or an LCM-LoRA.")
]
FastCell = Annotated[
    str | None, typer.Option(help="Distilled weights of stage 2: folder or run of `distill cell`, or an LCM-LoRA.")
]
Preparation = Annotated[
    Literal["conventional", "liquid"],
    typer.Option(help="Preparation that bundled fields look like: conventional smear or liquid-based."),
]
Label = Annotated[str | None, typer.Option(help="Use only images with this image-level label (COCO).")]
Strict = Annotated[bool, typer.Option("--strict", help="Stop at the first image that cannot be used.")]
Mpp = Annotated[
    float | None, typer.Option(min=0.05, max=5, help="Micrometres per pixel of slides whose files do not state it.")
]
PackOption = Annotated[
    Literal["webdataset", "parquet"] | None,
    typer.Option("--to", help="Also pack the finished data set into OUT/webdataset or OUT/parquet."),
]
RayOption = Annotated[
    str | None,
    typer.Option(
        "--ray",
        metavar="local|ADDRESS",
        help="Use a Ray cluster: started on this machine (local), or running at ADDRESS.",
    ),
]
ShardOption = Annotated[
    str | None,
    typer.Option("--shard", metavar="I/N", help="Make only shard I of N; `merge` joins the shards."),
]


def renamed(old: str, new: str) -> Any:
    """Return the hidden option `old` of 0.1.0, which is refused with the name that it has now: `new`."""

    def refuse(value: str | None) -> None:
        if value is not None:
            raise UsageError(f"{old}: this option is now called {new}")

    return typer.Option(old, hidden=True, callback=refuse)


def without_effect(why: str, options: dict[str, object]) -> None:
    """Raise UsageError for an option that is given and changes nothing, with the reason `why`."""
    for name, value in options.items():
        if value is not None:
            raise UsageError(f"{why}; leave {name} out")
