"""Seconds by stage, and the peak memory."""

import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

import psutil
import torch

EVERY = 0.01
"""Seconds between two measurements of the memory."""


class Stopwatch:
    """Counts the seconds of each stage without those of the stages inside it; each thread has stages of its own."""

    def __init__(self, device: torch.device) -> None:
        """Wait for `device` at the beginning and the end of each stage: a GPU works asynchronously."""
        self.device = device
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self._of = threading.local()

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count the seconds of the block for `name`."""
        now = self._now()
        stack: list[str] = self._of.__dict__.setdefault("stack", [])
        if stack:
            self.seconds[stack[-1]] += now - self._of.begun
        stack.append(name)
        self._of.begun = now
        try:
            yield
        finally:
            now = self._now()
            self.seconds[stack.pop()] += now - self._of.begun
            self._of.begun = now

    def watch(self, owner: object, method: str, stage: str) -> None:
        """From now on, count every call of `method` of the object `owner` for `stage`."""
        inner = getattr(owner, method)

        @wraps(inner)
        def timed(*arguments: Any, **options: Any) -> Any:
            with self.stage(stage):
                return inner(*arguments, **options)

        setattr(owner, method, timed)

    def _now(self) -> float:
        wait(self.device)
        return time.perf_counter()


def wait(device: torch.device) -> None:
    """Wait until `device` has finished all its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


class Memory:
    """The peak memory of a block, bytes: of a GPU what PyTorch allocated, else of the whole process."""

    def __init__(self, device: torch.device) -> None:
        """Measure the memory of `device`."""
        self.device, self.peak = device, 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> "Memory":
        """Start measuring."""
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        else:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop measuring."""
        if self.device.type == "cuda":
            self.peak = torch.cuda.max_memory_allocated(self.device)
        else:
            self._ended.set()
            self._thread.join()

    def _look(self) -> None:
        process = psutil.Process()
        while True:
            self.peak = max(self.peak, process.memory_info().rss)
            if self._ended.wait(EVERY):
                return
