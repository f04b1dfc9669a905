"""One run a folder: a lock that the operating system lets go of when its process dies."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import UserError

FILE = ".lock"


@contextmanager
def only(folder: Path) -> Iterator[None]:
    """Hold `folder` for the length of the block; raise UserError when another process holds it."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / FILE
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"{folder}: another run is writing there; wait for it or use another folder") from None
        try:
            yield
        finally:
            path.unlink(missing_ok=True)
