"""The strength of each stain: amounts of two stains, each by its own factor."""

import numpy as np

from . import staining
from .light import coded, linear
from .view import Variation, View


def stain(view: View, amount: float, rng: np.random.Generator) -> View:
    """Return `view` with the amount of each of two stains (`staining`) multiplied or divided by 1 + `amount`."""
    glass = staining.white(view.pixels)
    densities = staining.density(linear(view.pixels), glass)
    vectors = staining.two_vectors(staining.stained(densities))
    amounts, rest = staining.separate(densities, vectors)
    factors = (1 + amount) ** rng.choice([-1.0, 1.0], 2)
    varied = np.maximum(amounts, 0) * factors + np.minimum(amounts, 0)
    return view.with_pixels(coded(staining.intensity(np.maximum(varied @ vectors + rest, 0), glass)))


VARIATION = Variation(
    "stain", "change of the amount of each stain", "relative", (0.15, 0.3, 0.5, 0.8, 1.2), (0.0, 3.0), stain
)
