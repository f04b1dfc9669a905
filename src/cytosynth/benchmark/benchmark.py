"""`cytosynth benchmark`: measure stages, cost against count and side, and compare with diffusers."""

import time
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from .. import __version__, devices
from ..foundation.model import DTYPES
from ..foundation.names import PAPER_GUIDANCE
from ..foundation.precision import memory_format, precision_of
from ..io import lock
from ..io.progress import meter
from ..io.report import Report
from ..synthesis.computing import decided
from ..synthesis.models import Models
from ..synthesis.pipeline import Pipeline
from ..synthesis.settings import PipelineSettings
from . import compare, plot, reports, stages
from .models import forget_texts, loaded
from .settings import BenchmarkSettings
from .stages import Run

FULL = {"precision": "fp32", "compiled": False, "engine": "torch"}
PAPER = {"sampler": "ddim", "guidance_scale": PAPER_GUIDANCE, "batch": 1}
"""Of both stages in the paper's recipe, in float32."""


@dataclass(frozen=True)
class Measured:
    """Everything that was measured.

    Attributes:
        settings: of the benchmark, with what the machine decided.
        facts: the machine, the models.
        peak: floating-point operations a second of matrix products in the precision of the run.
        load: seconds for loading the models.
        counts: a run for each count.
        sides: a run for each side.
        fields: seconds per field by program.
        off: greatest and mean difference of the pixels of such a field; see `compare.fields`.
        cells: seconds of the cells of an image together, and one by one.
        paper: an image by the paper's recipe.
    """

    settings: BenchmarkSettings
    facts: dict[str, Any]
    peak: float
    load: float
    counts: list[Run]
    sides: list[Run]
    fields: dict[str, float]
    off: dict[str, tuple[int, float]]
    cells: tuple[float, float]
    paper: Run


def benchmark(out: Path, settings: BenchmarkSettings, models: Models, *, random: bool = False) -> dict[str, Report]:
    """Measure with `models`, or `random` ones of Stable Diffusion 1.5's size; return the tables by name.

    Writes `speed`, `speed_count`, `speed_side` and `speed_diffusers` (.md, .csv, .json) and `speed.png` into `out`; the
    images are written there, too, and removed at the end.
    """
    settings.check()
    device = str(devices.available(models.device))
    chosen = decided(settings.pipeline, None, device)
    cells = {"min_cells": settings.cells, "max_cells": settings.cells, "choice": "score"}
    settings = settings.model_copy(update={"pipeline": chosen.model_copy(update=cells)})
    models = replace(models, settings=settings.pipeline, device=device)
    with lock.only(out), devices.threads(chosen.threads):
        with TemporaryDirectory(prefix=".images-", dir=out) as images:
            measured = _measured(Path(images), settings, models, random)
        tables = reports.tables(measured)
        for name, table in tables.items():
            table.write(out, name)
        plot.write(out / "speed.png", measured.counts, measured.sides)
    return tables


def _measured(out: Path, settings: BenchmarkSettings, models: Models, random: bool) -> Measured:
    device = torch.device(models.device)
    begun = time.perf_counter()
    ours = loaded(models, settings.cells, settings.pipeline.precision, random=random)
    load = time.perf_counter() - begun
    settings = settings.model_copy(update={"pipeline": ours.settle(settings.pipeline)})
    pipeline = settings.pipeline
    precision = precision_of(ours.editor.model)
    with meter("measuring the peak", 1) as bar:
        peak = devices.measured_peak(device, DTYPES[precision])
        bar.advance()
    fields, off, cells, paper = _compared(out, settings, ours, models, random)
    clock = stages.watched(ours)
    stages.run(ours, clock, 1, pipeline, out / "first")  # kernels are chosen, memory is asked for
    forget_texts(ours)
    counts = [stages.run(ours, clock, count, pipeline, out / f"{count}") for count in settings.counts]
    sides = []
    for side in settings.sides:
        sized = pipeline.model_copy(update={"normal": pipeline.normal.model_copy(update={"size": side})})
        stages.run(ours, clock, 1, sized, out / f"side-{side}-first")
        sides.append(stages.run(ours, clock, 2, sized, out / f"side-{side}"))
    facts = _facts(ours, pipeline, device, random) | reports.operations(ours, pipeline)
    return Measured(settings, facts, peak, load, counts, sides, fields, off, cells, paper)


def _compared(
    out: Path, settings: BenchmarkSettings, ours: Pipeline, models: Models, random: bool
) -> tuple[dict[str, float], dict[str, tuple[int, float]], tuple[float, float], Run]:
    """Return fields, differences, cells and the image by the paper's recipe, as `Measured` has them."""
    generator, pipeline = ours.generator, settings.pipeline
    full = loaded(replace(models, settings=pipeline.model_copy(update=FULL)), settings.cells, "fp32", random=random)
    assert generator is not None and full.generator is not None
    with meter("against diffusers", 6 * (settings.repeats + 1)) as bar:
        fields, off = compare.fields(generator, full.generator, pipeline.normal, settings.repeats, bar)
        cells = compare.cells(ours, pipeline, settings.cells, settings.repeats, bar)
    alone = PAPER | {"steps": settings.paper_steps}
    recipe = pipeline.model_copy(update=FULL | {
        "normal": pipeline.normal.model_copy(update=alone), "cell": pipeline.cell.model_copy(update=alone),
    })  # fmt: skip
    paper = stages.run(full, stages.watched(full), 1, recipe, out / "paper")
    return fields, off, cells, paper


def _facts(ours: Pipeline, pipeline: PipelineSettings, device: torch.device, random: bool) -> dict[str, Any]:
    precision = precision_of(ours.editor.model)
    return {
        "device": devices.named(device), "threads": pipeline.threads or torch.get_num_threads(), "precision": precision,
        "memory_format": str(memory_format(precision)).removeprefix("torch."), "compiled": pipeline.compiled,
        "engine": pipeline.engine,
        "steps": f"{pipeline.normal.steps} ({pipeline.normal.sampler}), cells {pipeline.cell.steps}",
        "guidance_scale": f"{pipeline.normal.guidance_scale:g}, cells {pipeline.cell.guidance_scale:g}",
        "batch": f"{pipeline.normal.batch} fields, {pipeline.cell.together} cells",
        "models": "random weights of Stable Diffusion 1.5's size" if random else ours.models(),
        "software": f"CytoSynth {__version__}, PyTorch {torch.__version__}",
    }  # fmt: skip
