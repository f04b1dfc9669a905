"""`cytosynth slide`."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from ..adapters.distilled import Stage
from ..io.bundled import of_preparation
from ..synthesis import fast as fasts
from . import app, finish
from .options import (
    Compile,
    DataRoot,
    Decoder,
    Device,
    Engine,
    FastCell,
    FastNormal,
    FastOption,
    Foundation,
    Model,
    Normal,
    Out,
    Precision,
    Preparation,
    Sampler,
    Seed,
    Settings,
    without_effect,
)
from .pipeline_options import UNGATED, Counts, GateFolder, Tries, pipeline_settings, sampler_of


@app.command()
def slide(
    out: Out,
    width: Annotated[int, typer.Option(min=256, help="Width in pixels at x20 (0.49 µm per pixel).")] = 32768,
    height: Annotated[int, typer.Option(min=256, help="Height in pixels at x20.")] = 32768,
    seed: Seed = None,
    plan: Annotated[
        Path | None, typer.Option(help="plan.json of one image, which lists the cells and their categories.")
    ] = None,
    counts: Counts = None,
    density_map: Annotated[
        str, typer.Option(help="Cell density: full, disc, or a grey image (white: most cells).")
    ] = "full",
    windows: Annotated[
        str, typer.Option(help="shifted (SpotDiffusion), or overlapping (MultiDiffusion, four times the cost).")
    ] = "shifted",
    jpeg: Annotated[
        int | None, typer.Option(min=50, max=100, help="Compress as JPEG of this quality. \\[default: lossless]")
    ] = None,
    ome: Annotated[bool, typer.Option("--ome", help="Also write an OME-TIFF.")] = False,
    foundation: Foundation = "bundled",
    preparation: Preparation = "conventional",
    normal: Normal = "bundled",
    cell: Model = "bundled",
    detector: Model = "bundled",
    gate: GateFolder = "none",
    tries: Tries = None,
    data_root: DataRoot = Path(),
    sampler: Sampler = None,
    fast: FastOption = False,
    fast_normal: FastNormal = None,
    fast_cell: FastCell = None,
    precision: Precision = None,
    compiled: Compile = None,
    engine: Engine = None,
    decoder: Decoder = None,
    device: Device = "auto",
    max_minutes: Annotated[
        float | None, typer.Option(min=0, help="Stop after N minutes; the same command continues.")
    ] = None,
    settings: Settings = None,
) -> None:
    """Make a whole slide: one coherent field of normal cells, some of them (--counts) edited into abnormal ones."""
    from ..config import validated
    from ..slides.settings import SlideSettings

    without_effect(UNGATED, {"--tries": tries if gate == "none" else None})
    if not (plan or counts):
        without_effect("no cell is edited without --counts or --plan", {"--gate": None if gate == "none" else gate})
    weights: dict[Stage, str | None] = {"normal": fast_normal}
    if plan or counts or fast_cell:
        weights["cell"] = fast_cell
    few = fasts.asked(fast, weights, {"foundation": foundation, "normal": normal, "cell": cell})
    given: dict[str, object] = {"seed": seed, "precision": precision, "compiled": compiled, "engine": engine}
    given |= sampler_of(sampler, "normal", "cell")
    chosen = pipeline_settings(plan, given, counts, tries, settings, cell, few)
    values = {"width": width, "height": height, "windows": windows, "density_map": density_map, "ome": ome}
    values |= {"compression": "lossless" if jpeg is None else "jpeg", "quality": jpeg or 90, "pipeline": chosen}
    wanted = validated(SlideSettings, values, "slide")
    wanted.check()
    from ..slides import commands
    from ..slides.work import Paused

    try:
        data = commands.slide(
            out, wanted, plan=plan, foundation=foundation, normal=of_preparation(preparation, normal), cell=cell,
            detector=detector, gate=gate, data_root=data_root, decoder=decoder, device=device,
            max_minutes=max_minutes, fast=few,
        )  # fmt: skip
    except Paused:
        print(f"{out}: stopped after {max_minutes:g} minutes; the same command continues", file=sys.stderr)
        return
    finish(data, out, "README.md")
