"""Whether this machine is ready, and what a training will take here: what `cytosynth doctor` says."""

import os
import platform
import shutil
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal, NamedTuple

import psutil
import torch
from torch.utils.flop_counter import FlopCounterMode

from .cell import patch
from .cell.recipe import PRESETS as CELL
from .cell.recipe import CellRecipe
from .io.bundled import bundled, cache_folder
from .normal import memory
from .normal.recipe import NormalRecipe
from .normal.recipe import preset as recipe_of

GIB = 2**30
REQUIRED = ("torch", "torchvision", "diffusers", "transformers", "peft", "accelerate", "safetensors")
EXTRAS = {
    "slides": ("openslide-python", "tifffile"),
    "studio": ("starlette", "uvicorn"),
    "parquet": ("pyarrow",),
    "ray": ("ray",),
    "tensorboard": ("tensorboard",),
}
"""Packages of each optional extra, any of which shows that it is installed."""
FREE = 2.0
"""GB below which there is a note."""
SLOW = 200
"""Hours above which another machine is advised."""
EFFICIENCY = 0.3
"""Share of the peak of matrix products that training steps are taken to reach: a judgement, hence a range of hours."""


class Line(NamedTuple):
    """What was looked at, whether it is ready, what was found, and what to do."""

    what: str
    state: Literal["ready", "note", "missing"]
    found: str
    todo: str = ""


def examine(folder: Path) -> list[Line]:
    """Return what was found of Python, packages, devices, memory, disk at `folder`, extras, models and caches."""
    return [
        Line("Python", "ready" if sys.version_info >= (3, 11) else "missing", platform.python_version(),
             "" if sys.version_info >= (3, 11) else "install Python 3.11 or newer"),
        *(_package(name) for name in REQUIRED),
        *_devices(),
        Line("memory", "ready" if _memory() >= 8 else "note", f"{_memory():.0f} GB",
             "" if _memory() >= 8 else "8 GB are recommended; use small batches"),
        _disk(folder, FREE),
        *(_extra(name, packages) for name, packages in EXTRAS.items()),
        _models(),
        Line("caches", "ready", f"{cache_folder()} ({_size(cache_folder()):.2f} GB)", "may be deleted at any time"),
    ]  # fmt: skip


def needs(part: str, preset: str, folder: Path) -> list[Line]:
    """Return the hours, GB of memory and GB of disk that training `part` by `preset` will take on this machine."""
    recipe = _recipe(part, preset)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    peak = measured_peak(device)
    hours = flops_of_step(recipe) * recipe.max_steps / (peak * EFFICIENCY) / 3600
    said = (
        f"{hours / 2:.2g} to {hours * 2:.2g} hours for {recipe.max_steps:,} steps "
        f"({device}, {peak / 1e12:.2g} TFLOP/s in matrix products)"
    )
    slow = hours > SLOW
    todo = "use a GPU, or --preset bundled" if slow else "an estimate; timing.jsonl of the run has the measured time"
    lines = [Line(f"train {part} --preset {preset}", "note" if slow else "ready", said, todo)]
    lines.append(_disk(folder, disk_of_run(recipe)))
    if isinstance(recipe, NormalRecipe):
        need = memory.count(recipe).peak / GIB + 1
        have = torch.cuda.get_device_properties(0).total_memory / GIB if device == "cuda" else _memory()
        todo = "" if need < have else "see `train normal --dry-run` for settings that reduce it"
        state: Literal["ready", "note"] = "ready" if need < have else "note"
        lines.append(Line("memory of a step", state, f"{need:.1f} GB of {have:.0f} GB", todo))
    return lines


def flops_of_step(recipe: NormalRecipe | CellRecipe) -> float:
    """Return the floating-point operations of an optimiser step of `recipe`: three forward passes of its U-Net.

    They are counted on tensors without content, for all micro-steps of a process.
    """
    side = (recipe.window if isinstance(recipe, NormalRecipe) else patch.SIZE) // 8
    with torch.device("meta"):
        model = memory.empty(recipe.foundation)
        latents = torch.empty(recipe.batch_size, model.unet.config.in_channels, side, side)
        text = torch.empty(recipe.batch_size, 77, model.unet.config.cross_attention_dim)
        with FlopCounterMode(display=False) as counter:
            model.unet(latents, torch.zeros(recipe.batch_size), text)
    return 3.0 * float(counter.get_total_flops()) * recipe.gradient_accumulation


def disk_of_run(recipe: NormalRecipe | CellRecipe) -> float:
    """Return the GB that a run writes at most: checkpoints (weights, two moments, average) and exported weights.

    Cached latents of the training images come on top, about a MB an image and turn.
    """
    with torch.device("meta"):
        every = sum(parameter.numel() for parameter in memory.empty(recipe.foundation).unet.parameters())
    trained = memory.count(recipe).parameters if isinstance(recipe, NormalRecipe) else every
    exported = 2 * trained if isinstance(recipe, NormalRecipe) else 2 * every
    return (4 * 4 * trained * (recipe.keep_checkpoints + 1) + 2 * exported) / 1e9


def measured_peak(device: str, side: int = 1024, seconds: float = 0.3) -> float:
    """Return the floating-point operations a second of products of `side` x `side` matrices on `device`."""
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    a = torch.randn(side, side, device=device, dtype=dtype)
    (a @ a).sum().item()
    begin, done = time.perf_counter(), 0
    while time.perf_counter() - begin < seconds:
        for _ in range(4):
            a @ a
        done += 4
        if device == "cuda":
            torch.cuda.synchronize()
    return 2 * side**3 * done / (time.perf_counter() - begin)


def _recipe(part: str, preset: str) -> NormalRecipe | CellRecipe:
    return recipe_of(preset) if part == "normal" else CELL[preset]


def _package(name: str) -> Line:
    try:
        return Line(name, "ready", version(name))
    except PackageNotFoundError:
        return Line(name, "missing", "not installed", f"pip install {name}")


def _devices() -> list[Line]:
    lines = []
    for number in range(torch.cuda.device_count()):
        about = torch.cuda.get_device_properties(number)
        lines.append(Line(f"cuda:{number}", "ready", f"{about.name}, {about.total_memory / GIB:.0f} GB"))
    if torch.backends.mps.is_available():
        lines.append(Line("mps", "ready", "Apple GPU"))
    if not lines:
        lines.append(Line("GPU", "note", "none available to PyTorch",
                          "the bundled models work on the CPU; Stable Diffusion 1.5 needs a GPU"))  # fmt: skip
    return [*lines, Line("CPU", "ready", f"{os.cpu_count()} cores, PyTorch uses {torch.get_num_threads()} threads")]


def _memory() -> float:
    """Return the machine's memory, GB."""
    return float(psutil.virtual_memory().total) / GIB


def _disk(folder: Path, wanted: float) -> Line:
    there = next(path for path in (folder.resolve(), *folder.resolve().parents) if path.exists())
    free = shutil.disk_usage(there).free / GIB
    todo = "" if free >= wanted else f"{wanted:.2g} GB are needed"
    return Line("disk", "ready" if free >= wanted else "note", f"{free:.0f} GB free, {wanted:.2g} GB needed", todo)


def _extra(name: str, packages: tuple[str, ...]) -> Line:
    for package in packages:
        try:
            version(package)
        except PackageNotFoundError:
            return Line(f"extra [{name}]", "note", "not installed", f"pip install 'cytosynth[{name}]' if you want it")
    return Line(f"extra [{name}]", "ready", ", ".join(f"{package} {version(package)}" for package in packages))


def _models() -> Line:
    sizes = {name: _size(bundled(name)) * 1000 for name in ("foundation", "normal", "cell", "detector")}
    return Line("bundled models", "ready", ", ".join(f"{name} {size:.0f} MB" for name, size in sizes.items()))


def _size(folder: Path) -> float:
    """Return what is in `folder`, GB."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e9 if folder.is_dir() else 0.0
