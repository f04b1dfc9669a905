"""MkDocs hook: writes the page `commands.md`, the reference of every command, from the commands themselves."""

import pkgutil
from importlib import import_module

import typer
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from typer.cli import get_docs_for_click

from cytosynth import cli

PAGE = "commands.md"
INTRODUCTION = (
    "# Commands\n\nGenerated from the program. `cytosynth COMMAND --help` prints the same. What the exit codes mean is "
    "in [reliability](reliability.md#exit-codes).\n\n"
)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated page."""
    files.append(File.generated(config, PAGE, content=INTRODUCTION + reference()))
    return files


def reference() -> str:
    """Return usage, arguments and options of every command, a second-level section each."""
    for module in pkgutil.iter_modules(cli.__path__):
        import_module(f"{cli.__name__}.{module.name}")
    program = typer.main.get_command(cli.app)
    context = typer.Context(program, info_name="cytosynth")
    return get_docs_for_click(obj=program, ctx=context, indent=1, name="cytosynth")
