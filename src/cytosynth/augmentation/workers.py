"""Several trainings at a time, each in its own process, on devices in turn."""

import os
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from functools import partial
from io import TextIOWrapper
from itertools import islice
from multiprocessing import get_context, parent_process
from multiprocessing.connection import Connection
from pathlib import Path
from threading import Thread
from typing import Any, TypeVar

import torch

from .. import devices as place

T = TypeVar("T")
FOLDERS = re.compile(r"(?<![\w.~/-])/(?:(?:[^\n/:]|:(?! ))+/)+")
"""The folders of an absolute path, which may have blanks in their names."""


def each(
    work: Callable[[T, str], None], todo: Sequence[T], logs: Path, devices: Sequence[str], workers: int
) -> Iterator[T]:
    """Yield each of `todo` when `work`, called with it and a device, is done with it.

    When one of several fails, or this process is interrupted, the others are stopped as by SIGTERM: a training saves a
    checkpoint and ends.

    Args:
        work: can be pickled, where there are several workers.
        todo: what is to be done; the same.
        logs: folder for the progress of several workers, a file for each.
        devices: go to the workers in turn.
        workers: at a time; a single one is this process.

    Raises what `work` does, and UsageError for a device that is not available.
    """
    for name in devices:
        place.check(name)
    if workers == 1:
        place.use(devices[0])
        for one in todo:
            work(one, devices[0])
            yield one
        return
    context = get_context("spawn")
    queue = context.Queue()
    told, line = context.Pipe(duplex=False)
    for number in range(workers):
        queue.put((number, devices[number % len(devices)], workers))
    logs.mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor(workers, context, initializer=_begin, initargs=(queue, told, logs)) as pool:
        waiting = iter(todo)
        running: dict[Future[None], T] = {}
        try:
            while True:
                # No more than can run: the pool would hand out what waits even after it was told to end.
                for one in islice(waiting, workers - len(running)):
                    running[pool.submit(partial(_there, work), one)] = one
                if not running:
                    return
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    one = running.pop(future)
                    future.result()
                    yield one
        finally:
            line.close()


class _Worker:
    """The state of a worker.

    Attributes:
        device: where it works.
        told: its end tells the worker to stop, also if the process that started it was killed.
        busy: whether it is at work.
        stopping: whether its work was interrupted.
    """

    device: str
    told: "Connection[Any, Any]"
    busy = False
    stopping = False


class _Log(TextIOWrapper):
    """The output of a worker, without the folders of this machine."""

    def write(self, text: str) -> int:
        return super().write(FOLDERS.sub("", text))


def _begin(queue: Any, told: "Connection[Any, Any]", logs: Path) -> None:
    """Give this worker its device, its share of the cores and a log for its progress."""
    number, device, workers = queue.get()
    sys.stderr = _Log((logs / f"{number}.log").open("ab"), "utf-8", "backslashreplace", line_buffering=True)
    _Worker.device, _Worker.told = place.only(device), told
    place.use(_Worker.device)
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // workers))
    signal.signal(signal.SIGTERM, _interrupt)
    Thread(target=_watch, daemon=True).start()


def _interrupt(_signal: int, _frame: Any) -> None:
    """End the work as Ctrl-C does, once: the pool and `_watch` may both call this, and saving must finish."""
    if not (_Worker.busy and _Worker.stopping):
        _Worker.stopping = True
        raise KeyboardInterrupt


def _watch() -> None:
    """Interrupt the work once all are to stop: a training takes note of it, saves and ends."""
    _Worker.told.poll(None)
    if _Worker.busy and sys.platform == "win32":
        signal.raise_signal(signal.SIGTERM)  # `os.kill` would end the process at once
    elif _Worker.busy:
        os.kill(os.getpid(), signal.SIGTERM)
    parent = parent_process()
    assert parent is not None
    parent.join()
    while _Worker.busy:
        time.sleep(0.1)
    os._exit(1)


def _there(work: Callable[[T, str], None], one: T) -> None:
    _Worker.busy = True
    try:
        if _Worker.told.poll():
            raise KeyboardInterrupt
        work(one, _Worker.device)
    finally:
        _Worker.busy = False
