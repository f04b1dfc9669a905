"""Pseudonyms for the user's images in all output: file names are often accession numbers.

A name is replaced by its keyed hash (HMAC-SHA-256): without the key nobody can find the original, or test whether a
known number is among them; the same key gives the same pseudonym.
"""

import hashlib
import hmac
import os
import secrets
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..annotations import Cell, DataSet, Image
from ..errors import UserError
from ..io import plain
from .rename import LABEL

DIGITS = 20
"""Hexadecimal digits of a pseudonym: 80 bits, so that no two images of a lab's share one."""
BYTES = 32
"""Of a key; a file of fewer than LEAST is none."""
LEAST = 16
KEPT = frozenset({"license", LABEL, "has_boxes", "synthetic"})
"""Fields of an image, other than its name, that are written unchanged."""
GROUPS = frozenset({"slide", "slide_id", "patient", "case"})
"""Fields that state which images belong together: hashed like names."""
CELL = frozenset({"area", "iscrowd", "nucleus", "segmentation", "difficult", "truncated", "occluded", "synthetic"})
"""Fields of a cell that are written unchanged."""


def usual() -> Path:
    """Return the default path of the key: in the configuration folder of the user's account."""
    base = os.environ.get("XDG_CONFIG_HOME")
    return (Path(base) if base else Path.home() / ".config") / "cytosynth" / "pseudonym.key"


@dataclass(frozen=True)
class Pseudonyms:
    """Returns pseudonyms by a secret key."""

    key: bytes

    @classmethod
    def load(cls, file: Path) -> "Pseudonyms":
        """Return those of the key in `file`, which is made, readable by its owner alone, if there is none.

        Raises UserError if it is no key.
        """
        if not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            with (
                suppress(FileExistsError),  # another process was first
                open(file, "xb", opener=lambda name, flags: os.open(name, flags, 0o600)) as new,
            ):
                new.write(secrets.token_bytes(BYTES))
        try:
            key = plain.content(file)
        except (OSError, ValueError) as error:
            raise UserError(f"{file}: not a readable key ({str(error)[:120]})") from None
        if len(key) < LEAST:
            raise UserError(f"{file}: the key has {len(key)} bytes; at least {LEAST} are required")
        return cls(key)

    def hashed(self, text: str) -> str:
        """Return the pseudonym of `text`."""
        return hmac.new(self.key, text.encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()[:DIGITS]

    def name(self, file_name: str) -> str:
        """Return the pseudonym of an image called `file_name`, a PNG without folders."""
        return f"{self.hashed(file_name)}.png"

    def line(self, said: str) -> str:
        """Return the line `said` of an image, which begins with its name and a colon, under its pseudonym."""
        name, _, reason = said.partition(": ")
        return f"{self.hashed(name)}: {reason}"

    def extra(self, said: Mapping[str, Any]) -> dict[str, Any]:
        """Return the fields `said` of an image that do not identify it, groups under their pseudonyms."""
        kept = {key: value for key, value in said.items() if key in KEPT}
        return kept | {key: self.hashed(str(value)) for key, value in said.items() if key in GROUPS}

    def images(self, images: Iterable[Image]) -> tuple[Image, ...]:
        """Return `images` under their pseudonyms; further fields of cells are left out."""
        return tuple(
            replace(
                image, file_name=self.name(image.file_name), extra=self.extra(image.extra),
                cells=tuple(map(_bare, image.cells)), id=image.id if isinstance(image.id, int) else None,
            )
            for image in images
        )  # fmt: skip

    def of(self, data: DataSet) -> DataSet:
        """Return `data` under pseudonyms; of the description of the whole set only its licences are kept."""
        parts = {part: tuple(map(self.name, members)) for part, members in data.parts.items()}
        return replace(data, images=self.images(data.images), parts=parts, info={})


def _bare(cell: Cell) -> Cell:
    return replace(cell, extra={key: value for key, value in cell.extra.items() if key in CELL})
