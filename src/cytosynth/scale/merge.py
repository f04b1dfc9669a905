"""`merge`: merges shards into the data set that the undivided run would have written, byte by byte."""

import heapq
from collections.abc import Collection, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from ..annotations import DataSet
from ..config import pin, read
from ..data.formats import coco
from ..detection.folder import RUN
from ..errors import UserError
from ..io import lock, plain
from ..io.progress import meter
from ..provenance import PARTS, RECORDS, files, whole
from ..synthesis.publish import About, listed, publish
from ..synthesis.resume import SETTINGS, Pinned, difference
from . import shards
from .detections import merge_detections
from .shards import Finished


def merge(out: Path, folders: Sequence[Path]) -> DataSet:
    """Merge the shards in `folders` into `out`, or continue there.

    Every file is checked against the digest that its shard gives. One record of each shard is in memory at a time.
    Raises UserError that names what is missing, there twice, damaged, or of another run.
    """
    found = shards.gather(folders)
    detected = [(one.folder / RUN).exists() for one in found]
    if all(detected):
        return merge_detections(out, found)
    if any(detected):
        raise UserError(
            f"{found[detected.index(True)].folder} is of `detect`, but {found[detected.index(False)].folder} is not"
        )
    pinned = _same_settings(found)
    licences, derived_from, categories = _same_info(found)
    records = Records(found)
    with lock.run(out, SETTINGS):
        pin(pinned, out / SETTINGS, difference)
        _nothing_else(out, found)
        shards.copy(out, [(one, name) for one in found for name in one.sums if name.startswith("images/")], "images")
        origin = next((record["origin"] for record in records), "synthetic")
        about = About(origin, pinned.models, categories, licences, derived_from, shards.problems(found))
        return publish(out, records, pinned.settings, about)


class Records(Collection[dict[str, Any]]):
    """The records of all images of several shards, by file name; read again at each iteration."""

    def __init__(self, found: Sequence[Finished]) -> None:
        """Check the records of the shards `found`; raise UserError for damaged ones, gaps and duplicates."""
        self.found, self.count = found, 0
        with meter("checking records", len(found)) as bar:
            for one in found:
                for name in _record_files(one):
                    one.content(name)
                names = [record["file_name"] for record in _records(one)]
                images = {name.removeprefix("images/") for name in one.sums if name.startswith("images/")}
                shards.complete(one, len(names))
                if images != set(names):
                    odd = min(images.symmetric_difference(names))
                    raise UserError(
                        f"{one.folder}: {odd}: has an image or a record, but not both; make the shard again"
                    )
                self.count += len(names)
                bar.advance()
        last = ""
        for record in self:
            if record["file_name"] <= last:
                raise UserError(f"{record['file_name']}: is in two shards, or out of order in one")
            last = record["file_name"]

    def __len__(self) -> int:
        """Return how many there are."""
        return self.count

    def __contains__(self, record: object) -> bool:
        """Return whether `record` is one of them."""
        return any(record == one for one in self)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Yield them by file name."""
        return heapq.merge(*map(_records, self.found), key=lambda record: str(record["file_name"]))


def _record_files(one: Finished) -> list[str]:
    """Return the names of the files of the records of the shard `one`, in order."""
    return sorted(name for name in one.sums if name == RECORDS or name.startswith(f"{PARTS}/"))


def _records(one: Finished) -> Iterator[dict[str, Any]]:
    _, _, categories = _info(one)
    for record in chain.from_iterable(plain.lines(one.folder / name) for name in _record_files(one)):
        if not isinstance(record, dict) or not whole(record, categories):
            raise UserError(f"{one.folder / RECORDS}: contains a line that is not a record of an image")
        yield record


def _same_settings(found: Sequence[Finished]) -> Pinned:
    """Return the settings and models that all shards were made with; raise UserError if one differs."""
    first = read(Pinned, found[0].folder / SETTINGS)
    for one in found[1:]:
        said = read(Pinned, one.folder / SETTINGS)
        threads = said.settings.model_copy(update={"threads": first.settings.threads})  # `gather` says it
        other = difference(said.model_copy(update={"settings": threads}), first)
        if other:
            raise UserError(f"{one.folder}: made with {other} than {found[0].folder} (see {SETTINGS})")
    return first


def _nothing_else(out: Path, found: Sequence[Finished]) -> None:
    """Raise UserError if `out` holds images, or records of images, that are in none of the shards."""
    there = {name for one in found for name in one.sums}
    records = chain.from_iterable(map(plain.lines, files(out)))
    recorded = (record.get("file_name") if isinstance(record, dict) else None for record in records)
    for name in chain(recorded, (path.name for path in sorted((out / "images").glob("*.png")))):
        if f"images/{name}" not in there:
            raise UserError(f"{out}: contains {str(name)[:80]}, which is in none of the shards; use another folder")


def _same_info(found: Sequence[Finished]) -> tuple[tuple[dict[str, Any], ...], dict[str, Any], tuple[str, ...]]:
    """Return what `_info` does of all shards; raise UserError if one differs.

    A synthesizer did not list NILM before cells could be edited into it: of such categories the longer list is taken.
    """
    first = _info(found[0])
    categories = first[2]
    for one in found[1:]:
        licences, derived, names = _info(one)
        if (licences, derived) != first[:2]:
            raise UserError(
                f"{one.folder}: edited from a set with other licences or another description than {found[0].folder}"
            )
        if listed(names, ()) != listed(categories, ()):
            raise UserError(
                f"{one.folder}: made for the categories {', '.join(names)}, {found[0].folder} for "
                f"{', '.join(categories)}; make one of them again"
            )
        categories = max(categories, names, key=len)
    return *first[:2], categories


def _info(one: Finished) -> tuple[tuple[dict[str, Any], ...], dict[str, Any], tuple[str, ...]]:
    """Return the licences, what is said of the set that was edited, and the categories of the shard `one`."""
    files = coco.parts(one.folder)
    data = coco.read(files[0]) if files else coco.read(one.folder)
    derived = data.info.get("derived_from", {})
    categories = one.said.categories or data.categories
    return data.licences, derived if isinstance(derived, dict) else {}, categories
