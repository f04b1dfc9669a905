"""The difference of a decoded image from its original: PSNR, gradient energy, power by octave, and fine detail."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from diffusers import AutoencoderKL
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from ...data.image_files import Pixels
from ..pixels import to_pixels, to_tensor

OCTAVES = 5
"""Bands of the spectrum, each from half of its highest frequency on; the finest ends at half a cycle a pixel."""
FINE = 2.0
"""Standard deviation, pixels, of the Gaussian whose rest is called fine."""


class Sharpness(NamedTuple):
    """Of one reconstruction.

    Attributes:
        psnr: dB.
        gradient: mean absolute gradient of brightness over that of the original.
        power: of each octave over that of the original, coarse to fine.
        fine: correlation of what is fine in it with what is fine in the original; added noise has none.
    """

    psnr: float
    gradient: float
    power: tuple[float, ...]
    fine: float


def compare(original: Pixels, output: Pixels) -> Sharpness:
    """Return the Sharpness of (height, width, 3) `output`, made for `original`."""
    first, second = brightness(original), brightness(output)
    powers = octaves(second) / np.maximum(octaves(first), 1e-12)
    high = [image - gaussian_filter(image, FINE) for image in (first, second)]
    return Sharpness(
        psnr(original, output),
        gradient_energy(second) / max(gradient_energy(first), 1e-12),
        tuple(float(power) for power in powers),
        float(np.corrcoef(high[0].ravel(), high[1].ravel())[0, 1]) if high[1].any() and high[0].any() else 0.0,
    )


def brightness(pixels: Pixels) -> NDArray[np.float64]:
    """Return the mean of the colours of (height, width, 3) `pixels`, 0..255."""
    return np.asarray(np.mean(pixels, axis=2, dtype=np.float64))


def gradient_energy(image: NDArray[np.float64]) -> float:
    """Return the mean length of the gradient of (height, width) `image`, central differences."""
    down, right = np.gradient(image)
    return float(np.hypot(down, right).mean())


def octaves(image: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the power of (height, width) `image` in each of `OCTAVES` bands of frequency, coarse to fine.

    Under a Hann window, of the image without its mean, so that borders add no frequencies.
    """
    window = np.outer(*(np.hanning(extent) for extent in image.shape))
    spectrum = np.abs(np.fft.fft2((image - image.mean()) * window)) ** 2
    radius = np.hypot(np.fft.fftfreq(image.shape[0])[:, None], np.fft.fftfreq(image.shape[1]))
    edges = 0.5 ** np.arange(OCTAVES + 1, 0, -1)
    return np.array([spectrum[(radius >= low) & (radius < 2 * low)].sum() for low in edges[:-1]])


def distance(found: Sequence[Sharpness]) -> float:
    """Return by how many octaves of power, on average over bands, the images are off: mean |log2 of the mean ratio|."""
    ratios = np.array([one.power for one in found]).mean(axis=0)
    return float(np.abs(np.log2(np.maximum(ratios, 1e-12))).mean())


@torch.no_grad()
def reconstruct(vae: AutoencoderKL, pixels: Pixels) -> Pixels:
    """Return (height, width, 3) `pixels`, sides multiples of the scale factor, encoded and decoded."""
    latents = vae.encode(to_tensor(pixels[None]).to(vae.device, vae.dtype)).latent_dist.mode()
    return np.asarray(to_pixels(vae.decode(latents).sample)[0])


def psnr(first: Pixels, second: Pixels) -> float:
    """Return the peak signal-to-noise ratio of two byte images, dB."""
    error = np.mean((first.astype(np.float64) - second.astype(np.float64)) ** 2)
    return float(10 * np.log10(255**2 / max(float(error), 1e-12)))
