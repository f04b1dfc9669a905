"""How far a slide is: what a killed run continues from, kept in a hidden folder until the slide is written."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..io import atomic, plain

FOLDER = ".work"
PROGRESS = "progress.json"


@dataclass(frozen=True)
class Work:
    """The folder of what is not finished."""

    folder: Path

    @classmethod
    def of(cls, out: Path) -> "Work":
        """Return the folder of the run `out`, made where it is not there."""
        folder = out / FOLDER
        folder.mkdir(exist_ok=True)
        return cls(folder)

    def done(self, stage: str) -> int:
        """Return how much of `stage` is on disk; 0 where none is, or a file was damaged."""
        value = self._read().get(stage)
        return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0

    def finished(self, stage: str, count: int) -> None:
        """Say that `count` parts of `stage` are on disk."""
        atomic.write_json(self.folder / PROGRESS, self._read() | {stage: count})

    def remove(self) -> None:
        """Remove all of it."""
        shutil.rmtree(self.folder)

    def _read(self) -> dict[str, Any]:
        path = self.folder / PROGRESS
        return plain.load(path) if path.exists() else {}
