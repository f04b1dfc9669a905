"""Names of image files: checking that they are safe and inside their folder, and new ones for derived images."""

import hashlib
from collections.abc import Iterable
from pathlib import Path, PurePosixPath, PureWindowsPath

from ..errors import UserError
from ..io import plain

DEVICES = frozenset({"con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(10))})
"""Names that are devices, not files, on Windows, whatever follows their first dot."""


LONGEST = 180
"""Maximum bytes of a new file name, without its suffix and the temporary ending."""


LEAVES = "is a link that leaves its folder"


class ImageProblem(UserError):
    """An image file that cannot be used; the message says why."""


def unsafe(file_name: str) -> str | None:
    """Return why `file_name` may not be joined to a folder, or None when it may."""
    if not file_name or "\0" in file_name:
        return "empty or with a NUL byte"
    if plain.CONTROL.search(file_name):
        return "with control characters or half a character"
    if "\\" in file_name or PureWindowsPath(file_name).drive:
        return "with a backslash or a drive letter"
    if ":" in file_name:
        return "with a colon, which no file of Windows can have in its name; rename it"
    path = PurePosixPath(file_name)
    if path.is_absolute():
        return "absolute"
    if ".." in path.parts:
        return "leaves its folder"
    if not path.name:
        return "names a folder"
    if any(len(part.encode()) > 200 for part in path.parts) or len(file_name) > 1000:
        return "longer than files can be called"
    for part in path.parts:
        if part.split(".")[0].strip().lower() in DEVICES:
            return "the name of a device"
    return None


def usable(found: Iterable[tuple[str, Path]], folder: Path) -> tuple[list[tuple[str, Path]], list[str]]:
    """Return those of the names and paths `found` that stay inside `folder`, and a line for each other one.

    The lines may be written to files: they contain no folder of this machine.
    """
    good, refused = [], []
    for name, path in found:
        if reason := unsafe(name):
            bare = PureWindowsPath(name)  # whose root may be written in either way
            refused.append(f"file name {(bare.name if bare.anchor else name)[:200]!r}: {reason}")
        elif leaves(folder, name):
            refused.append(f"{name}: {LEAVES}")
        else:
            good.append((name, path))
    return good, refused


def flat(original: str, suffix: str, taken: set[str]) -> str:
    """Return a file name ending in `suffix` for an image made from `original`, which may be in folders.

    It is not one of those `taken`, and is added to them.
    """
    name = PurePosixPath(original).with_suffix("").as_posix().replace("/", "_")
    if len(name.encode()) > LONGEST:
        digest = hashlib.sha256(original.encode()).hexdigest()[:16]
        name = f"{name.encode()[: LONGEST - 20].decode(errors='ignore')}-{digest}"
    name += suffix
    while name in taken:
        name = "_" + name
    taken.add(name)
    return name


def inside(folder: Path, file_name: str) -> Path:
    """Return `folder / file_name`; raise ImageProblem if that leaves `folder`, also through a link."""
    reason = unsafe(file_name)
    if reason:
        raise ImageProblem(f"{folder}: file name {file_name[:200]!r}: {reason}")
    if leaves(folder, file_name):
        raise ImageProblem(f"{folder / file_name}: {LEAVES}")
    return folder / file_name


def leaves(folder: Path, file_name: str) -> bool:
    """Return whether `file_name`, a safe name, is or passes a link that leaves `folder`."""
    try:
        return not (folder / file_name).resolve().is_relative_to(folder.resolve())
    except (OSError, RuntimeError):  # a link to itself
        return True
