"""Names of files: as written by tools of other systems, and as they are on this disk; parts by folder name."""

import os
import re
import unicodedata
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from ...io.wording import said
from .. import file_names
from ..gather import images
from . import cells

PARTS = {
    "train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "test": "test",
    "testing": "test",
}  # fmt: skip
"""The parts of a data set by what tools call them."""


def part(text: str) -> str | None:
    """Return the part of a data set that `text`, the name of a folder or file, names: 'train2017' is 'train'."""
    words = re.split(r"[^a-z]+", text.lower())
    return next((PARTS[word] for word in words if word in PARTS), None)


def file_name(value: Any) -> str:
    """Return the file name `value` of an image; raise ValueError if it is none that a message could name.

    Separators of Windows become slashes; a drive or a root stays, and is refused where the file is sought.
    """
    if not isinstance(value, str | int):
        return cells.name(value)
    text = str(value)
    if len(text) > cells.LONGEST:
        raise ValueError(f"the file name {said(value)} is longer than files can be called")
    if "\\" in text and not PureWindowsPath(text).anchor:
        text = text.replace("\\", "/")
    return text.removeprefix("./")


def stem(name: str) -> str:
    """Return `name` without its suffix, composed (NFC), to be compared."""
    path = PurePosixPath(unicodedata.normalize("NFC", name))
    return path.with_suffix("").as_posix() if path.name else path.as_posix()


class Folder:
    """The image files below a folder, found by what annotations call them."""

    def __init__(self, root: Path) -> None:
        """Look into `root` when a name is not there as it is written."""
        self.root = root
        self._names: dict[str, str] | None = None
        self._stems: dict[str, str] = {}

    def has(self, name: str) -> bool:
        """Return whether a file or link is called `name`."""
        return not file_names.unsafe(name) and os.path.lexists(self.root / name)

    def find(self, name: str, by_stem: bool = False) -> str:
        """Return the name of the file that is called `name`, as it is on the disk; `name` if there is none.

        Composed and decomposed letters (NFC, NFD) and the case of the suffix make no difference; `by_stem` nor does the
        suffix. Of an absolute path, which led to the file on another machine, the last part is sought.
        """
        if file_names.unsafe(name):
            last = PureWindowsPath(name).name  # Windows knows both separators
            return last if PureWindowsPath(name).anchor and self.has(last) else name
        if self.has(name):
            return name
        if self._names is None:
            self._names = {_key(found): found for found in images(self.root)}
            self._stems = {stem(found): found for found in reversed(self._names.values())}
        found = self._names.get(_key(name))
        if found is None and by_stem:
            found = self._stems.get(unicodedata.normalize("NFC", name)) or self._stems.get(stem(name))
        return found or name


def _key(name: str) -> str:
    whole = stem(name)
    return whole + PurePosixPath(name).suffix.lower()
