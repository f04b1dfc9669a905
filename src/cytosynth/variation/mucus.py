"""Mucus: stained strands over the field."""

import numpy as np

from . import staining
from .light import coded, linear
from .smooth import smooth, streaks
from .view import Variation, View

LENGTH, WIDTH = 60.0, 4.0
"""Of a strand, micrometres."""
PATCH = 80.0
"""Micrometres over which there is mucus, or none."""
COLOUR = np.array([1.15, 1.05, 0.8])
"""Its optical density in red, green and blue, over their mean: a greyish blue."""


def mucus(view: View, amount: float, rng: np.random.Generator) -> View:
    """Return `view` under strands of mucus, `amount` of optical density where they are densest; boxes stay."""
    shape = view.pixels.shape[:2]
    strands = streaks(shape, LENGTH / view.mpp, WIDTH / view.mpp, rng.uniform(0, np.pi), rng)
    ridges = np.clip(1 - np.abs(strands) / 1.5, 0, 1)
    cover = np.clip(smooth(shape, PATCH / view.mpp, rng) * 0.5 + 0.5, 0, 1)
    glass = staining.white(view.pixels)
    film = amount * cover * (0.35 + 0.65 * ridges)
    densities = staining.density(linear(view.pixels), glass) + film[..., None] * COLOUR
    return view.with_pixels(coded(staining.intensity(densities, glass)))


VARIATION = Variation("mucus", "optical density", "base 10", (0.06, 0.12, 0.22, 0.36, 0.55), (0.0, 2.0), mucus)
