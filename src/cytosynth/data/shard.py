"""One shard of a run that is divided over machines: every n-th of its images, in its own folder.

Nothing is shared: a shard takes its images from the list of the whole run by their place in it. `shard.json` states
which shard of which run is in a folder, `shard.sha256` (as `sha256sum --check` reads it) the digests of its files when
it was finished; `scale.merge` merges the shards.
"""

import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, Field

from ..config import validated
from ..errors import UsageError, UserError
from ..io import atomic, plain

FILE, SUMS = "shard.json", "shard.sha256"
MOST = 100_000
"""Shards of a run."""
T = TypeVar("T")


@dataclass(frozen=True)
class Shard:
    """Shard `number`, from 1, of `of`."""

    number: int
    of: int

    @classmethod
    def parse(cls, text: str) -> "Shard":
        """Return the shard of `2/8`; raise UsageError if that is none."""
        number, _, of = text.partition("/")
        if not all(part.isdecimal() and len(part) < 7 for part in (number, of)) or not 1 <= int(number) <= int(of):
            raise UsageError(f"--shard {text[:40]}: expected i/n with 1 <= i <= n, as 2/8")
        if int(of) > MOST:
            raise UsageError(f"--shard {text[:40]}: at most {MOST:,} shards")
        return cls(int(number), int(of))

    def take(self, items: Sequence[T]) -> Sequence[T]:
        """Return those of the `items` of the whole run that belong to the shard, in their order."""
        return items[self.number - 1 :: self.of]

    def place(self, index: int) -> int:
        """Return the place, from 0, in the whole run of what is at `index` in the shard."""
        return self.number - 1 + index * self.of

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"


class ShardFile(BaseModel):
    """The content of `shard.json`.

    Attributes:
        shard: its number, from 1.
        of: how many shards the run has.
        images: of the whole run.
        run: digest of their names in order: shards of another run have another.
        threads: with which it was computed; another number rounds otherwise.
        finished: whether it is complete; what follows is known only then.
        refused: lines on files of the whole run whose names cannot be used.
        skipped: lines on images that could not be used, by their place in the whole run.
        categories: those of the model; annotations may have more, which an image of the user's brought.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    shard: int = Field(ge=1)
    of: int = Field(ge=1, le=MOST)
    images: int = Field(ge=0)
    run: str
    threads: int = Field(ge=1)
    finished: bool = False
    refused: tuple[str, ...] = ()
    skipped: dict[int, str] = {}
    categories: tuple[str, ...] = ()


def read(folder: Path) -> ShardFile:
    """Return what `shard.json` of `folder` says; raise UserError if there is none."""
    path = folder / FILE
    if not path.exists():
        raise UserError(f"{folder}: not a shard ({FILE} is missing); `--shard i/n` makes one")
    found = validated(ShardFile, plain.load(path), str(path))
    if found.shard > found.of:
        raise UserError(f"{path}: invalid shard number {found.shard} of {found.of}")
    return found


def begin(folder: Path, shard: Shard | None, names: Iterable[str], threads: int, begun: bool) -> None:
    """Record in `folder` that it has `shard` of the run of images `names`, or check that it does.

    Args:
        folder: of the run, which the caller holds.
        shard: None for a run that is not divided.
        names: of all images of the run, in order.
        threads: with which this process computes.
        begun: whether images are there already.

    Raises UsageError for a folder of another shard, of another run, or of a run that is not divided.
    """
    path = folder / FILE
    if shard is None:
        if path.exists():
            raise UsageError(f"{folder}: was started as shard {_of(read(folder))}; give --shard, or use another folder")
        return
    digest, count = hashlib.sha256(), 0
    for name in names:
        digest.update(name.encode("utf-8", "surrogateescape") + b"\n")
        count += 1
    wanted = ShardFile(shard=shard.number, of=shard.of, images=count, run=digest.hexdigest()[:16], threads=threads)
    if not path.exists():
        if begun:
            raise UsageError(f"{folder}: was started without --shard; use another folder for --shard {shard}")
        atomic.write_json(path, wanted.model_dump(mode="json"))
        return
    old = read(folder)
    if (old.shard, old.of) != (shard.number, shard.of):
        raise UsageError(f"{folder}: was started as shard {_of(old)}, now {shard}; use another folder")
    if old.run != wanted.run:
        raise UsageError(
            f"{folder}: was started as shard {_of(old)} of other images ({old.images}, now {count}); use another folder"
        )


def finish(folder: Path, refused: Sequence[str], skipped: Mapping[int, str], categories: Sequence[str] = ()) -> None:
    """Write the digests of the files of the shard in `folder`, then that it is finished."""
    lines = [f"{atomic.sha256(folder / name)}  {name}\n" for name in files(folder)]
    atomic.write_text(folder / SUMS, "".join(lines))
    said = {"finished": True, "refused": tuple(refused), "skipped": dict(skipped), "categories": tuple(categories)}
    done = read(folder).model_copy(update=said)
    atomic.write_json(folder / FILE, done.model_dump(mode="json"))


def files(folder: Path) -> list[str]:
    """Return the names, below `folder`, of the files of a shard, in order: all but its own two and hidden ones."""
    found = []
    for root, _, names in os.walk(folder):
        below = Path(root).relative_to(folder)
        found += [(below / name).as_posix() for name in names if not name.startswith(".")]
    return sorted(set(found) - {FILE, SUMS})


def sums(folder: Path) -> dict[str, str]:
    """Return the digest of each file of the finished shard in `folder` by its name; raise UserError for what is none.

    Names are not joined to a folder here: `image_files.inside` says which may be.
    """
    path = folder / SUMS
    try:
        lines = plain.text(path, plain.MAX_BYTES).splitlines()
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; the shard is not finished") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: not readable ({str(error)[:120]})") from None
    found = {}
    for number, line in enumerate(lines, 1):
        digest, gap, name = line[:64], line[64:66], line[66:]
        if gap != "  " or not name or not all(letter in "0123456789abcdef" for letter in digest):
            raise UserError(f"{path}: line {number}: expected a SHA-256, two spaces and a file name")
        found[name] = digest
    return found


def _of(said: ShardFile) -> str:
    return f"{said.shard}/{said.of}"
