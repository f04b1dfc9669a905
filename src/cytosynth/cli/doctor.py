"""`cytosynth doctor`."""

import json
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich import print as show
from rich.markup import escape

from . import app

MARKS = {"ready": "[green]ready[/green]", "note": "[yellow]note[/yellow]", "missing": "[red]missing[/red]"}


@app.command()
def doctor(
    recipe: Annotated[
        Literal["normal", "cell"] | None,
        typer.Option(help="Part whose training is asked about: what it will take here."),
    ] = None,
    preset: Annotated[Literal["paper", "bundled"], typer.Option(help="Recipe of that part.")] = "paper",
    folder: Annotated[Path, typer.Option(help="Where runs will be written: its disk is looked at.")] = Path(),
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say whether this machine is ready, what is not, and what to do; with --recipe, what a training will take.

    Exit code 3 where something that is always needed is missing.
    """
    from ..readiness import examine, needs

    found = examine(folder)
    if recipe:
        found += needs(recipe, preset, folder)
    if as_json:
        print(json.dumps([line._asdict() for line in found], indent=1))
    else:
        for line in found:
            todo = f"  [dim]{escape(line.todo)}[/dim]" if line.todo else ""
            show(f"{MARKS[line.state]}  {escape(line.what)}: {escape(line.found)}{todo}")
    if any(line.state == "missing" for line in found):
        print("cytosynth: not ready; the lines marked missing say what to do", file=sys.stderr)
        raise typer.Exit(3)
