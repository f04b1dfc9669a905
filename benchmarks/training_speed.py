"""Samples a second of a training step, and the share of the machine's matrix products, by precision and memory format.

    python benchmarks/training_speed.py RESULTS --data-root DATA

DATA holds `cric`. Every part runs its bundled recipe in every combination, one step of each in turn, so that other work
on the machine slows all of them alike; the fastest step counts. The first row of a part is how it was trained before.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from cytosynth.cell import recipe as cell
from cytosynth.cell.crops import crops_of
from cytosynth.cell.train import CellTask
from cytosynth.data import sources
from cytosynth.data.sources import Sample, Source
from cytosynth.detection import recipe as detector
from cytosynth.detection.train import DetectorTask
from cytosynth.foundation.load import load
from cytosynth.foundation.scratch import denoiser, recipe
from cytosynth.foundation.scratch.autoencoder import AutoencoderTask
from cytosynth.io.report import Report
from cytosynth.training.recipe import Recipe
from cytosynth.training.task import Task
from cytosynth.training.trainer import Trainer

COMBINATIONS = (("no", "contiguous"), ("no", "channels_last"), ("bf16", "contiguous"), ("bf16", "channels_last"))
SIDE = 2048
"""Of the square matrices of the peak."""


def parts(samples: list[Sample], work: Path) -> dict[str, tuple[Recipe, Callable[[], Task]]]:
    """Return by name each part's recipe, and what makes its task."""
    detection = detector.preset("bundled")

    def a_denoiser() -> Task:
        model = load("bundled")
        own = recipe.DENOISER.model_copy(update={"block_out_channels": [64, 112, 160, 160]})
        fresh = denoiser.build(own, model.vae, model.tokenizer, model.text_encoder)
        return denoiser.DenoiserTask(own, fresh, samples[:4], work / "latents")

    def a_synthesizer() -> Task:
        own = cell.PRESETS["bundled"].model_copy(update={"validate_every": 0, "variants": 1, "most_cells": 40})
        return CellTask(own, load("bundled"), crops_of(samples, own, 1, own.zoom), [], work / "latents")

    return {
        "autoencoder": (recipe.AUTOENCODER, lambda: AutoencoderTask(recipe.AUTOENCODER, samples, [])),
        "denoiser": (recipe.DENOISER, a_denoiser),
        "synthesizer": (cell.PRESETS["bundled"], a_synthesizer),
        "detector": (detection, lambda: DetectorTask(detection, samples, [])),
    }


def peak(dtype: torch.dtype) -> float:
    """Return floating-point operations a second of products of square matrices."""
    a, b = (torch.randn(SIDE, SIDE, dtype=dtype) for _ in range(2))
    return 2 * SIDE**3 / min(timed(lambda: a @ b) for _ in range(20))


def timed(what: Callable[[], object]) -> float:
    """Return the seconds that `what` takes."""
    started = time.perf_counter()
    what()
    return time.perf_counter() - started


def main() -> None:
    """Measure, print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path)
    parser.add_argument("--data-root", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--parts", nargs="+", default=["autoencoder", "denoiser", "synthesizer", "detector"])
    given = parser.parse_args()
    samples = sources.load([Source(root="cric", scale=0.5)], given.data_root)[:24]
    peaks = {"no": peak(torch.float32), "bf16": peak(torch.bfloat16)}
    rows = []
    for name in given.parts:
        with tempfile.TemporaryDirectory() as folder:
            base, build = parts(samples, Path(folder))[name]
            trainers, steps = {}, {key: list[float]() for key in COMBINATIONS}
            for precision, layout in COMBINATIONS:
                made = base.model_copy(update={"mixed_precision": precision, "memory_format": layout})
                trainers[precision, layout] = Trainer(build, made, Path(folder))
                with FlopCounterMode(display=False) as counter:
                    trainers[precision, layout].advance()
            work = counter.get_total_flops()
            for _ in range(given.steps):
                for key, trainer in trainers.items():
                    steps[key].append(timed(trainer.advance))
            for (precision, layout), found in steps.items():
                fast = min(found)
                chosen = (precision, layout) == (base.mixed_precision, base.memory_format)
                rows.append(
                    (name, {"no": "float32"}.get(precision, precision), layout, base.batch_size, fast,
                     base.batch_size / fast, min(steps["no", "contiguous"]) / fast, work / fast / peaks[precision],
                     "recipe" if chosen else "")
                )  # fmt: skip
    report = Report(
        "Speed of a training step",
        {"threads": torch.get_num_threads(), "torch": torch.__version__, "steps": given.steps,
         "float32 TFLOP/s": peaks["no"] / 1e12, "bf16 TFLOP/s": peaks["bf16"] / 1e12},
        ("part", "precision", "memory format", "batch", "s a step", "samples a second", "times float32",
         "share of peak", "chosen"),
        tuple(rows),
        ("share of peak: operations of convolutions and products over those of square products of the precision",
         "of a depthwise convolution PyTorch counts the backward pass as if it were dense, so the detector's share is "
         "too high",
         "s a step: the fastest of the steps"),
    )  # fmt: skip
    report.show()
    report.write(given.results, "training_speed")


if __name__ == "__main__":
    main()
