"""One run per folder: a lock that the operating system releases when its process dies."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from ..errors import UsageError, UserError
from . import atomic

FILE = ".lock"
OTHER = "another run is writing there; wait for it or use another folder"


@contextmanager
def only(folder: Path) -> Iterator[None]:
    """Lock `folder`, which is made if missing, for the length of the block.

    Raises UserError if another process has locked it, or is about to make it (`new`); UsageError if it is a file.
    """
    _placed(folder)
    if _busy(_beside(folder.resolve())):
        raise UserError(f"{folder}: {OTHER}")
    folder.mkdir(parents=True, exist_ok=True)
    with _held(folder / FILE, folder):
        yield


@contextmanager
def run(folder: Path, mark: str) -> Iterator[None]:
    """As `only`, for a folder of a run that continues: incomplete files of a killed run are removed first.

    Only in a folder with the file `mark`, which a run writes first, and not in a folder below it that another process
    has locked. Raises UserError for a link anywhere in the folder, whose target does not belong to the run; UsageError
    for a folder without the mark that contains any but hidden files: a run never overwrites files that are not its own.
    """
    with only(folder):
        for root, folders, files in os.walk(folder):
            for path in (Path(root) / name for name in sorted([*folders, *files])):
                if path.is_symlink():
                    raise UserError(f"{path}: is a link; runs write only into real folders")
        if (folder / mark).is_file():
            atomic.clean(folder, lambda below: _busy(below / FILE))
        elif own := [path.name for path in folder.iterdir() if not path.name.startswith(".")]:
            raise UsageError(f"{folder}: already contains other files ({min(own)[:80]}); use an empty folder")
        else:
            atomic.forget(folder / mark)
        yield


@contextmanager
def new(folder: Path) -> Iterator[None]:
    """Lock the name of `folder`, which is about to be made, for the length of the block; see `only`."""
    _placed(folder)
    folder = folder.resolve()
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _held(_beside(folder), folder):
        yield


def _placed(folder: Path) -> None:
    """Raise UsageError if a file lies in the place of `folder` or of a folder above it."""
    for path in (folder, *folder.parents):
        if path.exists():
            if not path.is_dir():
                raise UsageError(f"{folder}: {path.name} is a file; a folder is expected")
            return


def _beside(folder: Path) -> Path:
    """Return the lock of the name of `folder`."""
    if not folder.name:
        raise UserError(f"{folder}: give a folder with a name")
    return folder.with_name(f".{folder.name}.lock")


@contextmanager
def _held(path: Path, folder: Path) -> Iterator[None]:
    lock = FileLock(path, thread_local=False)  # the studio's is released by another thread than acquired it
    try:
        lock.acquire(blocking=False)
    except Timeout:
        raise UserError(f"{folder}: {OTHER}") from None
    try:
        yield
    finally:
        with suppress(PermissionError):  # Windows removes no open file; filelock does it there when it lets go
            path.unlink(missing_ok=True)
        lock.release()


def _busy(path: Path) -> bool:
    """Return whether another process holds the lock at `path`, where there is one."""
    if not path.exists():
        return False
    try:
        with FileLock(path, blocking=False):
            return False
    except Timeout:
        return True
