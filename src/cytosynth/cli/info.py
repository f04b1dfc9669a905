"""`cytosynth info`."""

import json
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any

import typer
from rich import get_console
from rich.markup import escape

from .. import __version__, registry
from ..errors import UsageError
from . import app

PACKAGES = ("torch", "torchvision", "diffusers", "transformers", "peft", "accelerate", "safetensors")


@app.command()
def info(
    topic: Annotated[
        str | None,
        typer.Argument(help="'formats': the file layouts of data sets that are read. \\[default: everything else]"),
    ] = None,
    licences: Annotated[
        bool, typer.Option("--licences", help="List the packages in use and the licences that they state.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List what can be chosen, which models are bundled, and the versions installed."""
    if licences:
        _licences(as_json)
        return
    if topic is not None:
        _formats(topic, as_json)
        return
    facts = collect()
    if as_json:
        print(json.dumps(facts, indent=1))
        return
    for title, values in facts.items():
        get_console().print(f"[bold]{title}[/bold]")
        for name, about in values.items() if isinstance(values, dict) else ((values, ""),):
            said = f"  [dim]{escape(str(about))}[/dim]" if about else ""
            get_console().print(f"  {escape(str(name))}{said}", soft_wrap=True)


def _licences(as_json: bool) -> None:
    """Print the packages that the program needs, those of installed extras too, and their licences."""
    from ..licences import packages

    found = packages()
    if as_json:
        print(json.dumps([one._asdict() for one in found], indent=1))
        return
    for one in found:
        print(f"{one.name} {one.version}: {one.licence}" + ("" if one.needed_by == "always" else f" [{one.needed_by}]"))


def _formats(topic: str, as_json: bool) -> None:
    """Print the tree of each layout of data sets that is known."""
    if topic != "formats":
        raise UsageError(f"info {topic}: unknown topic; the only one is 'formats'")
    from ..data.formats.layouts import trees

    if as_json:
        found = {kind: [{"tool": one.tool, "tree": list(one.tree)} for one in some] for kind, some in trees().items()}
        print(json.dumps(found, indent=1))
        return
    for kind, layouts in trees().items():
        print(f"{kind}: {registry.FORMATS_IN[kind]}")
        for layout in layouts:
            print(f"  {layout.tool}")
            print("\n".join(f"      {line}" for line in layout.tree))


def collect() -> dict[str, Any]:
    """Return everything `info` says."""
    return {
        "version": __version__,
        "presets": registry.PRESETS,
        "trainers": registry.PARTS,
        "adapters": dict(registry.ADAPTERS),
        "extractors": dict(registry.EXTRACTORS),
        "detectors": dict(registry.DETECTORS),
        "samplers": dict(registry.SAMPLERS),
        "tables": dict(registry.TABLES),
        "variations": dict(registry.VARIATIONS),
        "formats_in": dict(registry.FORMATS_IN),
        "formats_out": dict(registry.FORMATS_OUT),
        "formats_packed": dict(registry.FORMATS_PACKED),
        "categories": list(registry.VOCABULARY),
        "bundled": {name: _size(name) for name in registry.BUNDLED},
        "packages": {name: _version(name) for name in PACKAGES},
    }


def _size(name: str) -> str:
    folder = Path(str(files("cytosynth"))) / "bundled" / name
    if not folder.is_dir():
        return "missing"
    return f"{sum(path.stat().st_size for path in folder.rglob('*') if path.is_file()) / 1e6:.1f} MB"


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "missing"
