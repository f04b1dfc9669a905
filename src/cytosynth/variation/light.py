"""Light: sRGB bytes to linear intensity and back, and filters on it.

Light adds up, and is absorbed by Beer and Lambert's law, in linear intensity alone; files hold it coded by the curve of
sRGB (IEC 61966-2-1). An image of a camera with another curve is treated as if it were sRGB: nothing in it says so.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from .view import Pixels

Light = NDArray[np.float32]
"""(height, width, 3) linear intensity, 1 at the greatest byte."""


def _decoded() -> NDArray[np.float32]:
    code = np.arange(256) / 255
    return np.where(code <= 0.04045, code / 12.92, ((code + 0.055) / 1.055) ** 2.4).astype(np.float32)


TABLE = _decoded()


def linear(pixels: Pixels) -> Light:
    """Return the linear intensity of sRGB `pixels`."""
    return TABLE[pixels]


def coded(light: NDArray[np.floating]) -> Pixels:
    """Return linear intensity as sRGB bytes, rounded; what is below 0 or above 1 is clipped, as a camera does."""
    clipped = np.clip(light, 0, 1).astype(np.float32)
    code = np.where(clipped <= 0.0031308, 12.92 * clipped, 1.055 * clipped ** np.float32(1 / 2.4) - 0.055)
    return np.asarray(np.rint(code * 255), dtype=np.uint8)


def filtered(light: Light, transfer: Callable[[NDArray[np.float64], NDArray[np.float64], int], NDArray]) -> Light:
    """Return `light` with each band multiplied by a transfer function in the domain of frequencies.

    Mirrored at its edges, so that none of the opposite one comes in.

    Args:
        light: (height, width, 3).
        transfer: (fy, fx, band) to the factors, which frequencies (cycles a pixel; they broadcast) are multiplied by.
    """
    height, width = light.shape[:2]
    margins = [min(64, side - 1) for side in (height, width)]
    padded = np.pad(light, ((margins[0],) * 2, (margins[1],) * 2, (0, 0)), mode="reflect")
    shape = [fft.next_fast_len(side, real=True) for side in padded.shape[:2]]
    padded = np.pad(padded, ((0, shape[0] - padded.shape[0]), (0, shape[1] - padded.shape[1]), (0, 0)), mode="edge")
    fy = np.asarray(np.fft.fftfreq(shape[0])[:, None], dtype=np.float64)
    fx = np.asarray(np.fft.rfftfreq(shape[1])[None, :], dtype=np.float64)
    bands = [
        fft.irfft2(fft.rfft2(padded[..., band]) * transfer(fy, fx, band).astype(np.complex64), s=shape)
        for band in range(3)
    ]
    top, left = margins
    return np.stack([band[top : top + height, left : left + width] for band in bands], axis=-1).astype(np.float32)
