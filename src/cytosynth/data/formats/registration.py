"""The readers and writers of data sets by the name of their format, as the registry lists them.

A new format is one file, with a `read` or a `WRITER`, and one line of the registry.
"""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from ...annotations import DataSet
from ...errors import UsageError
from ...registry import FORMATS_IN, FORMATS_OUT

Reader = Callable[..., DataSet]
"""Reads the data set at a path; takes `report` and `note` (see `findings`), and options of its own."""


class Writer(NamedTuple):
    """What writes the annotations of a data set into a folder, and the name of the folder of images in there."""

    write: Callable[[DataSet, Path], None]
    images: str


def reader(name: str) -> Reader:
    """Return the reader of the format `name`; raise UsageError if there is none."""
    found: Reader = FORMATS_IN.load(name)
    return found


def writer(name: str) -> Writer:
    """Return the writer of the format `name`; raise UsageError if there is none."""
    if name not in FORMATS_OUT:
        raise UsageError(f"format {name!r} cannot be written; choose one of {', '.join(FORMATS_OUT)}")
    found: Writer = FORMATS_OUT.load(name)
    return found
