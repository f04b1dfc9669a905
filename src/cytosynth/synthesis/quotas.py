"""Counts of categories over a whole run: the cells of each category in each image (`--counts HSIL=40,ASC-H=30`).

First all images' cells are detected, then the categories are distributed, then the images are edited. So the totals are
exact if there are enough cells, and the cells of an image depend on the seed, the order of the images, and how many of
their cells can be edited, never on when a run was stopped.
"""

import io
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pydantic import BaseModel

from ..data import image_files
from ..errors import UserError
from ..io import atomic
from ..io.progress import meter
from ..io.records import append_line, typed
from ..provenance import Room as Editable
from .jobs import Job
from .making import Failed, Room

SURVEY = ".survey.jsonl"
"""File of the number of editable cells of each image; removed when the run is finished."""
FIELDS = ".fields"
"""Folder of the generated fields of a survey, so that none is generated again; removed as images are finished."""


def deal(rooms: Sequence[int], counts: Mapping[str, int], seed: int) -> list[tuple[str, ...]]:
    """Return the categories that each image gets.

    If the images have room for fewer cells than requested, rare categories (those with the smallest count) come first.
    Every place in every image is equally likely to be used.

    Args:
        rooms: how many cells of each image can be edited.
        counts: cells of each category in all.
        seed: of the run.
    """
    rng = np.random.default_rng([seed, 3])
    places = sum(rooms)
    ends = np.cumsum(rooms)
    wanted = [name for name in sorted(counts, key=lambda name: (counts[name], name)) for _ in range(counts[name])]
    wanted = wanted[:places]
    dealt: list[list[str]] = [[] for _ in rooms]
    for place, index in zip(rng.choice(places, len(wanted), replace=False), rng.permutation(len(wanted)), strict=True):
        dealt[np.searchsorted(ends, place, side="right")].append(wanted[index])
    return [tuple(sorted(names, key=lambda name: (counts[name], name))) for names in dealt]


def short(dealt: Sequence[Sequence[str]], counts: Mapping[str, int]) -> dict[str, int]:
    """Return how many cells of each category could not be assigned."""
    given = Counter(name for names in dealt for name in names)
    return {name: asked - given[name] for name, asked in counts.items() if asked > given[name]}


class _Surveyed(BaseModel, strict=True):
    """A line of the survey."""

    file_name: str
    room: Editable


def survey(
    jobs: Sequence[Job],
    done: Mapping[str, Mapping[str, Any]],
    rooms: Callable[[Sequence[Job], Failed], Iterator[Room]],
    out: Path,
    strict: bool,
) -> list[int]:
    """Return how many cells of the image of each job can be edited: 0 where it cannot be used, unless `strict`.

    Args:
        jobs: all of the run.
        done: records of the finished images, which state it. rooms: finds it for several images; as `Engine.rooms`.
        out: folder of the run, where the counts are stored so that a killed run continues.
        strict: whether an image that cannot be used ends the run.
    """
    known = {name: int(record["room"]) for name, record in done.items() if "room" in record}
    path = out / SURVEY
    for entry in typed(_Surveyed, path):
        known.setdefault(entry.file_name, entry.room)
    missing = {job.file_name: job for job in jobs if job.file_name not in known}

    def failed(job: Job, error: UserError) -> None:
        if strict:
            raise error
        note(job, 0)

    def note(job: Job, cells: int) -> None:
        known[job.file_name] = cells
        append_line(path, {"file_name": job.file_name, "room": cells})
        bar.advance()

    with meter("finding cells", len(missing)) as bar:
        for found in rooms([kept_field(job, out) for job in missing.values()], failed):
            job = missing[found.file_name]
            if job.normal is None and not (out / FIELDS / job.file_name).exists():
                buffer = io.BytesIO()
                Image.fromarray(np.asarray(found.normal)).save(buffer, "PNG", compress_level=1)
                atomic.write_bytes(out / FIELDS / job.file_name, buffer.getvalue())
            note(job, found.cells)
    return [known[job.file_name] for job in jobs]


def kept_field(job: Job, out: Path) -> Job:
    """Return `job` with the field that a survey stored for it in `out`, if there is one."""
    path = out / FIELDS / job.file_name
    if job.normal is not None or not path.exists():
        return job
    return replace(job, normal=partial(image_files.read, path))


def forget_field(job: Job, out: Path) -> None:
    """Remove the field of `job` that was kept in `out`."""
    (out / FIELDS / job.file_name).unlink(missing_ok=True)


def forget(out: Path) -> None:
    """Remove the files of a survey in `out`."""
    (out / SURVEY).unlink(missing_ok=True)
    if (out / FIELDS).is_dir() and not (out / FIELDS).is_symlink():
        for stray in (out / FIELDS).iterdir():
            stray.unlink()
        (out / FIELDS).rmdir()
