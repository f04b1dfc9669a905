"""Defocus: the point-spread function of a dry objective out of focus, with spherical aberration.

The pupil function is exp(i k W) inside the aperture; the optical transfer function is its autocorrelation (Goodman,
Introduction to Fourier Optics, section 6.4). W is z sqrt(1 - s^2) for defocus by z, with s the sine of the ray's angle
(s = NA at the edge of the pupil), and t (sqrt(n^2 - s^2) - sqrt(1 - s^2)) for t of glass or mounting medium beyond what
the objective is corrected for (Gibson and Lanni, J. Opt. Soc. Am. A 8:1601, 1991), less the defocus that best makes up
for it. Without such glass z and -z look alike; with it they do not. The illumination is taken as incoherent, as
it nearly is with the condenser's aperture open to the objective's.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from .light import coded, filtered, linear
from .view import Variation, View

RADIUS = 128
"""Samples of the pupil's radius."""


@dataclass(frozen=True)
class Optics:
    """A dry objective.

    Attributes:
        aperture: numerical aperture.
        wavelengths: of the red, green and blue band, micrometres.
        glass: micrometres of cover glass and mounting medium beyond what the objective is corrected for.
        index: refractive index of that glass.
    """

    aperture: float = 0.75
    wavelengths: tuple[float, float, float] = (0.610, 0.550, 0.465)
    glass: float = 10.0
    index: float = 1.515


TWENTY = Optics()
"""A scanner's x20 objective (numerical aperture 0.75)."""


@lru_cache(maxsize=64)
def transfer(defocus: float, wavelength: float, optics: Optics = TWENTY) -> NDArray[np.float64]:
    """Return the optical transfer function at 0, 1, ... of 2 * RADIUS steps up to the cutoff 2 NA / wavelength.

    Real, as the pupil is round; below 0 where contrast is reversed.

    Args:
        defocus: micrometres between objective and focus; above 0 the specimen is too near.
        wavelength: micrometres.
        optics: of the objective.
    """
    steps = np.arange(-RADIUS, RADIUS + 1) / RADIUS
    rho = np.hypot(steps[:, None], steps[None, :])
    inside = rho <= 1
    squared = (optics.aperture * np.minimum(rho, 1.0)) ** 2
    path = defocus * np.sqrt(1 - squared) + _aberration(squared, inside, optics)
    pupil = np.where(inside, np.exp(2j * np.pi / wavelength * path), 0)
    side = fft.next_fast_len(4 * RADIUS + 2)
    spread = np.abs(fft.fft2(pupil, (side, side))) ** 2
    correlation = fft.ifft2(spread)[0, : 2 * RADIUS + 1].real
    return np.asarray(correlation / correlation[0])


def _aberration(squared: NDArray[np.float64], inside: NDArray[np.bool_], optics: Optics) -> NDArray[np.float64]:
    """Return the path (micrometres) of the excess glass at each sample, less the defocus nearest to it."""
    glass = optics.glass * (np.sqrt(optics.index**2 - squared) - np.sqrt(1 - squared))
    basis = np.stack([np.ones(inside.sum()), np.sqrt(1 - squared[inside])], axis=1)
    fit, *_ = np.linalg.lstsq(basis, glass[inside], rcond=None)
    return np.asarray(glass - fit[0] - fit[1] * np.sqrt(1 - squared))


def diffraction(frequency: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the transfer function of a perfect objective in focus, `frequency` in shares of the cutoff (0..1)."""
    f = np.minimum(frequency, 1.0)
    return np.asarray(2 / np.pi * (np.arccos(f) - f * np.sqrt(1 - f**2)))


def blur(view: View, defocus: float, optics: Optics = TWENTY) -> View:
    """Return `view` out of focus by `defocus` micrometres.

    The image has its own diffraction already, so each frequency is multiplied by the transfer function over that of
    the perfect objective: never more than 1 in size, and 1 everywhere without defocus and excess glass.
    """

    def factors(fy: NDArray[np.float64], fx: NDArray[np.float64], band: int) -> NDArray[np.float64]:
        wavelength = optics.wavelengths[band]
        grid = np.arange(2 * RADIUS) / (2 * RADIUS)
        ratio = transfer(defocus, wavelength, optics)[:-1] / np.maximum(diffraction(grid), 1e-9)
        shares = np.hypot(fy, fx) / view.mpp / (2 * optics.aperture / wavelength)
        return np.asarray(np.interp(shares, grid, np.clip(ratio, -1, 1)))

    return view.with_pixels(coded(filtered(linear(view.pixels), factors)))


def defocus(view: View, amount: float, rng: np.random.Generator) -> View:
    """Return `view` out of focus by `amount` micrometres, through TWENTY."""
    return blur(view, amount)


VARIATION = Variation(
    "defocus", "distance from focus", "µm", (1.0, 2.0, 3.0, 5.0, 8.0), (-30.0, 30.0), defocus, signed=True
)
