"""Train every trainer for two steps: in the processes that torchrun began, or `alone` with what both would see.

python together.py TINY FIELDS OUT [alone]
"""

import sys
from pathlib import Path

import torch

from cytosynth.training import loop
from test_training import trainers

CHANGES = {
    "max_steps": 2, "optimizer": "sgd", "learning_rate": 0.05, "lr_schedule": "constant", "warmup_steps": 0,
    "mixed_precision": "no", "gradient_accumulation": 1, "log_every": 1, "checkpoint_every": 100, "ema_decay": 0.0,
    "validate_every": 0, "preview_every": 100, "max_grad_norm": 1e9,
}  # fmt: skip
"""SGD: what Adam divides by is so small after two steps that rounding decides what it gives."""


def main() -> None:
    torch.set_num_threads(1)
    tiny, fields, out = map(Path, sys.argv[1:4])
    alone = sys.argv[4:] == ["alone"]
    if alone:
        seeded = loop._seed
        loop._seed = lambda seed, rank, step, micro: seeded(seed, micro, step, rank)
    for name, (recipe, train) in trainers(tiny, fields).items():
        known = {key: value for key, value in CHANGES.items() if key in type(recipe).model_fields}
        changed = recipe.model_copy(update=known | ({"gradient_accumulation": 2} if alone else {}))
        train(changed, out / name)


if __name__ == "__main__":
    main()
