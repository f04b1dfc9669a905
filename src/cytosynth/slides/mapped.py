"""Arrays in files, mapped into memory a part at a time."""

import mmap
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..io import atomic


class MappedArray:
    """An array in a file. Its pages are given back by `release`, so that memory stays bounded whatever its size."""

    def __init__(self, path: Path, shape: tuple[int, ...], dtype: type[np.generic]) -> None:
        """Open the array at `path`, made of zeros where it is not there or of another size.

        Raises OSError if the disk has no room for all of it: writing to a mapped file that has none ends a process.
        """
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        with atomic.opened(path, "a+b") as file:
            if os.fstat(file.fileno()).st_size != size:
                file.truncate(0)
                _allocate(file.fileno(), size, path)
            self._map = mmap.mmap(file.fileno(), size)
        self.array: NDArray[Any] = np.frombuffer(self._map, dtype=dtype).reshape(shape)

    def release(self) -> None:
        """Write what changed to the file and give its memory back; the array stays usable."""
        self._map.flush()
        if sys.platform != "win32":  # which knows no such advice
            self._map.madvise(mmap.MADV_DONTNEED)


def _allocate(descriptor: int, size: int, path: Path) -> None:
    """Give the opened file `size` bytes of the disk; leave it empty where there is no room."""
    if not hasattr(os, "posix_fallocate"):  # macOS, Windows
        os.ftruncate(descriptor, size)
        return
    try:
        os.posix_fallocate(descriptor, 0, size)
    except OSError as error:
        os.ftruncate(descriptor, 0)
        raise OSError(error.errno, os.strerror(error.errno or 0), str(path)) from None


def wrapped(start: int, length: int, size: int) -> list[tuple[slice, slice]]:
    """Return which parts of an axis of `size` a run of `length` from `start` covers, if the axis wraps around.

    Each part is a slice of the axis, and the slice of the run that lies there.
    """
    parts, done = [], 0
    while done < length:
        at = (start + done) % size
        step = min(length - done, size - at)
        parts.append((slice(at, at + step), slice(done, done + step)))
        done += step
    return parts
