"""Motion: the stage moves while the shutter is open."""

import numpy as np
from numpy.typing import NDArray

from .light import coded, filtered, linear
from .view import Variation, View


def motion(view: View, amount: float, rng: np.random.Generator) -> View:
    """Return `view` smeared evenly over `amount` micrometres in a random direction."""
    angle, length = rng.uniform(0, np.pi), amount / view.mpp

    def factors(fy: NDArray[np.float64], fx: NDArray[np.float64], band: int) -> NDArray[np.float64]:
        return np.asarray(np.sinc((fx * np.cos(angle) + fy * np.sin(angle)) * length))

    return view.with_pixels(coded(filtered(linear(view.pixels), factors)))


VARIATION = Variation(
    "motion", "movement of the stage during exposure", "µm", (1.0, 2.0, 3.5, 5.5, 8.0), (0.0, 50.0), motion
)
