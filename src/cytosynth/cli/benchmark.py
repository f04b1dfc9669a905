"""`cytosynth benchmark`."""

import json
from pathlib import Path
from typing import Annotated

import typer

from ..errors import UsageError
from . import app
from .options import Compile, Decoder, Device, Engine, Foundation, Model, Normal, Precision, Sampler, Settings
from .pipeline_options import pipeline_settings, sampler_of


@app.command()
def benchmark(
    out: Annotated[Path, typer.Argument(help="Folder for the tables and the plot.")],
    quick: Annotated[
        bool, typer.Option("--quick", help="Finish in minutes: few, small images and few steps; not for reporting.")
    ] = False,
    counts: Annotated[
        str | None, typer.Option(metavar="N,...", help="Numbers of images per run. \\[default: 8,16,32]")
    ] = None,
    sides: Annotated[
        str | None, typer.Option(metavar="N,...", help="Sides of an image, pixels. \\[default: 512,1024,2048]")
    ] = None,
    cells: Annotated[int | None, typer.Option(min=1, help="Cells edited per image. \\[default: 8]")] = None,
    repeats: Annotated[
        int | None, typer.Option(min=1, help="Repetitions of each compared call; medians are reported. \\[default: 3]")
    ] = None,
    random_weights: Annotated[
        bool, typer.Option("--random-weights", help="Use networks of Stable Diffusion 1.5's size with random weights.")
    ] = False,
    foundation: Foundation = "bundled",
    normal: Normal = "bundled",
    cell: Model = "bundled",
    detector: Model = "bundled",
    decoder: Decoder = None,
    sampler: Sampler = None,
    precision: Precision = None,
    compiled: Compile = None,
    engine: Engine = None,
    device: Device = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print the tables as JSON.")] = False,
    settings: Settings = None,
) -> None:
    """Measure synthesis on this machine: seconds by stage, memory, share of the peak; compare with diffusers."""
    from ..benchmark import settings as benchmarks

    if random_weights and decoder:
        raise UsageError("--random-weights cannot be combined with --decoder, which decodes other latents")
    given = {"precision": precision, "compiled": compiled, "engine": engine, **sampler_of(sampler, "normal", "cell")}
    wanted = benchmarks.BenchmarkSettings(pipeline=pipeline_settings(None, given, None, None, settings, cell))
    if quick:
        wanted = benchmarks.quick(wanted)
    asked = {"counts": _numbers("--counts", counts), "sides": _numbers("--sides", sides), "cells": cells,
             "repeats": repeats}  # fmt: skip
    wanted = wanted.model_copy(update={key: value for key, value in asked.items() if value is not None})
    wanted.check()
    from ..benchmark.benchmark import benchmark as measure
    from ..synthesis.models import NONE, Models

    models = Models(foundation, cell, NONE, detector, normal, True, wanted.pipeline, Path(), device, decoder)
    tables = measure(out, wanted, models, random=random_weights)
    if as_json:
        print(json.dumps({name: table.content() for name, table in tables.items()}, indent=1))
        return
    for table in tables.values():
        table.show()
    print(f"{out}: speed.md, speed_count.md, speed_side.md, speed_diffusers.md and speed.png")


def _numbers(option: str, text: str | None) -> tuple[int, ...] | None:
    """Return the whole numbers of `8,16`; None where nothing is said."""
    if text is None:
        return None
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and len(part) < 7 for part in parts):
        raise UsageError(f"{option} {text[:40]}: expected whole numbers with commas between")
    return tuple(map(int, parts))
