"""Seconds of an image by OpenVINO against PyTorch, in turns in one process, and how far its pixels are from PyTorch's.

    export OMP_NUM_THREADS=1
    taskset -c 0 python benchmarks/engines.py --precision bf16
    taskset -c 0 python benchmarks/engines.py --random-weights --set normal.size=512 --set normal.steps=2
    taskset -c 0 python benchmarks/engines.py --only openvino     # its peak memory

An image is a field of the bundled models with eight cells on a grid, `cytosynth benchmark`'s; with `--random-weights` a
field alone, by networks of Stable Diffusion 1.5's size. Seconds are those of the process, without loading, conversion,
and writing.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from cytosynth import devices
from cytosynth.benchmark import models
from cytosynth.benchmark.stages import watched
from cytosynth.benchmark.stopwatch import Stopwatch
from cytosynth.config import override
from cytosynth.foundation.precision import prepare, resolved
from cytosynth.normal.generate import NormalImageGenerator
from cytosynth.synthesis.jobs import fields
from cytosynth.synthesis.models import NONE, Models
from cytosynth.synthesis.settings import PipelineSettings

ENGINES = ("torch", "openvino")
Image = Callable[[int], np.ndarray]


class ProcessTime(Stopwatch):
    """A stopwatch of the seconds that the process computes, which other processes hardly change."""

    def _now(self) -> float:
        return time.process_time()


def whole(settings: PipelineSettings, cells: int) -> tuple[Image, Stopwatch]:
    """Return what makes the annotated image of a number, and the stopwatch of its stages."""
    settings = settings.model_copy(update={"min_cells": cells, "max_cells": cells, "choice": "score"})
    given = Models("bundled", "bundled", NONE, "bundled", "bundled", True, settings)
    pipeline = models.loaded(given, cells, settings.precision, random=False)
    settings = pipeline.settle(settings)
    clock = ProcessTime(torch.device("cpu"))
    found = watched(pipeline)
    found.stage = clock.stage  # type: ignore[method-assign]

    def image(number: int) -> np.ndarray:
        with clock.stage("other"):
            return next(iter(pipeline.make(fields([number], settings), settings, _fail))).pixels

    return image, clock


def field(settings: PipelineSettings) -> tuple[Image, Stopwatch]:
    """Return what generates the field of a number with random weights, and the stopwatch of its stages."""
    model = models.random_foundation(torch.device("cpu")).freeze()
    generator = NormalImageGenerator(model, None)
    prepare(generator.model, resolved(settings.precision, "cpu"), engine=settings.engine)
    clock = ProcessTime(torch.device("cpu"))
    clock.watch(generator.model, "decode_latents", "decode")
    clock.watch(generator, "fields", "field")
    return lambda number: generator.field(0, number, settings.normal), clock


def _fail(_: Any, error: Exception) -> None:
    raise error


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--cells", type=int, default=8)
    parser.add_argument("--random-weights", action="store_true")
    parser.add_argument("--only", choices=ENGINES, help="only this engine, and no pairs: its peak memory")
    parser.add_argument("--set", action="append", default=[], help="as of `synthesize`")
    given = parser.parse_args()
    ways = {}
    for engine in [given.only] if given.only else ENGINES:
        precision = resolved(given.precision, "cpu")
        settings = override(PipelineSettings(), [f"precision={precision}", f"engine={engine}", *given.set])
        ways[engine] = field(settings) if given.random_weights else whole(settings, given.cells)
        loaded = devices.peak_memory()
        begun = time.process_time()
        ways[engine][0](0)
        print(f"{engine}, {precision}: first image {time.process_time() - begun:.1f} s; peak memory of the process "
              f"{loaded / 2**30:.2f} GiB loaded, {devices.peak_memory() / 2**30:.2f} GiB then", flush=True)  # fmt: skip
    if given.only:
        return
    rows: dict[str, list[dict[str, float]]] = {engine: [] for engine in ENGINES}
    off: list[np.ndarray] = []
    for number in range(1, given.pairs + 1):
        made = {}
        for engine in ENGINES if number % 2 else ENGINES[::-1]:
            image, clock = ways[engine]
            clock.seconds.clear()
            made[engine] = image(number).astype(int)
            rows[engine].append(dict(clock.seconds) | {"all": sum(clock.seconds.values())})
        off.append(np.abs(made["openvino"] - made["torch"]))
        ratio = rows["torch"][-1]["all"] / rows["openvino"][-1]["all"]
        print(f"{number}: {rows['torch'][-1]['all']:.2f} s / {rows['openvino'][-1]['all']:.2f} s = {ratio:.2f}; pixels "
              f"move by {off[-1].mean():.3f}, {off[-1].max()} at most", flush=True)  # fmt: skip
    for stage in rows["torch"][0]:
        pairs = [(a[stage], b[stage]) for a, b in zip(rows["torch"], rows["openvino"], strict=True) if b.get(stage)]
        ratios = [a / b for a, b in pairs]
        if ratios:
            print(f"{stage}: {statistics.median(a for a, _ in pairs):.2f} s / "
                  f"{statistics.median(b for _, b in pairs):.2f} s; ratios: least {min(ratios):.2f}, median "
                  f"{statistics.median(ratios):.2f}")  # fmt: skip
    print(
        f"pixels: {np.mean([one.mean() for one in off]):.3f} on average, {max(int(one.max()) for one in off)} at most"
    )


if __name__ == "__main__":
    main()
