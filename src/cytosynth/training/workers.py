"""Several trainings at a time, each in a process of its own, on devices in turn."""

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar

import torch

DEVICE = "CYTOSYNTH_WORKER_DEVICE"
T = TypeVar("T")


def each(
    work: Callable[[T, str], None], todo: Sequence[T], logs: Path, devices: Sequence[str], workers: int
) -> Iterator[T]:
    """Yield each of `todo` when `work`, called with it and a device, is done with it.

    Args:
        work: can be pickled, where there are several workers.
        todo: what is to be done; the same.
        logs: folder for the progress of several workers, a file for each.
        devices: go to the workers in turn.
        workers: at a time; a single one is this process.
    """
    if workers == 1:
        for one in todo:
            work(one, devices[0])
            yield one
        return
    context = get_context("spawn")
    queue = context.Queue()
    for number in range(workers):
        queue.put((number, devices[number % len(devices)], workers))
    logs.mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor(workers, context, initializer=_begin, initargs=(queue, logs)) as pool:
        running = {pool.submit(partial(_there, work), one): one for one in todo}
        try:
            for future in as_completed(running):
                future.result()
                yield running[future]
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _begin(queue: Any, logs: Path) -> None:
    """Give this worker its device, its share of the cores and a log for its progress."""
    number, device, workers = queue.get()
    sys.stderr = (logs / f"{number}.log").open("a")
    os.environ[DEVICE] = device
    if device.startswith("cuda:"):
        os.environ["CUDA_VISIBLE_DEVICES"] = device.removeprefix("cuda:")
        os.environ[DEVICE] = "cuda"
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // workers))


def _there(work: Callable[[T, str], None], one: T) -> None:
    work(one, os.environ[DEVICE])
