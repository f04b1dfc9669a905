"""Splits by image or slide, never by cell: the parts that a data set states, else by hash of its group."""

import hashlib
import unicodedata
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from ..annotations import DataSet, Image
from ..errors import UserError
from ..io import plain
from ..io.plain import load

FILE = "split.json"
FIXED = {"lbc_x40": Path(__file__).parent / "splits" / "lbc_x40.json"}
"""Splits, by image, of published sets whose folders come without one, by the name of the folder."""
NEEDED = {"val": "trainings choose their best weights by it", "test": "results are measured on it"}
"""What the parts are for that are easily left empty."""
FRACTIONS = {"train": 0.7, "val": 0.1, "test": 0.2}


def with_parts(data: DataSet, root: Path) -> DataSet:
    """Return `data` with the parts that a `split.json` in the folder `root`, or next to the file `root`, says.

    Raises UserError if it cannot be read.
    """
    file = _file(root)
    if not file.exists():
        return data
    known = {unicodedata.normalize("NFC", image.file_name): image.file_name for image in data.images}
    parts = {}
    for name, values in load(file).items():
        if isinstance(values, list) and not plain.CONTROL.search(name):
            given = [known.get(unicodedata.normalize("NFC", value)) for value in values if isinstance(value, str)]
            parts[name] = tuple(value for value in given if value is not None)
    return replace(data, parts=parts)


def part(data: DataSet, name: str, root: Path) -> tuple[Image, ...]:
    """Return the images of `data` in the part `name` ('train', 'val', 'test', or 'all').

    Its parts decide (those of a `split.json` in the folder `root`, or next to the file `root`, before all others);
    without any, each group (slide, or the image itself) goes where the hash of its name says, which is the same on
    every machine.
    """
    if name == "all":
        return data.images
    parts = with_parts(data, root).parts
    where = _file(root) if _file(root).exists() else root
    if parts or where != root:
        if name not in parts:
            raise UserError(f"{where}: no part '{name}'; the parts are {', '.join(sorted(parts))}")
        _disjoint(parts, {image.file_name: group(image) for image in data.images}, where)
        chosen = set(parts[name])
        return tuple(image for image in data.images if image.file_name in chosen)
    if name not in FRACTIONS:
        raise UserError(f"{root}: no part '{name}'; without {FILE} the parts are {', '.join(FRACTIONS)}")
    return tuple(image for image in data.images if assigned(group(image)) == name)


def group(image: Image) -> str:
    """Return the unit that must not be divided between parts: the slide if known, else the image."""
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
    """Return where the split of the data set at `root` is: with it, or in this package for a set of `FIXED`."""
    folder = root.parent if root.is_file() else root
    file = folder / FILE
    return file if file.exists() else FIXED.get(folder.resolve().name, file)


def _disjoint(parts: dict[str, tuple[str, ...]], groups: dict[str, str], where: Path) -> None:
    """Raise UserError when an image, or two of one slide, are in different parts."""
    seen: dict[str, str] = {}
    for name, members in parts.items():
        for member in sorted(members):
            whole = groups.get(member, member)
            if seen.setdefault(whole, name) != name:
                raise UserError(f"{where}: {whole} is in both '{seen[whole]}' and '{name}'")


def names(data: DataSet, root: Path) -> list[str]:
    """Return the names of the parts of `data` at `root`."""
    parts = with_parts(data, root).parts
    return list(parts) if parts or _file(root).exists() else list(FRACTIONS)


class Sizes:
    """Counts the images of each part of a data set."""

    def __init__(self, parts: Mapping[str, Collection[str]], images: Iterable[Image] = ()) -> None:
        """Count `images` in `parts`, the file names of each; without any, in those by hash."""
        self.members = {name: frozenset(members) for name, members in parts.items()}
        self.counts = dict.fromkeys(self.members or FRACTIONS, 0)
        for image in images:
            self.add(image)

    def add(self, image: Image) -> None:
        """Count `image`."""
        if not self.members:
            self.counts[assigned(group(image))] += 1
        for name, members in self.members.items():
            self.counts[name] += image.file_name in members

    def lines(self, about: DataSet) -> list[str]:
        """Return a line with the size of each part of the set `about`, and one for each that is needed and is empty.

        None for a synthetic set without parts, all of which is trained on.
        """
        if not self.members and about.info.get("synthetic"):
            return []
        how = "parts" if self.members else f"parts by hash of slide or name (no {FILE})"
        found = [f"{how}: {', '.join(f'{name} {count}' for name, count in self.counts.items())}"]
        todo = f"move some to it in {FILE}" if self.members else f"give the parts in {FILE}, or add images"
        return found + [
            f"warning: no image in part '{name}' ({what}); {todo}"
            for name, what in NEEDED.items()
            if not self.counts.get(name)
        ]


def stated(root: Path) -> dict[str, list[str]]:
    """Return the parts that the `split.json` of the data set at `root` says, {} without one."""
    file = _file(root)
    return {key: values for key, values in load(file).items() if isinstance(values, list)} if file.exists() else {}
