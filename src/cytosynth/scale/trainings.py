"""Trainings of an experiment on the workers of a Ray cluster; they write to a file system that all nodes share."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, TypeVar

from .. import devices
from .pool import Pool

T = TypeVar("T")


class TrainingWorker:
    """Does one training after the other, in a process of its own."""

    def __init__(self, work: Callable[[Any, str], None], device: str) -> None:
        """Train on `device` by calling `work` with what is to be trained and the device."""
        self.work, self.device = work, device
        devices.use(device)

    def about(self) -> str:
        """Return where it trains."""
        return self.device

    def add(self, key: str, item: Any) -> list[tuple[str, None]]:
        """Do the training `item`."""
        self.work(item, self.device)
        return [(key, None)]

    def flush(self) -> list[tuple[str, None]]:
        """Return nothing: no training waits."""
        return []


def each(work: Callable[[T, str], None], todo: Sequence[T], address: str, device: str) -> Iterator[T]:
    """Yield each of `todo` when `work`, called with it and `device` on a node of the cluster at `address`, is done.

    A training whose worker is lost is given to another, which continues from its last checkpoint.
    """
    numbered = {str(number): one for number, one in enumerate(todo, 1)}
    if not numbered:
        return
    with Pool[T, None](address, partial(TrainingWorker, work, device), device, ahead=1) as pool:
        for key, _ in pool.each(numbered.items()):
            yield numbered[key]
