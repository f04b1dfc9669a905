"""Grain: the fine texture that an autoencoder loses, added to the edited region.

Decoded pixels are softer than a microscope's. In a real image they are visible, and a detector trained on such images
may learn softness instead of cells. The loss can be measured around the edited region, where the original is known: it
is the original minus its reconstruction. From it, noise is generated that has

- the spectrum of the fine part of what was lost, and its covariance of colours: white noise convolved with it (spot
  noise; Galerne, Gousseau and Morel, Random Phase Textures, IEEE Transactions on Image Processing 20, 2011);
- its level at each luminance, for cytoplasm and nuclei have more of it than the background: a robust one, as the edges
  and structures that were lost too are none of the grain.

Not in the paper. The noise contains no structure: no nucleus, no membrane and no chromatin pattern.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from ..annotations import Box
from ..data.image_files import Pixels

Values = NDArray[np.float64]
COARSE = 1.5
"""Deviation of the Gaussian, pixels, whose share of what was lost is left out: colours that are a little off over whole
cells, as in images of another stain, are no grain, and would be speckles."""
LEVELS = 8
"""Number of luminance ranges of the surroundings whose noise level is measured."""
FLOOR = 0.5
"""Grey levels that are lost by rounding alone."""
MOST = 3.0
"""Standard deviations beyond which what was lost is no grain but an edge that moved."""
TO_DEVIATION = 1.4826
"""The standard deviation of Gaussian noise over its median absolute value."""
LUMINANCE = np.array([0.299, 0.587, 0.114])
"""Of R, G and B (ITU-R BT.601)."""


def added(
    edited: Pixels, original: Pixels, reconstructed: Pixels, box: Box, seed: int, amount: float = 1.0
) -> Pixels:  # fmt: skip
    """Return the (size, size, 3) patch `edited` with grain inside `box` (xyxy whole pixels).

    Args:
        edited: decoded patch.
        original: the same patch before the edit.
        reconstructed: `original`, encoded and decoded.
        box: the edited region; nothing outside it changes.
        seed: of the noise.
        amount: factor on the level that was lost; 1: as much as was lost.
    """
    x0, y0, x1, y1 = (int(value) for value in box)
    around = np.ones(edited.shape[:2], dtype=bool)
    around[y0:y1, x0:x1] = False
    if np.count_nonzero(around) < LEVELS:
        return edited
    lost = original.astype(np.float64) - reconstructed
    lost -= gaussian_filter(lost, (COARSE, COARSE, 0), mode="nearest")
    lost -= lost[around].mean(axis=0)
    luminances, levels = _levels(lost[around], reconstructed[around] @ LUMINANCE)
    level = np.interp(reconstructed @ LUMINANCE, luminances, levels)[..., None]
    white = np.random.default_rng([seed, 9]).standard_normal(around.shape)
    noise = _spot_noise(np.clip(lost / level, -MOST, MOST) * around[..., None], white)
    wanted = np.interp(edited @ LUMINANCE, luminances, levels)[..., None]
    result = edited.copy()
    region = edited + amount * wanted * noise
    result[y0:y1, x0:x1] = np.clip(np.rint(region[y0:y1, x0:x1]), 0, 255).astype(np.uint8)
    return result


def _levels(lost: Values, luminance: Values) -> tuple[Values, Values]:
    """Return ascending luminances and the robust standard deviation of the (n, 3) values `lost` near each."""
    parts = np.array_split(np.argsort(luminance, kind="stable"), LEVELS)
    luminances, first = np.unique([luminance[part].mean() for part in parts], return_index=True)
    levels = np.array([TO_DEVIATION * np.median(np.abs(lost[part])) for part in parts])
    return luminances, np.maximum(levels[first], FLOOR)


def _spot_noise(texture: Values, white: Values) -> Values:
    """Return the (size, size) `white` noise convolved, periodically, with each channel of `texture`; variance 1."""
    spectrum = np.fft.fft2(texture, axes=(0, 1)) * np.fft.fft2(white)[..., None]
    noise = np.fft.ifft2(spectrum, axes=(0, 1)).real
    return np.asarray(noise / np.sqrt(max(np.square(texture).sum() / texture.shape[-1], 1e-12)))
