"""The lines that a run writes by step (`stats.jsonl` and similar), and their truncation when it continues."""

import json
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from pydantic import BaseModel, ValidationError

from . import atomic, plain

M = TypeVar("M", bound=BaseModel)
STATS, TIMING = "stats.jsonl", "timing.jsonl"


def append(path: Path, entry: dict[str, Any]) -> None:
    """Write `entry` as a line at the end of `path`."""
    with atomic.opened(path, "ab") as file:
        file.write((json.dumps(entry) + "\n").encode())


def truncate(path: Path, step: int) -> None:
    """Drop the lines written after `step`, the checkpoint from which the run continues, and those without a step."""
    if path.exists():
        kept = [entry for entry in with_number(path, "step") if entry["step"] <= step]
        atomic.write_text(path, "".join(json.dumps(entry) + "\n" for entry in kept))


def with_number(path: Path, name: str) -> Iterator[dict[str, Any]]:
    """Yield the entries at `path` that have a number of this `name`; raise UserError as `plain.lines` does."""
    for entry in plain.lines(path):
        if isinstance(entry, dict) and isinstance(entry.get(name), int | float):
            yield entry


def typed(kind: type[M], path: Path) -> Iterator[M]:
    """Yield the lines at `path` that are a `kind`, others are dropped; raise UserError as `plain.lines` does."""
    for entry in plain.lines(path):
        try:
            found = kind.model_validate(entry)
        except ValidationError:
            continue
        yield found


def seconds(run: Path) -> list[float]:
    """Return how long the steps in `timing.jsonl` of the folder `run` took, ascending."""
    found = [float(entry["seconds"]) for entry in with_number(run / TIMING, "seconds")]
    return sorted(value for value in found if 0 <= value < math.inf)


BLOCK = 4096
"""Bytes of the end of a file that are looked at first."""


def append_line(path: Path, value: Mapping[str, Any]) -> None:
    """Add `value` as a line of JSON; an incomplete last line, left by a kill, is removed first."""
    with atomic.opened(path, "a+b") as file:
        _mend(file)
        file.write(line(value).encode())


def _mend(file: BinaryIO) -> None:
    """Remove what follows the last line end of `file`, or add a line end if it is a complete value."""
    end = file.seek(0, os.SEEK_END)
    tail, length = b"", BLOCK
    while len(tail) < end and b"\n" not in tail:
        file.seek(max(0, end - length))
        tail, length = file.read(), 2 * length
    cut = tail[tail.rfind(b"\n") + 1 :]
    if cut:
        try:
            json.loads(cut)
            file.write(b"\n")
        except (ValueError, RecursionError):
            file.truncate(end - len(cut))


def line(value: Mapping[str, Any]) -> str:
    """Return `value` as a line of JSON, its keys in order."""
    return json.dumps(value, sort_keys=True) + "\n"
