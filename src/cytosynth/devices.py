"""Which device computes: `auto`, cpu, cuda, cuda:1, mps ..."""

import os
import platform
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import torch
from accelerate import PartialState

from .errors import UsageError
from .io.progress import console

if sys.platform != "win32":
    import resource

ACCELERATE = "ACCELERATE_TORCH_DEVICE"
"""Environment variable in which `accelerate` looks for the device."""
VISIBLE = "CUDA_VISIBLE_DEVICES"


AUTO = "auto"
"""A CUDA GPU where there is one, else Apple's, else the CPU."""


def resolved(device: str) -> str:
    """Return `device`, and for `auto` the best one available, and print it once."""
    if device != AUTO:
        return device
    chosen = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    if chosen not in _said and (chosen != "cpu" or console.is_terminal):
        _said.add(chosen)
        about = torch.cuda.get_device_name() if chosen == "cuda" else f"{torch.get_num_threads()} threads"
        console.print(f"device: {chosen} ({about})")
    return chosen


_said: set[str] = set()


def kind(device: str) -> str:
    """Return the kind of device of `device`, available or not: cpu, cuda, mps ..."""
    return resolved(device).partition(":")[0]


def check(device: str) -> None:
    """Raise UsageError when `device` is a GPU of CUDA that is not available; no GPU is initialised for this check."""
    number = _number(device)
    if number is not None and number >= torch.cuda.device_count():
        raise UsageError(_missing(device))


def use(device: str) -> None:
    """Set the device of the trainings of this process: auto, cpu, cuda, cuda:1, mps ...

    Processes started by `accelerate launch` keep their device. Raises UsageError as `check` does.
    """
    device = resolved(device)
    check(device)
    if "LOCAL_RANK" in os.environ:
        return
    os.environ[ACCELERATE] = device
    PartialState._reset_state()  # it would keep that of an earlier training
    number = _number(device)
    if number is not None:
        torch.cuda.set_device(number)


def only(device: str) -> str:
    """Hide all other GPUs of CUDA from this process, which has not used any; return the name that `device` has then.

    Its number counts those that are visible, which `CUDA_VISIBLE_DEVICES` names by number or, parts of one, by UUID.
    """
    device = resolved(device)
    number = _number(device)
    if number is None:
        return device
    visible = os.environ.get(VISIBLE)
    os.environ[VISIBLE] = str(number) if visible is None else visible.split(",")[number].strip()
    return "cuda:0"


def first() -> bool:
    """Return whether this is the first of the processes that train together, or the only one."""
    return os.environ.get("RANK", "0") == "0"


def _number(device: str) -> int | None:
    """Return which GPU of CUDA `device` is, None if it is none."""
    kind, _, number = device.partition(":")
    if kind != "cuda":
        return None
    if number and not number.isdecimal():
        raise UsageError(f"--device {device}: expected a list of GPUs, as cuda:0,cuda:1")
    return int(number or 0)


def available(device: str) -> torch.device:
    """Return the torch device named `device`; raise UsageError when there is no such, or none here."""
    device = resolved(device)
    try:
        chosen = torch.device(device)
        torch.zeros(1, device=chosen).cpu()
    except (RuntimeError, AssertionError, ImportError):  # meta, which holds nothing, is NotImplementedError
        raise UsageError(_missing(device)) from None
    return chosen


def _missing(device: str) -> str:
    if device.startswith("cuda") and not torch.cuda.is_available():
        return f"--device {device}: CUDA is not available; use --device cpu"
    return f"--device {device}: not available here; use --device cpu"


@contextmanager
def threads(count: int | None) -> Iterator[None]:
    """Set PyTorch's number of CPU threads to `count` for the length of the block; None: unchanged."""
    before = torch.get_num_threads()
    if count is None or count == before:
        yield
        return
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def named(device: torch.device) -> str:
    """Return the display name of `device`: the name of a GPU, or that of the CPU with its cores."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type}, {cpu_name()}, {os.cpu_count()} cores"


def cpu_name() -> str:
    """Return the name of the CPU, as far as the system says it."""
    about = Path("/proc/cpuinfo")
    lines = about.read_text().splitlines() if about.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def measured_peak(device: torch.device, dtype: torch.dtype, seconds: float = 0.3) -> float:
    """Return the floating-point operations a second of products of large square matrices of `dtype` on `device`."""
    side = 8192 if device.type == "cuda" else 1024
    a = torch.randn(side, side, device=device, dtype=dtype)
    (a @ a).sum().item()
    begin, done = time.perf_counter(), 0
    while time.perf_counter() - begin < seconds:
        for _ in range(4):
            a @ a
        done += 4
        if device.type == "cuda":
            torch.cuda.synchronize(device)
    return 2 * side**3 * done / (time.perf_counter() - begin)


def peak_memory() -> int:
    """Return the most bytes of memory that this process has used; macOS counts them in bytes, Linux in KiB."""
    if sys.platform == "win32":
        return int(psutil.Process().memory_info().peak_wset)
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
