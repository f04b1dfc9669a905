"""Merging shards of `detect`."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..annotations import DataSet, Image
from ..data.formats import coco
from ..detection.folder import FOUND, RESULTS, RUN, publish
from ..errors import UserError
from ..io import atomic, lock, plain
from ..io.records import line
from . import shards
from .shards import Finished

ANEW = frozenset({RUN, FOUND, RESULTS, coco.FILE})
"""Files that are rewritten; all others are copied."""


def merge_detections(out: Path, found: Sequence[Finished]) -> DataSet:
    """Put the shards `found` of a run of `detect` together in `out`, or continue there.

    Annotations of all images are in memory. Raises UserError that names what is damaged or of another run.
    """
    for one in found:
        for name in ANEW:
            one.content(name)
        if plain.load(one.folder / RUN) != plain.load(found[0].folder / RUN):
            raise UserError(f"{one.folder}: made with another detector or other settings than {found[0].folder}")
    parts = [coco.read(one.folder) for one in found]
    images: dict[int, Image] = {}
    records: dict[str, dict[str, Any]] = {}
    for one, part in zip(found, parts, strict=True):
        shards.complete(one, len(part.images))
        images.update(zip(shards.places(one), part.images, strict=True))
        for record in plain.lines(one.folder / FOUND):
            if isinstance(record, dict) and isinstance(record.get("file_name"), str):
                records[record["file_name"]] = record
    ordered = tuple(image for _, image in sorted(images.items()))
    with lock.run(out, RUN):
        _same(out, found[0])
        shards.copy(out, [(one, name) for one in found for name in one.sums if name not in ANEW], "files")
        data = replace(parts[0], folder=out, images=ordered, info=parts[0].info | {"skipped": shards.problems(found)})
        publish(data, out)
        kept = [records[image.file_name] for image in ordered if image.file_name in records]
        atomic.write_text(out / FOUND, "".join(map(line, kept)))
    return data


def _same(out: Path, one: Finished) -> None:
    """Record in `out` the settings of the shard `one`; raise UserError if others are recorded there."""
    if (out / RUN).exists() and plain.load(out / RUN) != plain.load(one.folder / RUN):
        raise UserError(f"{out}: was started with another detector or other settings; use another folder")
    atomic.write_bytes(out / RUN, one.content(RUN))
