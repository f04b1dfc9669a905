"""Another batch or brand of dyes: all colours are rotated about grey in optical density."""

import numpy as np
from scipy.spatial.transform import Rotation

from . import staining
from .light import coded, linear
from .view import Variation, View

GREY = np.ones(3) / np.sqrt(3)


def stain_hue(view: View, amount: float, rng: np.random.Generator) -> View:
    """Return `view` with optical densities turned by `amount` degrees about the axis of grey.

    Which dye absorbs in which band moves; how much is absorbed in all does not.
    """
    glass = staining.white(view.pixels)
    densities = staining.density(linear(view.pixels), glass)
    turn = Rotation.from_rotvec(np.deg2rad(amount) * GREY).as_matrix()
    return view.with_pixels(coded(staining.intensity(np.maximum(densities @ turn.T, 0), glass)))


VARIATION = Variation(
    "stain-hue",
    "rotation of the dyes' colours",
    "degrees",
    (4.0, 8.0, 14.0, 21.0, 30.0),
    (-90.0, 90.0),
    stain_hue,
    True,
)
