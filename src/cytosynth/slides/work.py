"""The progress of a slide, from which a killed run continues, in a hidden folder until the slide is written."""

import math
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..io import atomic, plain

FOLDER = ".work"
PROGRESS = "progress.json"


class Paused(Exception):
    """The time limit of a run is reached; its work is on disk."""


@dataclass(frozen=True)
class Work:
    """The folder of unfinished work.

    Attributes:
        folder: that holds it.
        deadline: second of the monotonic clock from which on the run stops as soon as something is on disk.
    """

    folder: Path
    deadline: float = math.inf

    @classmethod
    def of(cls, out: Path, max_minutes: float | None = None) -> "Work":
        """Return the folder of the run `out`, made where it is not there; the run may take `max_minutes`."""
        folder = out / FOLDER
        folder.mkdir(exist_ok=True)
        return cls(folder, math.inf if max_minutes is None else time.monotonic() + 60 * max_minutes)

    def done(self, stage: str) -> int:
        """Return how much of `stage` is on disk; 0 where none is, or a file was damaged."""
        value = self._read().get(stage)
        return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0

    def finished(self, stage: str, count: int) -> None:
        """Record that `count` parts of `stage` are on disk; raise Paused if the time is over."""
        atomic.write_json(self.folder / PROGRESS, self._read() | {stage: count})
        self.pause()

    def pause(self) -> None:
        """Raise Paused where the time is over."""
        if time.monotonic() >= self.deadline:
            raise Paused

    def remove(self) -> None:
        """Remove all of it."""
        shutil.rmtree(self.folder)

    def _read(self) -> dict[str, Any]:
        path = self.folder / PROGRESS
        return plain.load(path) if path.exists() else {}
