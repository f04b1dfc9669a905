"""The optimiser of a recipe and its learning-rate schedule."""

import math

import torch

from .recipe import Recipe


def build(recipe: Recipe, groups: list[tuple[list[torch.nn.Parameter], float]]) -> torch.optim.Optimizer:
    """Return the optimiser of `recipe` over groups of parameters, each with the factor on its learning rate."""
    wanted = [{"params": parameters, "factor": factor} for parameters, factor in groups if parameters]
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(
            wanted, lr=recipe.learning_rate, momentum=0.9, weight_decay=recipe.weight_decay, foreach=True
        )
    kind = torch.optim.AdamW if recipe.optimizer == "adamw" else torch.optim.Adam
    return kind(wanted, lr=recipe.learning_rate, betas=recipe.betas, weight_decay=recipe.weight_decay, fused=True)


def lr_factor(recipe: Recipe, step: int) -> float:
    """Return the factor on the learning rate at `step`: linear warm-up, then constant or cosine to zero."""
    if step < recipe.warmup_steps:
        return (step + 1) / recipe.warmup_steps
    if recipe.lr_schedule == "constant":
        return 1.0
    done = (step - recipe.warmup_steps) / max(recipe.max_steps - recipe.warmup_steps, 1)
    return 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))
