"""Whether the region's colours occur elsewhere in the image.

Colour is stain: optical density above the glass, of blocks of `BLOCK` x `BLOCK` pixels, described by its sum over the
three channels and by the shares (red - green) / sum and (blue - green) / sum, which do not change with the amount of a
dye. A three-dimensional histogram of the image outside the region, added up over neighbouring bins, says how much of
the image has about a colour. The score is the share of the region whose colours next to none of the image has:
brown on a blue slide, white where the glass is grey. Sums above `DENSEST` count as that, so that a nucleus may be
darker than any other.
"""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ...annotations import Box
from ...data.image_files import Pixels
from ..stain import GLASS, density

BLOCK = 3
"""Side of the blocks, pixels: grain averages out, nuclei do not."""
SHARE, SUM = 0.03, 0.15
"""Width of the bins of the shares, and of the sum."""
LIGHTEST, DENSEST = -0.675, 1.2
"""Least and greatest sum; the least puts bare glass into the middle of a bin."""
PALEST = 0.3
"""Sum below which shares are taken of this, as those of bare glass are noise."""
SELDOM = 3e-4
"""Share of the image, over a bin and its neighbours, below which a colour is not the image's own."""


def unseen(edited: Pixels, original: Pixels, box: Box) -> float:
    """Return the share, 0..1, of `box` (xyxy whole pixels) of `edited` whose colours the rest of `original` lacks.

    Both are (height, width, 3) images. Applied to one image twice it says how much a real cell stands out from the
    others of its image.
    """
    inside = _region(original.shape, box)
    glass = density(np.percentile(original.reshape(-1, 3), GLASS, axis=0))
    outside = _bins(original, glass)[~inside]
    if not len(outside) or not inside.any():
        return 0.0
    region = _bins(edited, glass)[inside]
    size = np.maximum(outside.max(axis=0), region.max(axis=0)) + 1
    counts = np.bincount(np.ravel_multi_index(tuple(outside.T), tuple(size)), minlength=int(np.prod(size)))
    near = ndimage.convolve(counts.reshape(size).astype(np.float64), np.ones((3, 3, 3)), mode="constant")
    return float((near[tuple(region.T)] < SELDOM * len(outside)).mean())


def _bins(pixels: Pixels, glass: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the (rows, columns, 3) numbers of the bins of the blocks of `pixels`, whose glass has density `glass`."""
    densities = _blocks(density(pixels) - glass)
    total = densities.sum(axis=-1)
    base = np.maximum(total, PALEST)
    shares = [(densities[..., side] - densities[..., 1]) / base for side in (0, 2)]
    found = [np.floor((np.clip(share, -1, 1) + 1) / SHARE) for share in shares]
    sums = np.floor((np.clip(total, LIGHTEST, DENSEST) - LIGHTEST) / SUM)
    return np.stack([*found, sums], axis=-1).astype(np.int64)


def _blocks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the means of the whole blocks of (height, width, channels) `values`."""
    rows, columns = values.shape[0] // BLOCK, values.shape[1] // BLOCK
    cut = values[: rows * BLOCK, : columns * BLOCK]
    return np.asarray(cut.reshape(rows, BLOCK, columns, BLOCK, -1).mean(axis=(1, 3)))


def _region(shape: tuple[int, ...], box: Box) -> NDArray[np.bool_]:
    """Return which blocks lie wholly in `box`."""
    inside = np.zeros((shape[0] // BLOCK, shape[1] // BLOCK), dtype=bool)
    x0, y0 = (-int(-value // BLOCK) for value in box[:2])
    x1, y1 = (int(value // BLOCK) for value in box[2:])
    inside[y0:y1, x0:x1] = True
    return inside
