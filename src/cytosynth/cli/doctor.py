"""`cytosynth doctor`."""

import json
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich import get_console
from rich.markup import escape

from ..errors import UsageError
from . import app

PARTS = ("normal", "cell", "distill-normal", "distill-cell", "detector", "synthesize")
MARKS = {"ready": "[green]ready[/green]", "note": "[yellow]note[/yellow]", "missing": "[red]missing[/red]"}


@app.command()
def doctor(
    recipe: Annotated[
        list[str] | None,
        typer.Option(help=f"Also estimate what this will take here: {', '.join(PARTS)}; may be repeated."),
    ] = None,
    preset: Annotated[
        Literal["paper", "paper-24gb", "bundled"], typer.Option(help="Preset of that recipe.")
    ] = "bundled",
    foundation: Annotated[
        str | None, typer.Option(help="Foundation of that recipe. \\[default: as the preset says]")
    ] = None,
    images: Annotated[int, typer.Option(min=1, help="Images to train a detector on.")] = 1000,
    count: Annotated[int, typer.Option(min=1, help="Images to synthesize.")] = 1000,
    folder: Annotated[Path, typer.Option(help="Folder for runs; free space is checked there.")] = Path(),
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Check whether this machine is ready and say what to do; with --recipe, estimate what a training will take.

    The exit code is 3 if a required package is missing.
    """
    for part in recipe or []:
        if part not in PARTS:
            raise UsageError(f"--recipe {part}: unknown; choose one of {', '.join(PARTS)}")
    from ..readiness.estimates import needs
    from ..readiness.machine import examine

    found = examine(folder)
    for part in recipe or []:
        found += needs(part, preset, folder, foundation=foundation, images=images, count=count)
    if as_json:
        print(json.dumps([line._asdict() for line in found], indent=1))
    else:
        for line in found:
            todo = f"  [dim]{escape(line.todo)}[/dim]" if line.todo else ""
            text = f"{MARKS[line.state]}  {escape(line.what)}: {escape(line.found)}{todo}"
            get_console().print(text, soft_wrap=True)  # commands and paths can be copied
    if any(line.state == "missing" for line in found):
        print("cytosynth: not ready; see the lines marked missing", file=sys.stderr)
        raise typer.Exit(3)
