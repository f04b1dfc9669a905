"""The card of a synthesizer: its categories, and its regions relative to boxes. Imports no torch."""

import json
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from ..bethesda import ABNORMAL, NILM
from ..config import validated
from ..io import plain
from ..io.bundled import model_folder
from .settings import EditSettings

FILE = "editing.json"
TRAINING_IMAGES = "training_images.json"
QUANTILES = (0.05, 0.15, 0.25, 0.35, 0.45, 0.55, 0.65, 0.75, 0.85, 0.95)
"""Quantiles by which the distribution of the nuclei's diameters is described."""


class Editing(BaseModel):
    """`editing.json` next to a synthesizer's weights.

    Attributes:
        box_scale: how much larger than boxes the regions were on which it was trained.
        zoom: the factor by which the part of a patch about a region was enlarged (`close_up`).
        categories: the abnormal ones that it was trained on; default: the paper's four.
        nilm: whether it was trained on NILM cells, too, so that it can edit a cell into one.
        nucleus: by category, `QUANTILES` of the diameters of the nuclei it was trained on, pixels of the image; empty
            where the size of the nucleus is no condition.
        nucleus_scale: by category, a factor on the requested diameter, where measured nuclei differ from it.
        fall: share of the region's radius over which the strength falls to 0 at its edge; 0: the same everywhere.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)
    box_scale: float = Field(default=1.0, ge=0.5, le=8)
    zoom: float = Field(default=1.0, ge=1, le=4)
    categories: tuple[str, ...] = Field(default=ABNORMAL, min_length=1)
    nilm: bool = False
    nucleus: dict[str, tuple[float, ...]] = {}
    nucleus_scale: dict[str, Annotated[float, Field(ge=0.25, le=4)]] = {}
    fall: float = Field(default=0.0, ge=0, le=1)

    @property
    def targets(self) -> tuple[str, ...]:
        """Into what it can edit cells: its categories, and NILM if it was trained on that."""
        return (*self.categories, *([NILM] if self.nilm and NILM not in self.categories else []))

    def diameter(self, category: str, seed: int) -> float | None:
        """Return the diameter, pixels, of the nucleus of a `category` cell of `seed`, from the training cells'
        distribution.

        None if the size of the nucleus is no condition, or not known for the category.
        """
        if category not in self.nucleus:
            return None
        level = np.random.default_rng([seed, 11]).uniform(QUANTILES[0], QUANTILES[-1])
        return float(np.interp(level, QUANTILES, self.nucleus[category]))


class Lacking(NamedTuple):
    """A setting of stage 2 that a synthesizer cannot meet: its name and value, why, and a value that it can."""

    key: str
    value: Any
    reason: str
    instead: str

    def __str__(self) -> str:
        return f"cell.{self.key}={json.dumps(self.value)}: {self.reason}; set cell.{self.key}={self.instead}"


def lacking(settings: EditSettings, trained: Editing, stains: bool) -> Lacking | None:
    """Return the first of `settings` that a synthesizer with the card `trained` cannot meet; None if it can meet all.

    `stains` says whether the stain of its training images is known.
    """
    if settings.stain and not stains:
        reason = f"needs {TRAINING_IMAGES} next to the cell synthesizer, which is missing"
        return Lacking("stain", settings.stain, reason, "false")
    asked = settings.nucleus_scale or {}
    if other := sorted(set(asked) - set(trained.nucleus)):
        has = ", ".join(trained.nucleus) or "none"
        reason = f"{other[0]!r}: the synthesizer has no size of this nucleus as a condition; it has {has}"
        return Lacking("nucleus_scale", asked, reason, "{}")
    return None


PAPER = Editing()
"""The paper's values: regions as large as boxes, its four categories."""


def read(folder: Path) -> Editing:
    """Return the card in `folder`, the defaults if there is none; raise UsageError if the file is not such a card."""
    file = folder / FILE
    return validated(Editing, plain.load(file), str(file)) if file.exists() else Editing()


def targets(cell: str) -> tuple[str, ...]:
    """Return into what the synthesizer `cell` ('bundled', a folder or a run) can edit cells."""
    return read(model_folder(cell, "cell")).targets
