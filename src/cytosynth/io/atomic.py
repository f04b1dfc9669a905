"""Writing files so that each is complete or absent, whatever moment the process dies."""

import errno
import hashlib
import json
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Literal

from ..errors import UserError

SYSTEM_ERROR = re.compile(r"os error (\d+)")
"""Error message of libraries written in Rust (safetensors, tokenizers) for a system error."""
STRAY_FILE, STRAY_FOLDER = re.compile(r"\..+\.\d+\.part"), re.compile(r"\..+\.part")
"""Names of the temporary files of `write_bytes` and `folder`, until they are complete."""


def write_bytes(path: Path, content: bytes) -> None:
    """Write `content` to `path`: a temporary file next to it, synced, then renamed over it.

    A link at `path` is replaced, never followed. Nothing is left behind when it fails.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with opened(temporary, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextmanager
def file(path: Path) -> Iterator[Path]:
    """Yield a path to write to, which becomes `path` if the block succeeds and is removed otherwise.

    For files that are too large for memory.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    temporary.unlink(missing_ok=True)
    try:
        yield temporary
        _sync_file(temporary)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def opened(path: Path, mode: Literal["wb", "ab", "a+b"]) -> BinaryIO:
    """Return the file at `path`, opened for writing; raise OSError when it is a link."""

    def opener(name: str, flags: int) -> int:
        if sys.platform == "win32":
            if path.is_symlink():
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), name)
            return os.open(name, flags, 0o666)
        return os.open(name, flags | os.O_NOFOLLOW, 0o666)

    return open(path, mode, opener=opener)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 `text` to `path` atomically."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON atomically; NaN and infinity are refused (ValueError)."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


@contextmanager
def folder(path: Path, fresh: bool = False) -> Iterator[Path]:
    """Yield a temporary folder, which becomes `path` if the block succeeds and is removed otherwise.

    A folder already at `path` is replaced; with `fresh`, one that is not empty at the end is kept, and UserError
    raised. UserError is also raised for a link at `path`, whose target would be replaced; OSError for system errors,
    also those that a library reports in another way.
    """
    if path.is_symlink():
        raise UserError(f"{path}: is a link; runs write only into real folders")
    path = path.resolve()
    path.parent.mkdir(parents=True, exist_ok=True)
    recover(path)
    temporary = path.with_name(f".{path.name}.part")
    temporary.mkdir()
    try:
        yield temporary
        _sync(temporary)
        if fresh and path.exists() and any(path.iterdir()):
            raise UserError(f"{path}: another process wrote there meanwhile; use another folder")
    except BaseException as error:
        shutil.rmtree(temporary, ignore_errors=True)
        refused = SYSTEM_ERROR.search(str(error))
        if refused and not isinstance(error, OSError):
            code = int(refused[1])
            raise OSError(code, os.strerror(code), str(path)) from error
        raise
    old = _old(path)
    if path.exists():
        path.rename(old)
    temporary.rename(path)
    shutil.rmtree(old, ignore_errors=True)


def recover(path: Path) -> None:
    """Restore the folder at `path` if a kill happened between its old and its new content; remove other temporary
    files.

    Only the process that may write there calls this.
    """
    shutil.rmtree(path.with_name(f".{path.name}.part"), ignore_errors=True)
    old = _old(path)
    if old.is_dir() and not path.exists():
        old.rename(path)
    shutil.rmtree(old, ignore_errors=True)


def clean(root: Path, busy: Callable[[Path], bool] = lambda _: False) -> None:
    """Remove, everywhere below `root`, the temporary files and folders that a killed process left there.

    Only the process that may write there calls this. No link is followed, nor is a folder entered that is `busy`.
    """
    for place, folders, files in os.walk(root) if not root.is_symlink() else ():
        folders[:] = [name for name in folders if not busy(Path(place) / name)]
        for name in [name for name in folders if STRAY_FOLDER.fullmatch(name)]:
            folders.remove(name)
            if not (Path(place) / name).is_symlink():
                shutil.rmtree(Path(place) / name)
        for name in files:
            if STRAY_FILE.fullmatch(name):
                (Path(place) / name).unlink()


def forget(path: Path) -> None:
    """Remove the temporary files of a killed write of `path`; only the process that may write it calls this."""
    for stray in path.parent.glob(f".{path.name}.*.part"):
        if STRAY_FILE.fullmatch(stray.name) and not stray.is_dir():
            stray.unlink()


def _old(path: Path) -> Path:
    return path.with_name(f".{path.name}.old")


def _sync(path: Path) -> None:
    for inside in path.rglob("*"):
        if inside.is_file():
            _sync_file(inside)


def _sync_file(path: Path) -> None:
    descriptor = os.open(path, os.O_RDWR if sys.platform == "win32" else os.O_RDONLY)  # Windows syncs what it may write
    os.fsync(descriptor)
    os.close(descriptor)


def fingerprint(path: Path) -> str:
    """Return the SHA-256 of the file at `path`, empty if it cannot be read: the caller that reads it reports why."""
    try:
        return sha256(path) if path.is_file() else ""
    except OSError:
        return ""


def digest(content: bytes) -> str:
    """Return the hexadecimal SHA-256 of `content`."""
    return hashlib.sha256(content).hexdigest()


def sha256(path: Path) -> str:
    """Return the hexadecimal SHA-256 of the file at `path`."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
