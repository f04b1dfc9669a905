"""The lines that a run writes by step (`stats.jsonl` and the like), and what becomes of them when it continues."""

import json
from pathlib import Path
from typing import Any

from ..data import atomic


def append(path: Path, entry: dict[str, Any]) -> None:
    """Write `entry` as a line at the end of `path`."""
    with atomic.opened(path, "ab") as file:
        file.write((json.dumps(entry) + "\n").encode())


def truncate(path: Path, step: int) -> None:
    """Drop the lines written after `step`, the checkpoint from which the run continues, and one cut short."""
    if path.exists():
        lines = [line for line in path.read_text().splitlines() if line.endswith("}")]
        kept = [line for line in lines if json.loads(line)["step"] <= step]
        atomic.write_text(path, "".join(line + "\n" for line in kept))
