"""Jobs in a pipeline: fields are generated in full batches, and cells of several images are edited together."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

from ..cell.queue import Canvas, EditQueue
from ..data.image_files import Pixels
from ..errors import UserError
from ..normal.generate import NormalImageGenerator
from ..normal.settings import GenerateSettings
from ..provenance import as_read, png
from .centre import brought
from .jobs import Job
from .settings import PipelineSettings

if TYPE_CHECKING:
    from .pipeline import Pipeline


@dataclass(frozen=True)
class Made:
    """A finished image, and how it was made.

    Attributes:
        file_name: in the data set.
        record: how it was made.
        pixels: (height, width, 3); None if it is `encoded`. encoded: the bytes of its PNG file; empty if it is not
        encoded yet.
    """

    file_name: str
    record: dict[str, Any]
    pixels: Pixels | None
    encoded: bytes = b""

    def png(self) -> bytes:
        """Return the bytes of its PNG file; encoding them takes a while, and may be done in another thread."""
        return self.encoded if self.pixels is None else png(self.pixels, self.record)

    def as_file(self) -> "Made":
        """Return the same, encoded."""
        return Made(self.file_name, self.record, None, self.png())


@dataclass(frozen=True)
class Room:
    """The number of cells of an image that can be edited, and the normal image in which they were found."""

    file_name: str
    cells: int
    normal: Pixels


@dataclass(frozen=True)
class Unmade:
    """A job whose image cannot be used, and why."""

    job: Job
    error: UserError


Failed = Callable[[Job, UserError], None]
"""Called for each job whose image cannot be used: raises, or records it so that the others are made."""
Outcome = TypeVar("Outcome")


def finished(outcomes: Iterable[Outcome | Unmade], failed: Failed) -> Iterator[Outcome]:
    """Yield those of `outcomes` that are images; `failed` is called for the others."""
    for outcome in outcomes:
        if isinstance(outcome, Unmade):
            failed(outcome.job, outcome.error)
        else:
            yield outcome


class Normals:
    """The normal images of jobs: the user's, read one by one, or fields, generated `settings.batch` at a time."""

    def __init__(self, generator: NormalImageGenerator | None, settings: GenerateSettings) -> None:
        """Generate with `generator`; None: every job has an image of the user."""
        self.generator, self.settings = generator, settings
        self.waiting: list[Job] = []

    def add(self, job: Job) -> list[tuple[Job, Pixels] | Unmade]:
        """Add `job`; return the images that are available now."""
        if job.normal is not None:
            try:
                return [(job, job.normal())]
            except UserError as error:
                return [Unmade(job, error)]
        self.waiting.append(job)
        return self.flush() if len(self.waiting) == self.settings.batch else []

    def flush(self) -> list[tuple[Job, Pixels] | Unmade]:
        """Return the images of all jobs that were added."""
        jobs, self.waiting = self.waiting, []
        if not jobs:
            return []
        if self.generator is None:
            raise ValueError("a run without images of the user's needs a generator")
        try:
            drawn = self.generator.fields([(job.seed, job.key) for job in jobs], self.settings)
        except UserError as error:
            return [Unmade(job, error) for job in jobs]
        return list(zip(jobs, drawn, strict=True))


class Making:
    """Images on their way through a pipeline, one after the other."""

    def __init__(self, pipeline: "Pipeline", settings: PipelineSettings) -> None:
        """Make images with the models of `pipeline`."""
        self.pipeline, self.settings = pipeline, settings
        self.normals = Normals(pipeline.generator, settings.normal)
        self.queue = EditQueue(pipeline.editor, settings.cell, pipeline.gate)
        self.waiting: dict[str, Job] = {}

    def add(self, job: Job) -> list[Made | Unmade]:
        """Add `job`; return the images that are finished now."""
        return self._edited(self.normals.add(job))

    def flush(self) -> list[Made | Unmade]:
        """Finish and return the images of all jobs that were added."""
        return [*self._edited(self.normals.flush()), *map(self._made, self.queue.flush())]

    def _edited(self, normals: Iterable[tuple[Job, Pixels] | Unmade]) -> list[Made | Unmade]:
        """Give the cells of `normals` to the queue; return the images that are finished now."""
        outcomes: list[Made | Unmade] = []
        for one in normals:
            if isinstance(one, Unmade):
                outcomes.append(one)
                continue
            job, normal = one
            try:
                canvas = self.pipeline.prepare(job, normal, self.settings)
            except UserError as error:
                outcomes.append(Unmade(job, error))
                continue
            self.waiting[job.file_name] = job
            outcomes += map(self._made, self.queue.add(canvas))
        return outcomes

    def _made(self, canvas: Canvas) -> Made:
        job = self.waiting.pop(canvas.name)
        pixels = canvas.compose(self.settings.cell)
        pixels, made = brought(pixels, self.pipeline.record(job, canvas, pixels, self.settings), self.settings)
        return Made(job.file_name, as_read(made), pixels)


class Surveying:
    """Counts the cells of normal images that can be edited, at most as many as the settings allow."""

    def __init__(self, pipeline: "Pipeline", settings: PipelineSettings) -> None:
        """Count with the detector of `pipeline`."""
        self.pipeline, self.settings = pipeline, settings
        self.normals = Normals(pipeline.generator, settings.normal)

    def add(self, job: Job) -> list[Room | Unmade]:
        """Add `job`; return the counts that are known now."""
        return list(map(self._looked, self.normals.add(job)))

    def flush(self) -> list[Room | Unmade]:
        """Return the remaining counts of the jobs that were added."""
        return list(map(self._looked, self.normals.flush()))

    def _looked(self, one: tuple[Job, Pixels] | Unmade) -> Room | Unmade:
        if isinstance(one, Unmade):
            return one
        job, normal = one
        try:
            canvas = self.pipeline.prepare(replace(job, categories=()), normal, self.settings)
        except UserError as error:
            return Unmade(job, error)
        return Room(job.file_name, min(len(canvas.spare), self.settings.max_cells), canvas.normal)
