"""A line of `cytosynth doctor`, and the values that both of its halves use."""

import shutil
from pathlib import Path
from typing import Literal, NamedTuple

import psutil

GIB = 2**30


class Line(NamedTuple):
    """The requirement, whether it is met, what was found, and what to do."""

    what: str
    state: Literal["ready", "note", "missing"]
    found: str
    todo: str = ""


def memory() -> float:
    """Return the machine's memory, GB."""
    return float(psutil.virtual_memory().total) / GIB


def disk(folder: Path, wanted: float) -> Line:
    """Return whether the disk of `folder` has the GB that are `wanted`."""
    there = next(path for path in (folder.resolve(), *folder.resolve().parents) if path.exists())
    free = shutil.disk_usage(there).free / GIB
    todo = "" if free >= wanted else f"{wanted:.2g} GB are needed"
    return Line("disk", "ready" if free >= wanted else "note", f"{free:.0f} GB free, {wanted:.2g} GB needed", todo)
