"""A distribution of centres: which variations an image gets, and how much of each.

As a file, for `synthesize --vary`; as the setting `augment` of every trainer:

    mpp: 0.49
    variations:
      - {name: stain, strength: [1, 3]}
      - {name: defocus, share: 0.4, amount: [-3, 3]}
      - {name: jpeg, share: 0.5, amount: [40, 90]}
"""

from dataclasses import asdict, dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ..errors import UsageError
from ..registry import VARIATIONS
from .catalogue import variation, varied
from .view import Boxes, Pixels, View, generator

Range = tuple[float, float]


class Drawn(BaseModel):
    """One variation of a centre: its share of the images, and the range that its strength or amount is sampled from."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
    name: str = Field(description="of the variation")
    share: float = Field(default=1.0, ge=0, le=1, description="of the images")
    strength: Range | None = Field(default=None, description="minimum and maximum strength, 1 to 5")
    amount: Range | None = Field(default=None, description="minimum and maximum amount, in the variation's unit")

    @model_validator(mode="after")
    def _possible(self) -> "Drawn":
        try:
            low, high = variation(self.name).limits
        except UsageError as error:
            raise ValueError(str(error)) from None
        if (self.strength is None) == (self.amount is None):
            raise ValueError(f"{self.name}: give strength: [1, 5] or amount: [low, high]")
        least, greatest = (1.0, 5.0) if self.strength else (low, high)
        first, last = self.strength or self.amount or (0.0, 0.0)
        if not least <= first <= last <= greatest:
            raise ValueError(f"{self.name}: [{first}, {last}] must be ascending and between {least} and {greatest}")
        return self


class Centre(BaseModel):
    """A distribution of images of centres."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
    mpp: float = Field(default=0.49, gt=0.05, le=5, description="micrometres per pixel of the images before variation")
    variations: list[Drawn] = Field(min_length=1, description="variations that an image may get; each at most once")

    @model_validator(mode="after")
    def _once(self) -> "Centre":
        names = [drawn.name for drawn in self.variations]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"{twice[0]}: is given twice")
        return self


@dataclass(frozen=True)
class Applied:
    """A variation applied to an image.

    Attributes:
        name: of the variation.
        amount: of it.
        unit: of the amount.
    """

    name: str
    amount: float
    unit: str


def drawn(centre: Centre, seed: int, image: str) -> list[Applied]:
    """Return the variations of the image `image`: uniform within each range, in the order of light (`VARIATIONS`)."""
    order = list(VARIATIONS)
    got = []
    for wanted in sorted(centre.variations, key=lambda entry: order.index(entry.name)):
        rng = generator(seed, image, wanted.name, "centre")
        chosen = variation(wanted.name)
        if rng.random() >= wanted.share:
            continue
        if wanted.amount is not None:
            amount = float(rng.uniform(*wanted.amount))
        else:
            amount = chosen.of_strength(float(rng.uniform(*(wanted.strength or (1.0, 1.0)))), rng)
        got.append(Applied(wanted.name, round(amount, 6), chosen.unit))
    return got


def vary(pixels: Pixels, boxes: Boxes, centre: Centre, seed: int, image: str) -> tuple[View, list[dict[str, Any]]]:
    """Return `pixels` with `boxes` (n, 4) as one of the `centre`'s, and the record of what was done to it."""
    view, done = View(pixels, boxes, centre.mpp), drawn(centre, seed, image)
    for entry in done:
        view = varied(view, entry.name, entry.amount, seed, image)
    return view, [asdict(entry) for entry in done]


def resizes(centre: Centre) -> bool:
    """Return whether a variation of `centre` changes the size of an image."""
    return any(entry.name == "scale" for entry in centre.variations)
