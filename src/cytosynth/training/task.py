"""The interface between the training loop and the task that is trained."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

Batch = Mapping[str, Any]
Losses = dict[str, Tensor]
LOSS, ADVERSARY = "loss", "adversary"
"""Names of the minimised losses: of the first optimiser, and of the second in adversarial training."""


class Task(nn.Module):
    """A training task: makes batches, computes losses, writes previews and exports weights.

    Only parameters with `requires_grad` are trained and saved; buffers (running statistics) of modules
    that hold such parameters are saved with them.

    Attributes:
        step: the optimiser steps made so far; the training loop sets it before each.
    """

    step = 0

    def batch(self, rng: np.random.Generator, size: int) -> Batch:
        """Return the batch that `rng` determines; it may depend on nothing else."""
        raise NotImplementedError

    def forward(self, batch: Batch) -> Losses:
        """Return the losses by name, scalars; `loss` is the one to minimise.

        A task with `adversary_groups` returns their loss as `adversary`. Neither loss may depend on the parameters of
        the other: both are differentiated in one pass.
        """
        raise NotImplementedError

    def preview(self, folder: Path, step: int) -> None:
        """Write an example image made with the weights at `step` into `folder`."""

    def export(self, folder: Path) -> None:
        """Write the weights into the empty `folder` in the layout of their ecosystem."""
        raise NotImplementedError

    def score(self) -> float | None:
        """Return the score of the weights on held-out data, lower is better; None if there is none.

        It may not depend on the global random generator.
        """
        return None

    def groups(self) -> list[tuple[list[nn.Parameter], float]]:
        """Return all trained parameters in groups, each with a factor on the recipe's learning rate."""
        return [([parameter for _, parameter in self.trained()], 1.0)]

    def adversary_groups(self) -> list[tuple[list[nn.Parameter], float]]:
        """Return, in such groups, what a second optimiser trains against the first; nothing for most tasks."""
        return []

    def networks(self) -> list[nn.Module]:
        """Return the networks that dominate the time of a step, which `compile` applies to."""
        return [self]

    def place(self, device: torch.device) -> None:
        """Move the data that batches are cut from to `device`, if it fits; called once, before the first batch."""

    def trained(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Yield the name and parameter of everything that is trained."""
        return ((name, p) for name, p in self.named_parameters() if p.requires_grad)

    def trained_buffers(self) -> Iterator[tuple[str, Tensor]]:
        """Yield the persistent buffers of modules that train (batch norm's running statistics)."""
        for prefix, module in self.named_modules():
            if any(p.requires_grad for p in module.parameters(recurse=False)):
                for name, buffer in module.named_buffers(recurse=False):
                    if name not in module._non_persistent_buffers_set:
                        yield f"{prefix}.{name}" if prefix else name, buffer
