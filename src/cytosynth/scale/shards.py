"""The finished shards of one run, checked against each other."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..data import file_names, shard
from ..data.shard import ShardFile
from ..errors import UserError
from ..io import atomic, wording
from ..io.progress import console, meter


@dataclass(frozen=True)
class Finished:
    """A finished shard: its folder, what it says of itself, and the digest of each of its files by name."""

    folder: Path
    said: ShardFile
    sums: dict[str, str]

    def content(self, name: str) -> bytes:
        """Return the bytes of the file `name`; raise UserError if it is not what it was when it was finished."""
        path = file_names.inside(self.folder, name)
        try:
            found = path.read_bytes()
        except FileNotFoundError:
            raise UserError(f"{path}: no such file, but {shard.SUMS} lists it; copy the shard again") from None
        if atomic.digest(found) != self.sums.get(name):
            raise UserError(f"{path}: its digest differs from {shard.SUMS}; copy the shard again, or make it again")
        return found

    def __str__(self) -> str:
        return f"{self.said.shard}/{self.said.of}"


def gather(folders: Sequence[Path]) -> list[Finished]:
    """Return the shards in `folders` by their number.

    Raises UserError that names what is no shard, not finished, of another run, there twice, or missing.
    """
    found: dict[int, Finished] = {}
    for folder in folders:
        said = shard.read(folder)
        if not said.finished:
            raise UserError(f"{folder}: shard {said.shard}/{said.of} is not finished; run its command again")
        first = next(iter(found.values()), None)
        if first:
            _same_run(first, folder, said)
        if said.shard in found:
            raise UserError(
                f"{folder}: shard {said.shard}/{said.of} is also in {found[said.shard].folder}; give it once"
            )
        found[said.shard] = Finished(folder, said, shard.sums(folder))
    of = next(iter(found.values())).said.of
    missing = [number for number in range(1, of + 1) if number not in found]
    if missing:
        raise UserError(f"shards {wording.listed(missing)} of {of} are missing; make them, and give them too")
    ordered = [found[number] for number in sorted(found)]
    threads = sorted({one.said.threads for one in ordered})
    if len(threads) > 1:
        console.print(
            f"shards were made with {' and '.join(map(str, threads))} threads: the last bits of pixels may differ from "
            "those of an undivided run",
            soft_wrap=True,
        )
    return ordered


def problems(shards: Sequence[Finished]) -> list[str]:
    """Return the lines on what was skipped, in the order of the undivided run."""
    skipped = {place: line for one in shards for place, line in one.said.skipped.items()}
    return [*shards[0].said.refused, *(line for _, line in sorted(skipped.items()))]


def places(one: Finished) -> list[int]:
    """Return the places, in the whole run, of the images of the shard `one` that were not skipped, in order."""
    own = range(one.said.shard - 1, one.said.images, one.said.of)
    return [place for place in own if place not in one.said.skipped]


def complete(one: Finished, images: int) -> None:
    """Raise UserError if the shard `one` holds fewer or more than its share of images."""
    expected = len(places(one))
    if images != expected:
        raise UserError(f"{one.folder}: shard {one} has {images} images, its share is {expected}; make it again")


def copy(out: Path, files: Sequence[tuple[Finished, str]], title: str) -> None:
    """Copy `files`, each a shard and a name in it, that `out` does not have yet, or has from before a shard was remade.

    Raises UserError for a file that is not what it was when its shard was finished.
    """
    with meter(title, len(files)) as bar:
        for one, name in files:
            path = file_names.inside(out, name)
            if not path.exists() or atomic.sha256(path) != one.sums[name]:
                atomic.write_bytes(path, one.content(name))
            bar.advance()


def _same_run(first: Finished, folder: Path, said: ShardFile) -> None:
    """Raise UserError if the shard in `folder` is not of the same run as the `first`."""
    other = ""
    if said.of != first.said.of:
        other = f"one of {said.of} shards, the other of {first.said.of}"
    elif (said.run, said.images, said.refused) != (first.said.run, first.said.images, first.said.refused):
        other = f"other images ({said.images}, the other {first.said.images})"
    if other:
        raise UserError(f"{folder}: not of the same run as {first.folder}: {other}")
