"""The batches of a run: each depends only on (seed, rank, step, micro-step); on a GPU they are made one ahead."""

from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch

from .recipe import Recipe
from .task import Batch, Task

Place = tuple[int, int]
"""Step and micro-step."""


class Batches:
    """Makes the batches of `task`, and sets the seed of the random numbers within a step (noise, dropout).

    A thread makes the next batch while a GPU computes. On a CPU this would gain nothing: its cores are busy.
    """

    def __init__(self, task: Task, recipe: Recipe, rank: int, device: torch.device) -> None:
        """Get ready to make batches for the process `rank`, moved to `device`."""
        self.task, self.recipe, self.rank, self.device = task, recipe, rank, device
        self.thread = ThreadPoolExecutor(1) if device.type != "cpu" else None
        self.ahead: tuple[Place, Future[tuple[Batch, int]]] | None = None

    def take(self, step: int, micro: int) -> Batch:
        """Return the batch of that step and micro-step, and seed PyTorch's generators for it."""
        batch, seed = self._made((step, micro))
        torch.manual_seed(seed)
        return batch

    def close(self) -> None:
        """End the thread."""
        if self.thread:
            self.thread.shutdown(cancel_futures=True)

    def _made(self, place: Place) -> tuple[Batch, int]:
        if self.thread is None:
            return self._make(place)
        waiting = self.ahead[1] if self.ahead and self.ahead[0] == place else self.thread.submit(self._make, place)
        made = waiting.result()
        step, micro = place
        after = (step, micro + 1) if micro + 1 < self.recipe.gradient_accumulation else (step + 1, 0)
        self.ahead = (after, self.thread.submit(self._make, after))
        return made

    def _make(self, place: Place) -> tuple[Batch, int]:
        rng, seed = seeded(self.recipe.seed, self.rank, *place)
        return moved(self.task.batch(rng, self.recipe.batch_size), self.device), seed


def seeded(seed: int, rank: int, step: int, micro: int) -> tuple[np.random.Generator, int]:
    """Return the generator of a batch, and the seed of PyTorch's random numbers in its step.

    So a run that was killed and continued has the same data and the same noise as an uninterrupted one.
    """
    rng = np.random.default_rng([seed, rank, step, micro])
    return rng, int(rng.integers(2**63))


def moved(batch: Batch, device: torch.device) -> Batch:
    """Return `batch` with its tensors on `device`."""
    return {key: value.to(device, non_blocking=True) if hasattr(value, "to") else value for key, value in batch.items()}
