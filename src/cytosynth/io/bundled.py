"""Where the models in this package are."""

from importlib.resources import files
from pathlib import Path

from ..errors import UserError


def bundled(name: str) -> Path:
    """Return the folder of the bundled model `name` ('foundation', 'normal', 'cell', 'detector')."""
    path = Path(str(files("cytosynth"))) / "bundled" / name
    if not path.is_dir():
        raise UserError(f"bundled model '{name}' is not in this installation; give a folder instead")
    return path
