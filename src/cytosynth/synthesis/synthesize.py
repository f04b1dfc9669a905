"""`synthesize` and `edit`: load the models by name and run the pipeline on the jobs."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ..annotations import DataSet
from ..cell.editing import targets
from ..data.pseudonyms import Pseudonyms
from ..data.read import FOUND_OUT, Place
from ..data.shard import Shard
from ..devices import threads
from ..errors import UsageError
from ..foundation.names import BUNDLED
from ..io.progress import console
from . import models, own_images
from . import plan as plans
from .computing import decided
from .fast import NOT, Fast
from .fitting import fit, followed, spare
from .jobs import Job, fields, planned_fields, planned_own
from .jobs import own_images as jobs_of
from .models import NONE, Models
from .pipeline import Engine
from .resume import written
from .run import run
from .settings import PipelineSettings, check

__all__ = ["NONE", "edit", "synthesize"]

DEFAULT = PipelineSettings()
Load = Callable[[Models], Engine]
"""Loads models: into this process (`models.load`), or into others."""


def synthesize(
    out: Path,
    *,
    count: int = 0,
    start: int = 0,
    plan: Path | None = None,
    settings: PipelineSettings = DEFAULT,
    foundation: str = BUNDLED,
    normal: str = BUNDLED,
    cell: str = BUNDLED,
    detector: str = BUNDLED,
    gate: str = NONE,
    data_root: Path = Path(),
    decoder: str | None = None,
    device: str = "cpu",
    shard: Shard | None = None,
    load: Load = models.load,
    fast: Fast = NOT,
) -> DataSet:
    """Make the images `start` to `start + count - 1`, or those of `plan`, into `out`; see the command `synthesize`."""
    known = targets(cell)
    if settings.keep_abnormal:
        raise UsageError("keep_abnormal: no effect on generated fields, which have no annotated cells; leave it out")
    _check(settings, plan, count or None, known)
    given = followed(plan, settings, cell, known)
    settings = decided(settings, written(out), device)
    found = None if plan else detector
    with threads(settings.threads):
        engine = load(Models(foundation, cell, gate, found, normal, True, settings, data_root, device, decoder, fast))
        if given:
            jobs, sizes = planned_fields(*given, settings)
            return follow(engine, *given, jobs, sizes, settings, out, shard=shard)
        return run(engine, list(fields(range(start, start + count), settings)), settings, out, shard=shard)


def edit(
    source: Path,
    out: Path,
    *,
    plan: Path | None = None,
    settings: PipelineSettings = DEFAULT,
    foundation: str = BUNDLED,
    cell: str = BUNDLED,
    detector: str = BUNDLED,
    gate: str = NONE,
    data_root: Path = Path(),
    decoder: str | None = None,
    device: str = "cpu",
    label: str | None = None,
    part: str = "all",
    limit: int | None = None,
    strict: bool = False,
    place: Place = FOUND_OUT,
    pseudonyms: Pseudonyms | None = None,
    shard: Shard | None = None,
    load: Load = models.load,
    fast: Fast = NOT,
) -> DataSet:
    """Edit cells of the images of `source` into abnormal ones, into `out`; see the command `edit`."""
    own = own_images.gather(source, label, part, place, settings.keep_abnormal).under(pseudonyms)
    images = own.images[:limit]
    known = targets(cell)
    _check(settings, plan, len(images), known)
    given = followed(plan, settings, cell, known)
    settings = decided(settings, written(out), device)
    found = None if plan else detector
    about: dict[str, Any] = {"licences": own.licences, "derived_from": own.info, "strict": strict,
                             "refused": own.refused, "shard": shard}  # fmt: skip
    with threads(settings.threads):
        engine = load(Models(foundation, cell, gate, found, NONE, False, settings, data_root, device, decoder, fast))
        if given:
            jobs, sizes = planned_own(*given, images, settings, own.kept)
            return follow(engine, *given, jobs, sizes, settings, out, **about)
        return run(engine, list(jobs_of(images, settings, own.kept)), settings, out, **about)


def _check(settings: PipelineSettings, plan: Path | None, images: int | None, known: Sequence[str]) -> None:
    """Raise UsageError for invalid settings, or settings that contradict a plan."""
    check(settings, None if plan else images, known)
    if plan and settings.counts:
        raise UsageError("counts: the plan sets the category of each cell; give counts or plan, not both")


def follow(
    engine: Engine,
    plan: plans.Plan,
    path: Path,
    jobs: list[Job],
    sizes: dict[str, tuple[int, int]],
    settings: PipelineSettings,
    out: Path,
    **about: Any,
) -> DataSet:
    """Run the `jobs` of the `plan` that was read from `path`."""
    settings = engine.settle(settings)
    fit(plan, path, sizes, settings.cell.box_scale or 1.0)
    spare(plan, path, sizes, {job.file_name: job.kept for job in jobs}, settings.cell)
    now = engine.models()
    other = [role for role, model in plan.models.items() if role in now and now[role] != model]
    if other:
        console.print(
            f"{path}: was made with another model ({', '.join(other)}): the cells will look different", soft_wrap=True
        )
    return run(engine, jobs, settings, out, plan=plan.digest, **about)
