"""The lines that a run writes by step (`stats.jsonl` and the like), and what becomes of them when it continues."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..data import atomic, plain

STATS, TIMING = "stats.jsonl", "timing.jsonl"


def append(path: Path, entry: dict[str, Any]) -> None:
    """Write `entry` as a line at the end of `path`."""
    with atomic.opened(path, "ab") as file:
        file.write((json.dumps(entry) + "\n").encode())


def truncate(path: Path, step: int) -> None:
    """Drop the lines written after `step`, the checkpoint from which the run continues, and those that say no step."""
    if path.exists():
        kept = [entry for entry in with_number(path, "step") if entry["step"] <= step]
        atomic.write_text(path, "".join(json.dumps(entry) + "\n" for entry in kept))


def with_number(path: Path, name: str) -> Iterator[dict[str, Any]]:
    """Yield the entries at `path` that have a number of this `name`; raise UserError as `plain.lines` does."""
    for entry in plain.lines(path):
        if isinstance(entry, dict) and isinstance(entry.get(name), int | float):
            yield entry


def seconds(run: Path) -> list[float]:
    """Return how long the steps in `timing.jsonl` of the folder `run` took, ascending."""
    found = [float(entry["seconds"]) for entry in with_number(run / TIMING, "seconds")]
    return sorted(value for value in found if 0 <= value < math.inf)
