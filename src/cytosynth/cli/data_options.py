"""Options of every command that reads data sets: where annotations and images lie, and what images are called."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import UsageError
from . import there

if TYPE_CHECKING:
    from ..data.pseudonyms import Pseudonyms


def _given(path: Path | None) -> Path | None:
    return None if path is None else there(path)


Annotations = Annotated[
    Path | None,
    typer.Option(callback=_given, help="COCO file, YOLO's YAML or labels, or VOC folder. \\[default: detected]"),
]
ImageFolder = Annotated[
    Path | None, typer.Option("--images", callback=_given, help="Folder of the annotated images. \\[default: detected]")
]
Recursive = Annotated[bool, typer.Option("--recursive", help="Also read images in subfolders.")]
Pseudonymise = Annotated[
    bool,
    typer.Option("--pseudonymise", help="Replace file names of originals in all output by keyed hashes."),
]
Key = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Key file of --pseudonymise, created if missing. Keep it safe and secret. "
        "\\[default: cytosynth/pseudonym.key in the configuration folder]",
    ),
]


def pseudonyms(wanted: bool, key: Path | None) -> "Pseudonyms | None":
    """Return the pseudonyms by `key`, None if not `wanted`; raise UsageError for a key without --pseudonymise."""
    from ..data.pseudonyms import Pseudonyms, usual

    if key and not wanted:
        raise UsageError(f"--key {key}: needs --pseudonymise")
    return Pseudonyms.load(key or usual()) if wanted else None
