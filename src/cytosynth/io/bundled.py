"""The place of a model: in this package, in a run folder, or in its own folder."""

import os
from functools import cache
from importlib.resources import files
from pathlib import Path

from ..errors import UsageError, UserError
from .progress import console

BUNDLED = "bundled"
"""The name of the models in the package."""
LIQUID = "bundled-liquid"
"""The name of those of them that are for liquid-based preparations; where there is none, the model of `BUNDLED`."""
PREPARATIONS = {"conventional": BUNDLED, "liquid": LIQUID}
"""The name of the bundled models by preparation."""
RECIPE, WEIGHTS = "recipe.yaml", ("best", "weights")
"""A run folder: the file that identifies it, and its weights, the best ones first."""


def bundled(name: str) -> Path:
    """Return the folder of the bundled model `name` ('foundation', 'normal', 'cell', 'detector', 'classifier')."""
    path = Path(str(files("cytosynth"))) / "bundled" / name
    if not path.is_dir():
        raise UserError(f"bundled model '{name}' is not in this installation; give a folder instead")
    return path


def model_folder(name: str, role: str) -> Path:
    """Return where the model `name` of `role` is: the bundled one, a run folder's weights, or the path itself.

    Of a run folder the best weights are taken, else the last; a line says which, once in a process.
    """
    if name == LIQUID and (Path(str(files("cytosynth"))) / "bundled" / f"{role}_liquid").is_dir():
        return bundled(f"{role}_liquid")
    if name in PREPARATIONS.values():
        return bundled(role)
    path = Path(name)
    run = path / "denoiser" if (path / "denoiser" / RECIPE).is_file() else path
    if (run / RECIPE).is_file():
        for weights in WEIGHTS:
            if (run / weights).is_dir():
                _say(f"{name}: a run folder; its {weights} are used")
                return run / weights
    return path


@cache
def _say(line: str) -> None:
    """Print `line` when it is first asked for: a model is looked up wherever its card or weights are needed."""
    console.print(line, soft_wrap=True)


def cache_folder() -> Path:
    """Return the folder of cached features: below XDG_CACHE_HOME, or `.cache` of the user's home."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "cytosynth" / "features"


def of_preparation(preparation: str, name: str) -> str:
    """Return the model `name`, or where that is the bundled one, the bundled one for that `preparation`.

    Raises UsageError for an unknown preparation, and for one given with another model.
    """
    if preparation not in PREPARATIONS:
        raise UsageError(f"--preparation {preparation}: unknown; choose from {', '.join(PREPARATIONS)}")
    chosen = PREPARATIONS[preparation]
    if chosen != BUNDLED and name not in (BUNDLED, chosen):
        raise UsageError(
            f"--preparation {preparation} selects a bundled adapter, and --normal {name} another; give one"
        )
    return chosen if name == BUNDLED else name
