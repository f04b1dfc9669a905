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
        typer.Option(help="Also estimate what training this part will take on this machine."),
    ] = None,
    preset: Annotated[Literal["paper", "bundled"], typer.Option(help="Preset of that recipe.")] = "paper",
    folder: Annotated[Path, typer.Option(help="Folder for runs; free space is checked there.")] = Path(),
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Check whether this machine is ready and say what to do; with --recipe, estimate what a training will take.

    The exit code is 3 if a required package is missing.
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
        print("cytosynth: not ready; see the lines marked missing", file=sys.stderr)
        raise typer.Exit(3)
