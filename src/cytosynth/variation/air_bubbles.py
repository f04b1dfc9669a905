"""Air bubbles under the cover glass: a dark rim, and an image out of focus inside."""

import numpy as np
from numpy.typing import NDArray

from .defocus import TWENTY, blur, diffraction
from .light import Light, coded, linear
from .view import Variation, View

DIAMETER = (90.0, 0.5)
"""Micrometres: median, and deviation of the logarithm."""
SMALLEST, LARGEST = 25.0, 250.0
DEPTH = 14.0
"""Micrometres: half of the gap that flattens a bubble, and so the greatest width of its rounded rim."""
MEDIUM = 1.5
"""Refractive index of the mounting medium around the air."""
INSIDE = 5.0
"""Micrometres out of focus of what is seen through a bubble."""


def transmitted(share: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the light that comes through a round bubble at a `share` of its radius, relative to the light next to it.

    A ray at this height is deflected by 2 (t - i), sin i = share, sin t = MEDIUM share (Snell), and totally reflected
    where that exceeds 1. The deflected cone of light overlaps the objective's as two shifted discs do.
    """
    sine = np.minimum(share, 1.0)
    deflection = 2 * (np.arcsin(np.minimum(MEDIUM * sine, 1.0)) - np.arcsin(sine))
    shift = np.sin(np.minimum(deflection, np.pi / 2)) / (2 * TWENTY.aperture / MEDIUM)
    through = np.where(MEDIUM * sine < 1, diffraction(shift), 0.0)
    return np.where(share < 1, through, 1.0)


def air_bubbles(view: View, amount: float, rng: np.random.Generator) -> View:
    """Return `view` with bubbles that together make `amount` of its area.

    Cells inside stay where they are, blurred; boxes stay.
    """
    height, width = view.pixels.shape[:2]
    light = linear(view.pixels)
    blurred = linear(blur(view, INSIDE).pixels) if amount else light
    left = amount * height * width * view.mpp**2
    while left > 0:
        diameter = float(np.clip(DIAMETER[0] * np.exp(rng.normal(0, DIAMETER[1])), SMALLEST, LARGEST))
        diameter = min(diameter, 2 * np.sqrt(left / np.pi) + SMALLEST)
        y, x = rng.uniform((0, 0), (height, width))
        light = _with(light, blurred, y, x, diameter / 2 / view.mpp, DEPTH / view.mpp)
        left -= np.pi / 4 * diameter**2
    return view.with_pixels(coded(light))


def _with(light: Light, blurred: Light, y: float, x: float, radius: float, depth: float) -> Light:
    """Return `light` with a bubble of `radius` pixels at (`y`, `x`), flat inside a rim of at most `depth` pixels."""
    rows, columns = np.ogrid[: light.shape[0], : light.shape[1]]
    distance = np.hypot(rows - y, columns - x)
    rim = min(depth, radius)
    share = np.clip((distance - (radius - rim)) / rim, 0, None)
    edge = np.clip(radius - distance + 0.5, 0, 1)[..., None].astype(np.float32)  # no stairs at the outline
    inside = blurred * transmitted(np.minimum(share, 0.999))[..., None].astype(np.float32)
    return edge * inside + (1 - edge) * light


VARIATION = Variation(
    "air-bubbles",
    "share of the area covered by bubbles",
    "relative",
    (0.04, 0.1, 0.2, 0.35, 0.55),
    (0.0, 1.5),
    air_bubbles,
)
