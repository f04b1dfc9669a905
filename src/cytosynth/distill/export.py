"""Writing distilled weights as diffusers reads them."""

from pathlib import Path

import torch

from ..adapters import lora
from ..adapters.distilled import CARD, DistilledCard
from ..io import atomic
from .recipe import Distillation
from .student import Student

TOLD = {
    "rank", "solver_steps", "loss", "average", "batch_size", "gradient_accumulation", "learning_rate", "optimizer",
    "seed",
}  # fmt: skip
"""Settings that go into the card, and `phases` where there are some; all of them are in the run's `recipe.yaml`."""


def write(student: Student, card: DistilledCard, recipe: Distillation, folder: Path) -> None:
    """Write the LoRA of `student` into `folder`, half precision, with the `card` that says how it is used."""
    with student.shipped() as unet:
        lora.save(unet, folder, torch.float16)
    told = TOLD if recipe.phases is None else TOLD | {"phases"}
    training = recipe.model_dump(mode="json", include=told)
    atomic.write_json(folder / CARD, card.model_copy(update={"training": training}).model_dump())
