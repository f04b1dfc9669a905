"""A run in memory: the task, its optimisers, and its progress."""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from diffusers.training_utils import EMAModel
from torch import Tensor, nn

from ..errors import UserError
from . import checkpoint as checkpoints
from .batches import Batches
from .optimizer import build as build_optimizer
from .optimizer import lr_factor
from .recipe import Recipe
from .task import ADVERSARY, LOSS, Task


class Trainer:
    """Trains a task, one optimiser step at a time, and keeps its whole state in checkpoints.

    Attributes:
        task: what is trained.
        step: number of optimiser steps made.
        sums: losses since the last entry of `stats.jsonl`, summed over steps.
        last: the most recently read losses.
        main: whether this is the first of the processes that train together.
    """

    def __init__(self, build: Callable[[], Task], recipe: Recipe, run: Path, place: bool = True) -> None:
        """Build the task and its optimisers for the run folder `run`, and `place` them on the device, or leave them."""
        self.recipe, self.run = recipe, run
        self.accelerator = _accelerator(recipe, place)
        self.main = self.accelerator.is_main_process
        torch.manual_seed(recipe.seed)
        task = build().train()
        if recipe.memory_format == "channels_last":
            task.to(memory_format=torch.channels_last)
        groups = [task.groups()] + ([task.adversary_groups()] if task.adversary_groups() else [])
        self.parameters = [[parameter for members, _ in one for parameter in members] for one in groups]
        self.model, *self.optimizers = self.accelerator.prepare(task, *(build_optimizer(recipe, one) for one in groups))
        self.task: Task = self.accelerator.unwrap_model(self.model)
        self.task.place(self.accelerator.device)
        if recipe.compile:
            for network in self.task.networks():
                network.compile()
        self.ema = _average(recipe, self.parameters[0], self.accelerator.device)
        self.batches = Batches(self.task, recipe, self.accelerator.process_index, self.accelerator.device)
        self.step, self.sums, self.last = 0, dict[str, float](), dict[str, float]()
        self.unread: list[tuple[int, dict[str, Tensor]]] = []
        self.seconds, self.timed = 0.0, 0

    @cached_property
    def frozen(self) -> str:
        """Fingerprint of the weights that are not trained."""
        trained = {name for name, _ in [*self.task.trained(), *self.task.trained_buffers()]}
        return checkpoints.fingerprint(self.task, trained)

    @property
    def rate(self) -> float:
        """The learning rate of the last step."""
        return float(self.optimizers[0].param_groups[0]["lr"])

    def advance(self) -> None:
        """Make one optimiser step; its losses are not read yet, which would wait for the GPU."""
        started = time.monotonic()
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = self.recipe.learning_rate * group["factor"] * lr_factor(self.recipe, self.step)
        self.task.step = self.step
        for micro in range(self.recipe.gradient_accumulation):
            batch = self.batches.take(self.step, micro)
            with self.accelerator.accumulate(self.model):
                losses = self.model(batch)
                self.accelerator.backward(losses[LOSS] + losses[ADVERSARY] if ADVERSARY in losses else losses[LOSS])
                self._update()
            self.unread.append((self.step, {name: value.detach() for name, value in losses.items()}))
        self.step += 1
        if self.ema:
            self.ema.step(self.parameters[0])
        self.seconds += time.monotonic() - started
        self.timed += 1

    def _update(self) -> None:
        """Clip the gradients of each optimiser separately, and make its step."""
        if self.accelerator.sync_gradients:
            self.accelerator.unscale_gradients()
            for parameters in self.parameters:
                nn.utils.clip_grad_norm_(parameters, self.recipe.max_grad_norm)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad()

    def read(self) -> None:
        """Read the losses of the steps since the last reading and add them to `sums`.

        Raises UserError if one that is minimised is not finite.
        """
        if not self.unread:
            return
        started = time.monotonic()
        flat = torch.stack([value.float() for _, losses in self.unread for value in losses.values()])
        values = iter(flat.tolist())  # the one wait for the device
        for step, losses in self.unread:
            self.last = {name: next(values) for name in losses}
            for name in (LOSS, ADVERSARY):
                if not math.isfinite(self.last.get(name, 0.0)):
                    raise UserError(
                        f"{self.run}: the {name} is {self.last[name]} at step {step}; lower learning_rate, or "
                        "mixed_precision=no; the last checkpoint is untouched"
                    )
            for name, value in self.last.items():
                self.sums[name] = self.sums.get(name, 0.0) + value / self.recipe.gradient_accumulation
        self.unread = []
        self.seconds += time.monotonic() - started

    def check(self) -> None:
        """Raise UserError if a loss since the last reading, or a weight, is not finite."""
        self.read()
        norms = [nn.utils.get_total_norm(parameters) for parameters in self.parameters]
        if not bool(torch.stack(norms).isfinite().all()):
            raise UserError(
                f"{self.run}: weights are NaN or infinite after step {self.step}; lower learning_rate, or "
                "mixed_precision=no; the last checkpoint is untouched"
            )

    def save(self) -> None:
        """Write a checkpoint; raise UserError, and write none, where a loss or a weight is not finite."""
        self.check()
        if not self.main:
            return
        optimizer: dict[str, Tensor] = {}
        for number, one in enumerate(self.optimizers):
            optimizer |= checkpoints.flatten_optimizer(one, _PREFIXES[number])
        keep = checkpoints.Checkpoint(
            step=self.step,
            weights=dict(self.task.trained()) | dict(self.task.trained_buffers()),
            optimizer=optimizer,
            ema={str(i): p for i, p in enumerate(self.ema.shadow_params)} if self.ema else {},
            extra={
                "sums": self.sums,
                "frozen": self.frozen,
                "ema_step": self.ema.optimization_step if self.ema else 0,
                "scaler": dict(self.accelerator.scaler.state_dict()) if self.accelerator.scaler else {},
            },
        )
        checkpoints.save(self.run / "checkpoints", keep, self.recipe.keep_checkpoints)

    def resume(self) -> list[str]:
        """Continue from the newest whole checkpoint, if there is any; return a line for each damaged one.

        Raises UsageError if the run was started with other frozen weights.
        """
        saved, complaints = checkpoints.newest(self.run / "checkpoints")
        if saved is None:
            return complaints
        checkpoints.same_frozen(saved, self.frozen, self.run)
        self.step, self.sums = saved.step, dict(saved.extra["sums"])
        with torch.no_grad():
            for name, tensor in [*self.task.trained(), *self.task.trained_buffers()]:
                tensor.copy_(saved.weights[name])
            if self.ema:
                for index, shadow in enumerate(self.ema.shadow_params):
                    shadow.copy_(saved.ema[str(index)])
                self.ema.optimization_step = saved.extra["ema_step"]
        for number, optimizer in enumerate(self.optimizers):
            checkpoints.restore_optimizer(optimizer, saved.optimizer, _PREFIXES[number])
        if self.accelerator.scaler and saved.extra["scaler"]:
            self.accelerator.scaler.load_state_dict(saved.extra["scaler"])
        return complaints

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Put the averaged weights into the task, in evaluation mode, for the length of the block."""
        if self.ema:
            self.ema.store(self.parameters[0])
            self.ema.copy_to(self.parameters[0])
        self.task.eval()
        try:
            with torch.no_grad():
                yield
        finally:
            self.task.train()
            if self.ema:
                self.ema.restore(self.parameters[0])

    def agreed(self, stop: bool) -> bool:
        """Return whether any process wants to stop, so that all stop at the same step."""
        if self.accelerator.num_processes == 1:
            return stop
        votes = self.accelerator.gather(torch.tensor([float(stop)], device=self.accelerator.device))
        return bool(votes.max() > 0)

    def wait(self) -> None:
        """Wait for the other processes."""
        self.accelerator.wait_for_everyone()


_PREFIXES = ("", "adversary.")
"""Of the names of each optimiser's state in a checkpoint."""


def _accelerator(recipe: Recipe, place: bool) -> Accelerator:
    AcceleratorState._reset_state()  # one process may train several parts, each in its own precision
    torch.backends.cudnn.deterministic = True  # a GPU's gradients of convolutions would differ from run to run
    return Accelerator(
        mixed_precision=recipe.mixed_precision,
        gradient_accumulation_steps=recipe.gradient_accumulation,
        device_placement=place,
        cpu=not place
        or not torch.accelerator.is_available(),  # without it several processes on a CPU ignore each other
    )


def _average(recipe: Recipe, parameters: list[nn.Parameter], device: torch.device) -> EMAModel | None:
    if recipe.ema_decay is None:
        return None
    ema: Any = EMAModel(parameters, decay=recipe.ema_decay, use_ema_warmup=True, power=0.75, foreach=True)
    ema.to(device)
    return ema
