"""What is installed and available: Python, packages, devices, memory, disk, extras, models, caches."""

import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from ..io.bundled import bundled, cache_folder
from .line import GIB, Line, disk, memory

REQUIRED = ("torch", "torchvision", "diffusers", "transformers", "peft", "accelerate", "safetensors")
EXTRAS = {
    "slides": ("openslide-python", "tifffile"),
    "studio": ("starlette", "uvicorn"),
    "parquet": ("pyarrow",),
    "ray": ("ray",),
    "tensorboard": ("tensorboard",),
    "openvino": ("openvino",),
}
"""Packages of each optional extra, any of which shows that it is installed."""
FREE = 2.0
"""GB below which there is a note."""


def examine(folder: Path) -> list[Line]:
    """Return what was found of Python, packages, devices, memory, disk at `folder`, extras, models and caches."""
    return [
        Line("Python", "ready" if sys.version_info >= (3, 11) else "missing", platform.python_version(),
             "" if sys.version_info >= (3, 11) else "install Python 3.11 or newer"),
        *(_package(name) for name in REQUIRED),
        *_devices(),
        Line("memory", "ready" if memory() >= 8 else "note", f"{memory():.0f} GB",
             "" if memory() >= 8 else "less than the recommended 8 GB; use small batches"),
        disk(folder, FREE),
        *(_extra(name, packages) for name, packages in EXTRAS.items()),
        _models(),
        Line("caches", "ready", f"{cache_folder()} ({_size(cache_folder()):.2f} GB)", "may be deleted at any time"),
    ]  # fmt: skip


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
