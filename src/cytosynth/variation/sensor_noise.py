"""Noise of the sensor: photons that are counted, and what reading them out adds."""

import numpy as np

from .light import coded, linear
from .view import Variation, View

READ = 6.0
"""Deviation of the read-out, electrons."""


def sensor_noise(view: View, amount: float, rng: np.random.Generator) -> View:
    """Return `view` as a sensor counts it that gathers `amount` electrons of each band where a pixel is white.

    Poisson's shot noise and a Gaussian of READ electrons, in linear intensity.
    """
    counted = rng.poisson(linear(view.pixels).astype(np.float64) * amount)
    return view.with_pixels(coded((counted + rng.normal(0, READ, counted.shape)) / amount))


VARIATION = Variation(
    "sensor-noise", "electrons of a white pixel", "e-", (3000.0, 1200.0, 500.0, 200.0, 90.0), (10.0, 1e6), sensor_noise
)
