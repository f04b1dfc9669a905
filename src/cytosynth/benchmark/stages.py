"""A run as the command `synthesize` makes it, with the seconds of each stage."""

from dataclasses import dataclass
from pathlib import Path

from ..errors import UserError
from ..io import atomic
from ..io.background import Background
from ..io.progress import meter
from ..io.records import append_line
from ..provenance import RECORDS
from ..synthesis.jobs import Job, fields
from ..synthesis.making import Made
from ..synthesis.pipeline import Pipeline
from ..synthesis.settings import PipelineSettings
from .stopwatch import Memory, Stopwatch, wait

TEXT, FIELD, DECODE, DETECT, EDIT, WRITE, OTHER = "text", "field", "decode", "detect", "edit", "write", "other"
STAGES = (TEXT, FIELD, DECODE, DETECT, EDIT, OTHER)
"""Stages in their order; writing runs in the background."""


@dataclass(frozen=True)
class Run:
    """A measured run.

    Attributes:
        images: how many were made.
        cells: how many were edited.
        side: of the images, pixels.
        total: seconds from the first job to the last file.
        stages: seconds by stage; those of `write` are of another thread.
        peak: bytes of memory at most; see `Memory`.
    """

    images: int
    cells: int
    side: int
    total: float
    stages: dict[str, float]
    peak: int

    @property
    def each(self) -> float:
        """Seconds an image."""
        return self.total / self.images


def watched(pipeline: Pipeline) -> Stopwatch:
    """Return a stopwatch that counts the seconds of each stage of `pipeline` from now on."""
    generator, editor, detector = pipeline.generator, pipeline.editor, pipeline.detector
    if generator is None or detector is None:
        raise ValueError("a benchmark needs a generator and a detector")
    clock = Stopwatch(generator.model.device)
    for owner, method, stage in (
        (generator.model, "encode_text", TEXT), (editor.model, "encode_text", TEXT), (editor.model, "pool_text", TEXT),
        (generator.model, "decode_latents", DECODE), (generator, "fields", FIELD),
        (detector, "find", DETECT), (editor, "paint", EDIT),
    ):  # fmt: skip
        clock.watch(owner, method, stage)
    return clock


def run(pipeline: Pipeline, clock: Stopwatch, count: int, settings: PipelineSettings, out: Path) -> Run:
    """Make `count` images with `pipeline`, watched by `clock`, into the folder `out`."""
    clock.seconds.clear()
    made: list[int] = []

    def write(one: Made) -> None:
        with clock.stage(WRITE):
            atomic.write_bytes(out / "images" / one.file_name, one.png())
            append_line(out / RECORDS, one.record)
        made.append(len(one.record["cells"]))
        bar.advance()

    def failed(job: Job, error: UserError) -> None:
        raise error

    title = f"{count} images of {settings.normal.size} pixels"
    with meter(title, count) as bar, Memory(clock.device) as memory, clock.stage(OTHER), Background(write) as writing:
        for one in pipeline.make(fields(range(count), settings), settings, failed):
            writing.put(one)
    wait(clock.device)
    stages = dict(clock.seconds)
    total = sum(stages.get(name, 0.0) for name in STAGES)
    return Run(len(made), sum(made), settings.normal.size, total, stages, memory.peak)
