"""The jobs of a run: one per image, from a number, a file of the user, or a plan."""

import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from .. import boxes
from ..annotations import Cell
from ..data import file_names, image_files
from ..data.image_files import Pixels
from ..io.progress import console
from ..io.wording import amount
from ..provenance import descent, inside
from .centre import without
from .plan import NamedBox, Plan, PlannedCell, PlannedImage, PlanProblem
from .settings import PipelineSettings

Own = tuple[str, Path, dict[str, Any]]
"""An image of the user: its name, its file, and its further fields."""
Kept = Mapping[str, tuple[Cell, ...]] | None
"""The annotated abnormal cells of the user's images that stay, by name; None if the images have no annotations."""


@dataclass(frozen=True)
class Job:
    """One image to make; it can be sent to another process.

    Attributes:
        file_name: of the image in the data set.
        seed: of the run, or of the field if a plan states one. key: distinguishes jobs of the same seed.
        normal: returns the normal image; None: the generator makes it from `seed` and `key`.
        extra: further fields of the record.
        planned: the cells of a plan; None if the detector finds them.
        categories: those assigned to this image by the counts of the whole run; None if they are sampled by weight.
        path: the user's image, whose digest goes into the record (`identified`).
        kept: annotated abnormal cells of the user's image, in pixels of the normal image, that stay as they are.
        left_out: those that a plan leaves out of the annotations.
    """

    file_name: str
    seed: int
    key: int
    normal: Callable[[], Pixels] | None = None
    extra: dict[str, Any] = field(default_factory=dict)
    planned: tuple[PlannedCell, ...] | None = None
    categories: tuple[str, ...] | None = None
    path: Path | None = None
    kept: tuple[Cell, ...] = ()
    left_out: tuple[NamedBox, ...] = ()


def fields(indices: range, settings: PipelineSettings) -> Iterator[Job]:
    """Yield the jobs of the wholly synthetic images of `indices`."""
    for index in indices:
        yield Job(f"{index:06d}.png", settings.seed, index)


def own_images(images: Iterable[Own], settings: PipelineSettings, kept: Kept = None) -> Iterator[Job]:
    """Yield a job for each image file of the user, seeded by its name, with licence, source and `kept` cells."""
    taken: set[str] = set()
    for original, path, extra in images:
        name = file_names.flat(original, ".png", taken)
        yield _own(name, original, path, extra, settings, kept=(kept or {}).get(original, ()))


def planned_fields(plan: Plan, path: Path, settings: PipelineSettings) -> tuple[list[Job], dict[str, tuple[int, int]]]:
    """Return the jobs of a `plan` for generated fields, read from `path`, and the size of each image."""
    jobs, sizes = [], {}
    for number, image in enumerate(plan.images):
        if image.generated is None:
            raise PlanProblem(
                f"{path}: images[{number}] ({image.file_name}): is of an existing file; use this plan with `edit`"
            )
        seed, index = image.generated.seed, image.generated.index
        jobs.append(Job(image.file_name, seed, index, planned=tuple(image.cells)))
        sizes[image.file_name] = (settings.normal.size, settings.normal.size)
    return jobs, sizes


def planned_own(
    plan: Plan,
    path: Path,
    images: Sequence[Own],
    settings: PipelineSettings,
    kept: Kept = None,
) -> tuple[list[Job], dict[str, tuple[int, int]]]:
    """Return the jobs of a `plan` for the user's `images`, read from `path`, and the size of each as edited.

    A file that cannot be read has no size; the reason is reported when its job is made. Where the images have no
    annotations, nothing of them is annotated: a line says that what the plan leaves out has no effect.
    """
    there = {original: (file, extra) for original, file, extra in images}
    jobs, sizes = [], {}
    for number, image in enumerate(plan.images):
        where = f"{path}: images[{number}] ({image.file_name})"
        if image.original is None:
            raise PlanProblem(f"{where}: is of a generated field; use this plan with `synthesize`")
        if image.original not in there:
            raise PlanProblem(
                f"{where}: original {image.original[:80]!r} is not among the {len(there)} images given; "
                "those with abnormal cells need --keep-abnormal"
            )
        file, extra = there[image.original]
        cells = (kept or {}).get(image.original, ())
        job = identified(_own(image.file_name, image.original, file, extra, settings, tuple(image.cells), cells))
        jobs.append(job)
        try:
            width, height = (max(1, round(side * settings.scale)) for side in image_files.size(file))
        except image_files.ImageProblem:
            continue
        if image.original_sha256 not in ("", job.extra["original_sha256"]):
            raise PlanProblem(f"{where}: original {image.original[:80]!r} is not the file that the plan was made for")
        sizes[image.file_name] = (width, height)
        if kept is not None:
            jobs[-1] = _without(job, image, (width, height), where)
    without_effect = sum(bool(image.left_out) for image in plan.images) if kept is None else 0
    if without_effect:
        console.print(
            f"{path}: left_out of {amount(without_effect, 'image')}: no effect on images without annotations",
            soft_wrap=True,
        )
    return jobs, sizes


def _without(job: Job, image: PlannedImage, size: tuple[int, int], where: str) -> Job:
    """Return `job` without the kept cells that the planned `image`, of that (width, height), leaves out.

    Raises PlanProblem, which says `where`, for one that is not among the annotated cells.
    """
    left = image.left_out or []
    kept, unknown = without(job.kept, [(one.box, one.category) for one in left], size)
    if unknown:
        one = left[unknown[0]]
        raise PlanProblem(
            f"{where}: left_out[{unknown[0]}]: no annotated {one.category[:40]!r} cell has the box "
            f"{boxes.quoted(one.box)}; remove the entry, or give the annotations that the plan was made with"
        )
    return replace(job, kept=tuple(kept), left_out=tuple(left))


def _own(
    name: str,
    original: str,
    path: Path,
    extra: dict[str, Any],
    settings: PipelineSettings,
    planned: tuple[PlannedCell, ...] | None = None,
    kept: tuple[Cell, ...] = (),
) -> Job:
    said = {"original": original, "picture": extra}
    normal = partial(image_files.read, path, settings.scale)
    return Job(name, settings.seed, zlib.crc32(original.encode()), normal, said, planned, path=path,
               kept=tuple(cell.scaled(settings.scale) for cell in kept))  # fmt: skip


def identified(job: Job) -> Job:
    """Return `job` with the digest of the user's file in its record, and what that was made from; reads the file."""
    if job.path is None or "original_sha256" in job.extra:
        return job
    known = {"original_sha256": image_files.fingerprint(job.path)} | descent([inside(job.path)])
    return replace(job, extra=job.extra | known)
