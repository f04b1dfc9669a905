"""The folders that were opened: nothing outside them can be read, whatever name the page asks for."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..data import file_names, image_files
from ..data.slides.reader import is_slide
from ..errors import UserError
from ..io import records

DEEPEST = 2
"""Levels of folders below an opened one that are offered."""
SETS = ("annotations.json", "data.yaml", "Annotations", "classifications.json", "classifications.csv")
"""Files that identify a data set: COCO, YOLO, VOC, CRIC."""
MOST = 500
"""Folders that are offered."""


@dataclass(frozen=True)
class OpenedFolders:
    """Opened folders by their number; the page names what is in one as `NUMBER` or `NUMBER/path/below`."""

    roots: tuple[Path, ...]

    @classmethod
    def of(cls, opened: Sequence[Path], out: Path) -> "OpenedFolders":
        """Return the places of the user's folders and slides, and last the folder of what is saved."""
        folders = [path if path.is_dir() else path.parent for path in opened]
        return cls(tuple(dict.fromkeys(path.resolve() for path in [*folders, out])))

    def path(self, name: str) -> Path:
        """Return the path that the page calls `name`.

        Raises UserError for a name that leaves its folder, also through a link, and for what is not there.
        """
        number, _, below = name.partition("/")
        if not number.isdecimal() or len(number) > 4 or int(number) >= len(self.roots):
            raise UserError(f"{name[:80]!r}: no opened folder of that name")
        root = self.roots[int(number)]
        if not below:
            return root
        hidden = any(part.startswith(".") for part in Path(below).parts)
        if file_names.unsafe(below) or hidden or file_names.leaves(root, below) or not (root / below).exists():
            raise UserError(f"no such file or folder in {root.name}")
        return root / below

    def name(self, path: Path) -> str:
        """Return what the page calls `path`."""
        for number, root in enumerate(self.roots):
            if path.is_relative_to(root):
                below = path.relative_to(root).as_posix()
                return f"{number}" if below == "." else f"{number}/{below}"
        raise UserError(f"{path} is not in an opened folder")

    def listed(self) -> list[dict[str, Any]]:
        """Return the folders with images, data sets, runs, and the slides, as the page offers them."""
        found: list[dict[str, Any]] = []
        for root in self.roots:
            for path in _below(root, DEEPEST):
                if len(found) >= MOST:
                    return found
                for kind in _kinds(path):
                    found.append({"name": self.name(path), "title": _title(root, path), "kind": kind})
        return found


def _below(root: Path, deep: int) -> list[Path]:
    """Return `root` and the folders and slides in it, in order; links and hidden ones are passed over."""
    inside = sorted(path for path in root.iterdir() if not path.name.startswith(".") and not path.is_symlink())
    found = [root, *(path for path in inside if path.is_file() and is_slide(path))]
    for path in inside if deep and not _is_set(root) else ():
        if path.is_dir():
            found += _below(path, deep - 1)
    return found


def _kinds(path: Path) -> list[str]:
    """Return what is at `path`: `slide`, `set`, `run`, `images`, `quiz`; nothing that the studio opens."""
    if path.is_file():
        return ["slide"]
    kinds = []
    if (path / records.STATS).is_file():
        kinds.append("run")
    if (path / "key.json").is_file() and (path / "pages").is_dir():
        kinds.append("quiz")
    if _is_set(path):
        kinds.append("set")
    elif path.name not in ("images", "previews") and any(_images(path)):
        kinds.append("images")
    return kinds


def _is_set(path: Path) -> bool:
    """Return whether the data set at `path` is in `path` itself, by the files that the formats have there."""
    return any((path / name).exists() for name in SETS)


def _images(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.suffix.lower() in image_files.SUFFIXES and path.is_file()]


def _title(root: Path, path: Path) -> str:
    below = path.relative_to(root).as_posix()
    return root.name if below == "." else f"{root.name}/{below}"
