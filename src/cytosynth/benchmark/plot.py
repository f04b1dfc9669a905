"""Cost against count and area as an image."""

import io
from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from ..io import atomic
from .stages import DECODE, EDIT, FIELD, Run

GIB = 2**30


def write(path: Path, counts: Sequence[Run], sides: Sequence[Run]) -> None:
    """Write a PNG: seconds and memory against the number of images, seconds an image against its megapixels."""
    figure = Figure(figsize=(9, 3.6), dpi=110, layout="constrained")
    left, right = figure.subplots(1, 2)
    images = [run.images for run in counts]
    left.plot(images, [run.total for run in counts], "o-", color="#0072B2")
    left.set(xlabel="images", ylabel="seconds", xlim=(0, None), ylim=(0, None), title="cost against count")
    memory = left.twinx()
    memory.plot(images, [run.peak / GIB for run in counts], "s--", color="#D55E00")
    memory.set(ylabel="peak memory, GiB (squares)", ylim=(0, 1.2 * max(run.peak for run in counts) / GIB))
    area = [run.side**2 / 1e6 for run in sides]
    for name, stages in (("field", (FIELD, DECODE)), ("editing", (EDIT,))):
        seconds = [sum(run.stages.get(stage, 0.0) for stage in stages) / run.images for run in sides]
        right.plot(area, seconds, "o-", label=name)
    right.plot(area, [run.each for run in sides], "o-", color="black", label="in all")
    right.set(xlabel="megapixels", ylabel="seconds an image", xlim=(0, None), ylim=(0, None), title="cost against area")
    right.legend()
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    atomic.write_bytes(path, buffer.getvalue())
