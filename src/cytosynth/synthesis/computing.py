"""The settings of a run that depend on the machine: precision, engine, batch and threads. They are chosen once and
written with the settings.

A run that continues uses the written values on any machine; otherwise pixels would differ in their last bits.
"""

import torch

from .. import devices
from ..cell.settings import TOGETHER, TOGETHER_ON_GPU
from ..foundation import openvino_engine
from ..foundation.precision import resolved
from .settings import PipelineSettings


def decided(settings: PipelineSettings, written: PipelineSettings | None, device: str) -> PipelineSettings:
    """Return `settings` with what they leave open of precision, engine, threads and batch; continued, of guidance too.

    Args:
        settings: as they are asked for.
        written: those of the run that is continued, which take precedence; None for a new run. device: cpu, cuda ...;
        determines the values of a new run.

    Raises UsageError or EnvironmentProblem where the engine cannot compute so on `device`.
    """
    source = best(settings, device) if written is None else written
    update: dict[str, object] = {}
    if settings.precision == "auto":
        update["precision"] = source.precision
    if settings.engine is None:
        update["engine"] = source.engine
    if settings.threads is None:
        update["threads"] = source.threads
    if written and settings.normal.guidance_scale is None:
        scale = written.normal.guidance_scale
        update["normal"] = settings.normal.model_copy(update={"guidance_scale": scale})
    if settings.cell.batch is None:
        update["cell"] = settings.cell.model_copy(update={"batch": source.cell.batch})
    settings = settings.model_copy(update=update)
    if settings.engine == "openvino":
        openvino_engine.check(resolved(settings.precision, device), settings.compiled, device)
    return settings


def best(settings: PipelineSettings, device: str) -> PipelineSettings:
    """Return `settings` with the precision, engine, threads and batch for a new run on `device`.

    Threads are not written for a GPU, where pixels do not depend on them.
    """
    on_gpu = devices.kind(device) == "cuda"
    batch = TOGETHER_ON_GPU if on_gpu else TOGETHER
    update = {
        "precision": resolved("auto", device), "engine": "torch",
        "threads": None if on_gpu else torch.get_num_threads(),
        "cell": settings.cell.model_copy(update={"batch": batch}),
    }  # fmt: skip
    return settings.model_copy(update=update)


def computed(settings: PipelineSettings) -> dict[str, object]:
    """Return the settings that say not what is made, but how it is other."""
    return {
        "precision": settings.precision, "compiled": settings.compiled, "engine": settings.engine,
        "threads": settings.threads,
        "normal.batch": settings.normal.batch, "cell.batch": settings.cell.batch,
    }  # fmt: skip


def as_computed(settings: PipelineSettings, other: PipelineSettings) -> PipelineSettings:
    """Return `settings`, computed as `other` are."""
    update = {
        "precision": other.precision, "compiled": other.compiled, "engine": other.engine, "threads": other.threads,
        "normal": settings.normal.model_copy(update={"batch": other.normal.batch}),
        "cell": settings.cell.model_copy(update={"batch": other.cell.batch}),
    }  # fmt: skip
    return settings.model_copy(update=update)
