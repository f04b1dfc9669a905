"""The view that a variation changes (image, boxes, scale), and the interface of a variation."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
"""(height, width, 3) RGB bytes, sRGB."""
Boxes = NDArray[np.float64]
"""(n, 4): x_min, y_min, x_max, y_max in pixels."""
STRENGTHS = range(1, 6)


@dataclass(frozen=True)
class View:
    """An image from a microscope.

    Attributes:
        pixels: (height, width, 3) RGB bytes.
        boxes: (n, 4) xyxy in pixels, of cells in it.
        mpp: micrometres per pixel.
    """

    pixels: Pixels
    boxes: Boxes
    mpp: float

    def with_pixels(self, pixels: Pixels) -> "View":
        """Return the view with other `pixels` of the same geometry."""
        return replace(self, pixels=pixels)


@dataclass(frozen=True)
class Variation:
    """One way in which images of centres, scanners and days differ, with an amount in physical units.

    Attributes:
        name: as it is chosen.
        amount: what the amount is.
        unit: of the amount.
        severities: the amounts of strengths 1 to 5.
        limits: least and greatest amount that can be asked for.
        apply: (view, amount, generator) to the varied view; the generator decides places and directions.
        signed: whether an amount and its negative differ; strengths then draw the sign.
    """

    name: str
    amount: str
    unit: str
    severities: tuple[float, float, float, float, float]
    limits: tuple[float, float]
    apply: Callable[[View, float, np.random.Generator], View]
    signed: bool = False

    def of_strength(self, strength: float, rng: np.random.Generator) -> float:
        """Return the amount of a `strength` in 1..5, interpolated between whole ones; a random sign is chosen if it has
        one.

        Raises ValueError for a strength outside.
        """
        if not STRENGTHS[0] <= strength <= STRENGTHS[-1]:
            raise ValueError(f"strength {strength}: must be between {STRENGTHS[0]} and {STRENGTHS[-1]}")
        amount = float(np.interp(strength, STRENGTHS, self.severities))
        return -amount if self.signed and rng.random() < 0.5 else amount


def generator(seed: int, *names: str) -> np.random.Generator:
    """Return the random generator of (`seed`, `names`): of an image's name and a variation's, the same everywhere."""
    said = "\0".join(names).encode("utf-8", "surrogatepass")
    return np.random.default_rng([seed, *np.frombuffer(hashlib.sha256(said).digest(), np.uint32).tolist()])
