"""Splits by image or slide, never by cell: `split.json` where a data set has one, else by hash of its group."""

import hashlib
from pathlib import Path
from typing import Any

from ..annotations import DataSet, Image
from ..errors import UserError
from ..io.plain import load

FILE = "split.json"
FRACTIONS = {"train": 0.7, "val": 0.1, "test": 0.2}


def part(data: DataSet, name: str, root: Path) -> tuple[Image, ...]:
    """Return the images of `data` in the part `name` ('train', 'val', 'test', or 'all').

    With a `split.json` in the folder `root`, or beside the file `root`, that decides; without one each group (slide,
    or the image itself) goes where the hash of its name says, which is the same on every machine.
    """
    if name == "all":
        return data.images
    file = _file(root)
    if file.exists():
        parts = {key: _names(values) for key, values in load(file).items() if isinstance(values, list)}
        if name not in parts:
            raise UserError(f"{file}: no part '{name}'; there are {', '.join(sorted(parts))}")
        _disjoint(parts, {image.file_name: group(image) for image in data.images}, file)
        return tuple(image for image in data.images if image.file_name in parts[name])
    if name not in FRACTIONS:
        raise UserError(f"{root}: no part '{name}'; without {FILE} there are {', '.join(FRACTIONS)}")
    return tuple(image for image in data.images if assigned(group(image)) == name)


def group(image: Image) -> str:
    """Return what must not be divided between parts: the slide where one is known, else the image."""
    for key in ("slide", "slide_id", "patient", "case"):
        if key in image.extra:
            return str(image.extra[key])
    return image.file_name


def assigned(group_name: str, fractions: dict[str, float] = FRACTIONS) -> str:
    """Return the part that `group_name` belongs to by its hash."""
    position = int.from_bytes(hashlib.sha256(group_name.encode()).digest()[:8], "big") / 2**64
    for name, fraction in fractions.items():
        if position < fraction:
            return name
        position -= fraction
    return name


def _file(root: Path) -> Path:
    """Return where the split of the data set at `root` is, its folder or its annotations."""
    return (root.parent if root.is_file() else root) / FILE


def _names(values: list[Any]) -> set[str]:
    return {value for value in values if isinstance(value, str)}


def _disjoint(parts: dict[str, set[str]], groups: dict[str, str], file: Path) -> None:
    """Raise UserError when an image, or two of one slide, are in different parts."""
    seen: dict[str, str] = {}
    for name, members in parts.items():
        for member in sorted(members):
            whole = groups.get(member, member)
            if seen.setdefault(whole, name) != name:
                raise UserError(f"{file}: {whole} is in both '{seen[whole]}' and '{name}'")


def names(root: Path) -> list[str]:
    """Return the names of the parts of the data set at `root`."""
    file = _file(root)
    return [key for key, value in load(file).items() if isinstance(value, list)] if file.exists() else list(FRACTIONS)
