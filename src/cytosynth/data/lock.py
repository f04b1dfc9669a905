"""One run a folder: a lock that the operating system lets go of when its process dies."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from ..errors import UserError
from . import atomic

FILE = ".lock"


@contextmanager
def only(folder: Path) -> Iterator[None]:
    """Hold `folder`, made where it is not there, for the length of the block.

    Raises UserError when another process holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with _held(folder / FILE, folder):
        yield


@contextmanager
def run(folder: Path) -> Iterator[None]:
    """As `only`, for a folder of a run that continues: what a killed one left half-written is removed first."""
    with only(folder):
        atomic.clean(folder)
        yield


@contextmanager
def new(folder: Path) -> Iterator[None]:
    """Hold the name of `folder`, which is about to be made, for the length of the block; see `only`."""
    folder = folder.resolve()
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _held(folder.with_name(f".{folder.name}.lock"), folder):
        yield


@contextmanager
def _held(path: Path, folder: Path) -> Iterator[None]:
    file = _locked(path)
    if file is None:
        raise UserError(f"{folder}: another run is writing there; wait for it or use another folder")
    with file:
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def _locked(path: Path) -> BinaryIO | None:
    """Return the locked file at `path`, None where another process has it."""
    while True:
        file = atomic.opened(path, "ab")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            return None
        if _at(path, file):
            return file
        file.close()  # who held it removed it between our opening and our locking: others would lock another file


def _at(path: Path, file: BinaryIO) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False
