"""A lamp of another colour than the camera was balanced for."""

import numpy as np
from numpy.typing import NDArray

from .light import coded, linear
from .view import Variation, View

BALANCED = 5500.0
"""Kelvin that the camera is balanced for."""
BANDS = np.array([0.610, 0.550, 0.465])
"""Micrometres: the middle of the red, green and blue band."""
SECOND_RADIATION = 14387.77
"""Micrometres times kelvin (CODATA)."""


def planck(temperature: float) -> NDArray[np.float64]:
    """Return the relative radiance (3,) of a black body in the bands, `temperature` in kelvin (Planck's law)."""
    radiance: NDArray[np.float64] = BANDS**-5.0 / np.expm1(SECOND_RADIATION / (BANDS * temperature))
    return radiance


def gains(mired: float) -> NDArray[np.float64]:
    """Return by how much the bands (3,) of a lamp that is `mired` away from BALANCED are off, green at 1."""
    ratio = planck(1e6 / (1e6 / BALANCED + mired)) / planck(BALANCED)
    gain: NDArray[np.float64] = ratio / ratio[1]
    return gain


def white_balance(view: View, amount: float, rng: np.random.Generator) -> View:
    """Return `view` under a lamp `amount` mired redder (or bluer, below 0), exposed so that no band grows brighter."""
    gain = gains(amount)
    return view.with_pixels(coded(linear(view.pixels) * (gain / gain.max())))


VARIATION = Variation(
    "white-balance", "shift of the lamp's colour temperature", "mired", (10.0, 20.0, 35.0, 50.0, 70.0), (-100.0, 300.0),
    white_balance, True,
)  # fmt: skip
