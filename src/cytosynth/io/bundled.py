"""Where a model is: in this package, in a run folder, or in its own folder."""

import os
from importlib.resources import files
from pathlib import Path

from ..errors import UserError
from .progress import console

BUNDLED = "bundled"
"""The name of the models in the package."""
RECIPE, WEIGHTS = "recipe.yaml", ("best", "weights")
"""Of a run folder: what tells it, and its weights, the best ones first."""


def bundled(name: str) -> Path:
    """Return the folder of the bundled model `name` ('foundation', 'normal', 'cell', 'detector', 'classifier')."""
    path = Path(str(files("cytosynth"))) / "bundled" / name
    if not path.is_dir():
        raise UserError(f"bundled model '{name}' is not in this installation; give a folder instead")
    return path


def model_folder(name: str, role: str) -> Path:
    """Return where the model `name` of `role` is: the bundled one, a run folder's weights, or the path itself.

    Of a run folder the best weights are taken, else the last; a line says which.
    """
    if name == BUNDLED:
        return bundled(role)
    path = Path(name)
    run = path / "denoiser" if (path / "denoiser" / RECIPE).is_file() else path
    if (run / RECIPE).is_file():
        for weights in WEIGHTS:
            if (run / weights).is_dir():
                console.print(f"{name}: a run folder; its {weights} are used", soft_wrap=True)
                return run / weights
    return path


def cache_folder() -> Path:
    """Return the folder of cached features: below XDG_CACHE_HOME, or `.cache` of the user's home."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "cytosynth" / "features"
