"""A run: every image is written as soon as it is finished, with its record; then the files of the whole set.

A run that was killed continues with the same command and ends byte-identical. A shard makes only its images of a run.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from ..annotations import DataSet
from ..config import pin
from ..data import shard as shards
from ..data.image_files import ImageProblem
from ..data.shard import Shard
from ..errors import UsageError, UserError
from ..io import atomic, lock
from ..io.background import Background
from ..io.plain import one_line
from ..io.progress import console, meter
from ..io.records import append_line
from ..provenance import RECORDS, read_records
from . import quotas
from .jobs import Job, identified
from .making import Made
from .pipeline import Engine
from .publish import About, publish
from .resume import SETTINGS, Pinned, difference, same_original
from .settings import PipelineSettings, check


def run(
    engine: Engine,
    jobs: Sequence[Job],
    settings: PipelineSettings,
    out: Path,
    *,
    licences: Sequence[dict[str, Any]] = (),
    derived_from: Mapping[str, Any] | None = None,
    refused: Sequence[str] = (),
    strict: bool = False,
    plan: str = "",
    shard: Shard | None = None,
) -> DataSet:
    """Make the images of `jobs`, or of a `shard` of them, into the folder `out`, or continue there.

    A user's image that cannot be used is skipped, named and counted (in `info["skipped"]`), as are those `refused`
    before; with `strict`, it ends the run. Raises UsageError if `out` was started with other settings, models,
    licences, (by its digest) another `plan`, or as another shard.
    """
    settings = engine.settle(settings)
    check(settings, len(jobs), engine.categories)
    if shard and settings.counts:
        raise UsageError(
            f"--shard {shard}: --counts distributes cells over all images of a run; give each part its own --counts, "
            "--start and --seed instead of --shard, or leave --counts out"
        )
    if strict and refused:
        raise ImageProblem(refused[0])
    planned = {cell.category for job in jobs for cell in job.planned or ()}
    engine.check(planned or settings.counts or [name for name, weight in settings.category_weights.items() if weight])
    with lock.run(out, SETTINGS):
        names = [job.file_name for job in jobs] if settings.counts else []
        pinned = Pinned.of(settings, engine.models(), plan, names, [list(licences), derived_from])
        pin(pinned, out / SETTINGS, difference)
        done = read_records(out, engine.categories)
        shards.begin(out, shard, (job.file_name for job in jobs), torch.get_num_threads(), bool(done))
        own = list(map(identified, shard.take(jobs) if shard else jobs))
        missing: dict[str, int] = {}
        if settings.counts:
            own, missing = _deal(engine, own, settings, out, done, strict)
        skipped = _make(engine, own, settings, out, done, strict)
        lines = [one_line(line) for line in refused]
        problems = [*lines, *(line for _, line in sorted(skipped.items()))]
        records = [record for _, record in sorted(done.items())]
        about = About(
            engine.origin, engine.models(), engine.categories, licences, derived_from or {}, problems, missing, shard
        )  # fmt: skip
        data = publish(out, records, settings, about)
        quotas.forget(out)
        if shard:
            places = {shard.place(index): line for index, line in skipped.items()}
            shards.finish(out, lines, places, engine.categories)
        return data


def _make(
    engine: Engine,
    jobs: Sequence[Job],
    settings: PipelineSettings,
    out: Path,
    done: dict[str, dict[str, Any]],
    strict: bool,
) -> dict[int, str]:
    """Make the images that are not in `done` and add their records to it; return the skipped ones by index."""
    skipped: dict[int, str] = {}
    places = {job.file_name: index for index, job in enumerate(jobs)}

    def todo() -> Iterator[Job]:
        for job in jobs:
            if job.file_name in done:
                same_original(out, job, done[job.file_name])
            else:
                yield job

    def failed(job: Job, error: UserError) -> None:
        if strict:
            raise error
        line = one_line(f"{job.extra.get('original', job.file_name)}: {_reason(error)}")
        skipped[places[job.file_name]] = line
        console.print(f"skipped: {line}", soft_wrap=True)

    def write(made: Made) -> None:
        atomic.write_bytes(out / "images" / made.file_name, made.png())
        append_line(out / RECORDS, made.record)
        done[made.file_name] = made.record
        quotas.forget_field(jobs[places[made.file_name]], out)
        bar.advance(f"{len(made.record['cells'])} cells")

    with meter("images", len(jobs), sum(job.file_name in done for job in jobs)) as bar, Background(write) as writing:
        for made in engine.make(todo(), settings, failed):
            writing.put(made)
    return skipped


def _deal(
    engine: Engine,
    jobs: Sequence[Job],
    settings: PipelineSettings,
    out: Path,
    done: Mapping[str, Mapping[str, Any]],
    strict: bool,
) -> tuple[list[Job], dict[str, int]]:
    """Return the jobs with the categories assigned to each, and how many cells no image has room for."""
    rooms = quotas.survey(jobs, done, lambda missing, failed: engine.rooms(missing, settings, failed), out, strict)
    kept = [quotas.kept_field(job, out) for job in jobs]
    dealt = quotas.deal(rooms, settings.counts, settings.seed)
    missing = quotas.short(dealt, settings.counts)
    if missing:
        asked, room = sum(settings.counts.values()), sum(rooms)
        fewer = ", ".join(f"{number} {name}" for name, number in missing.items())
        console.print(
            f"counts: {asked} cells requested, but only {room} can be edited in these images ({fewer} too many)",
            soft_wrap=True,
        )
    return [replace(job, categories=names) for job, names in zip(kept, dealt, strict=True)], missing


def _reason(error: object) -> str:
    """Return the message of `error` without its leading path."""
    return str(error).rpartition(": ")[2]
