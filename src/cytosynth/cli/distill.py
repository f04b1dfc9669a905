"""`cytosynth distill normal|cell`."""

from pathlib import Path
from typing import Annotated

import typer

from ..distill.recipe import CELL, NORMAL
from . import app
from .options import DataRoot, Device, Run, Settings, TrainPreset
from .train import Data, Minutes, Steps, ended, on, recipe_of

distill_app = typer.Typer(help="Distil a model for few sampler steps, or continue.", no_args_is_help=True)
app.add_typer(distill_app, name="distill")

Foundation = Annotated[
    str | None, typer.Option(help="Foundation of the teacher: folder, file, hub id. \\[default: as the preset says]")
]


@distill_app.command()
def normal(
    run: Run,
    data_root: DataRoot = Path(),
    preset: TrainPreset = "bundled",
    foundation: Foundation = None,
    normal: Annotated[
        str | None, typer.Option(help="The teacher's adapter: folder, file, run, 'bundled' or 'none'.")
    ] = None,
    data: Data = None,
    settings: Settings = None,
    device: Device = "auto",
    max_minutes: Minutes = None,
    max_steps: Steps = None,
) -> None:
    """Distil stage 1, a generator of normal fields with its adapter: 1 to 8 steps without guidance (LCM-LoRA).

    `--set phases=4 --set solver_steps=100` takes phased consistency (PCM) instead: 4 steps of DDIM.
    """
    chosen = recipe_of(NORMAL[preset], data, _given(settings, foundation=foundation, normal=normal), max_steps)
    from ..distill.normal import distill_normal

    on(device)
    ended(distill_normal(chosen, run, data_root, max_minutes))


@distill_app.command()
def cell(
    run: Run,
    data_root: DataRoot = Path(),
    preset: TrainPreset = "bundled",
    foundation: Foundation = None,
    cell: Annotated[str | None, typer.Option(help="The teacher: a synthesizer's folder or run, or 'bundled'.")] = None,
    data: Data = None,
    settings: Settings = None,
    device: Device = "auto",
    max_minutes: Minutes = None,
    max_steps: Steps = None,
) -> None:
    """Distil stage 2, a cell synthesizer under its conditions: 1 to 8 steps without guidance (LCM-LoRA).

    `--set phases=4 --set solver_steps=100` takes phased consistency (PCM) instead: 4 steps of DDIM.
    """
    chosen = recipe_of(CELL[preset], data, _given(settings, foundation=foundation, cell=cell), max_steps)
    from ..distill.cell import distill_cell

    on(device)
    ended(distill_cell(chosen, run, data_root, max_minutes))


def _given(settings: list[str] | None, **options: str | None) -> list[str]:
    """Return the `options` that are given as settings, before those of `--set`."""
    return [*(f"{key}={value}" for key, value in options.items() if value is not None), *(settings or [])]
