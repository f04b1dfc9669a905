"""Against diffusers' own pipeline on the same weights, and against the paper's recipe, side by side in one run."""

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline

from ..cell.edit import PlannedEdit
from ..data.image_files import Pixels
from ..foundation import sampling
from ..foundation.model import Foundation
from ..foundation.precision import precision_of
from ..io.progress import Meter
from ..normal.generate import NormalImageGenerator
from ..normal.settings import GenerateSettings
from ..synthesis.pipeline import Pipeline
from ..synthesis.settings import PipelineSettings
from .stopwatch import wait

SEED = 11


def shipped(model: Foundation) -> Any:
    """Return diffusers' pipeline on the networks of `model`, as diffusers loads it."""
    pipeline = StableDiffusionPipeline(
        vae=model.tiny_decoder or model.vae, text_encoder=model.text_encoder, tokenizer=model.tokenizer,
        unet=model.unet, scheduler=DDIMScheduler.from_config(model.scheduler.config), safety_checker=None,
        feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def field_of(pipeline: Any, generator: NormalImageGenerator, settings: GenerateSettings) -> Pixels:
    """Return the field that diffusers' `pipeline` generates from the noise of field 0 of `generator`."""
    model = generator.model
    side = settings.size // model.factor
    noise = sampling.noise((1, model.channels, side, side), SEED, 0, 1)
    with torch.no_grad():
        drawn = pipeline(
            prompt=[settings.prompt or generator.prompt], negative_prompt=[""], height=settings.size,
            width=settings.size, num_inference_steps=settings.steps, guidance_scale=settings.guidance,
            guidance_rescale=settings.guidance_rescale, latents=noise.to(model.device, pipeline.unet.dtype),
            output_type="np",
        )  # fmt: skip
    return np.asarray((drawn.images[0] * 255).round().astype(np.uint8))


def fields(
    ours: NormalImageGenerator, full: NormalImageGenerator, settings: GenerateSettings, repeats: int, bar: Meter
) -> tuple[dict[str, float], dict[str, tuple[int, float]]]:
    """Return the median seconds per field by program, and the greatest and mean difference of its pixels.

    Those of diffusers' fields are from ours in the same precision, that of ours is from ours in float32.

    Args:
        ours: in the precision of the run.
        full: the same in float32.
        settings: of the field; DDIM, which both have.
        repeats: of each, in turn.
        bar: advanced for each.
    """
    precision = precision_of(ours.model)
    plain, same = shipped(full.model), shipped(ours.model)
    one = settings.model_copy(update={"sampler": "ddim", "batch": 1, "low_frequencies": False})  # as diffusers begins
    ways: dict[str, Callable[[], Pixels]] = {
        "ours": lambda: ours.field(SEED, 0, one),
        "ours, fp32": lambda: full.field(SEED, 0, one),
        "as it ships": lambda: field_of(plain, full, one),
        f"in {precision}": lambda: field_of(same, ours, one),
    }
    seconds, drawn = medians(ways, repeats, ours.model.device, bar)
    pairs = {"as it ships": "ours, fp32", f"in {precision}": "ours", "ours": "ours, fp32"}
    apart = {name: np.abs(drawn[name].astype(int) - drawn[own]) for name, own in pairs.items()}
    return seconds, {name: (int(one.max()), float(one.mean())) for name, one in apart.items()}


def cells(pipeline: Pipeline, settings: PipelineSettings, count: int, repeats: int, bar: Meter) -> tuple[float, float]:
    """Return the median seconds of editing `count` cells in full batches, and one by one."""
    editor = pipeline.editor
    rng = np.random.default_rng(SEED)
    pixels = rng.integers(0, 256, (256, 256, 3), dtype=np.uint8)
    names = [editor.categories[number % len(editor.categories)] for number in range(count)]
    wanted = [(pixels, PlannedEdit((96.0, 96.0, 160.0, 160.0), name, number)) for number, name in enumerate(names)]
    alone = settings.cell.model_copy(update={"batch": 1})
    ways: dict[str, Callable[[], object]] = {
        "together": lambda: editor.paint(wanted, settings.cell), "one by one": lambda: editor.paint(wanted, alone),
    }  # fmt: skip
    seconds, _ = medians(ways, repeats, editor.model.device, bar)
    return seconds["together"], seconds["one by one"]


def medians(
    ways: Mapping[str, Callable[[], Any]], repeats: int, device: torch.device, bar: Meter
) -> tuple[dict[str, float], dict[str, Any]]:
    """Return the median seconds and the last result of each of `ways`, which alternate after a first call of each."""
    found: dict[str, list[float]] = {name: [] for name in ways}
    results: dict[str, Any] = {}
    for number in range(repeats + 1):
        for name, way in ways.items():
            wait(device)
            begun = time.perf_counter()
            results[name] = way()
            wait(device)
            if number:
                found[name].append(time.perf_counter() - begun)
            bar.advance(name)
    return {name: statistics.median(seconds) for name, seconds in found.items()}, results
