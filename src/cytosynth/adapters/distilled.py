"""The card of weights distilled for few steps: their teacher, and how to sample with them. Imports no torch."""

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from ..config import validated
from ..errors import UserError
from ..foundation.names import PAPER_GUIDANCE
from ..io import plain
from ..io.bundled import model_folder

CARD, WEIGHTS = "distilled.json", "pytorch_lora_weights.safetensors"
Stage = Literal["normal", "cell"]
FewStepSampler = Literal["lcm", "ddim-trailing"]
"""Of latent consistency, and of phased consistency."""


class DistilledCard(BaseModel):
    """`distilled.json`: what the LoRA next to it is; the defaults are for a public LCM-LoRA, which has none.

    Attributes:
        stage: 'normal' (stage 1) or 'cell' (stage 2); None: not said.
        sampler: to be used with it.
        steps: sampler steps; with `ddim-trailing` also the number of phases.
        guidance_scale: of the teacher, which is in the weights; the sampler's own is 1.
        fall: of the strength towards the edge of an edit (`EditSettings`); None: as without these weights.
        teacher: hash of the weights that were distilled.
        foundation: name of its foundation.
        training: how it was trained.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)
    stage: Stage | None = None
    sampler: FewStepSampler = "lcm"
    steps: int = Field(default=4, ge=1, le=50)
    guidance_scale: float = Field(default=PAPER_GUIDANCE, ge=1)
    fall: float | None = Field(default=None, ge=0, le=1)
    teacher: str = ""
    foundation: str = ""
    training: dict[str, Any] = {}

    def settings(self) -> dict[str, Any]:
        """Return the settings of its stage: sampler, steps, and no guidance, which the weights include."""
        fall = {"fall": self.fall} if self.stage == "cell" and self.fall is not None else {}
        return {
            "sampler": self.sampler, "steps": self.steps, "guidance_scale": 1.0, "guidance_rescale": 0.0,
        } | fall  # fmt: skip


def place(name: str, stage: Stage) -> tuple[Path, DistilledCard]:
    """Return the file of the distilled weights `name` of `stage` and their card.

    `name` is 'bundled', a folder, a training run, or the file of an LCM-LoRA. Raises UserError if there are none,
    or ones of the other stage.
    """
    path = model_folder(name, f"fast/{stage}")
    file = path / WEIGHTS if path.is_dir() else path
    if not file.is_file():
        raise UserError(f"{path}: no distilled weights there; {WEIGHTS} of `distill {stage}` is expected")
    beside = file.parent / CARD
    card = validated(DistilledCard, plain.load(beside), str(beside)) if beside.is_file() else DistilledCard()
    if card.stage not in (None, stage):
        raise UserError(f"{path}: distilled weights of `distill {card.stage}`; those of `distill {stage}` are expected")
    return file, card
