"""The eight flips and rotations (D4) of images and boxes, and crops."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from ..annotations import Box


def d4(array: NDArray, turn: int, axes: tuple[int, int] = (0, 1)) -> NDArray:
    """Return `array` in orientation `turn` in 0..7: 90-degree rotations, from 4 on mirrored first (left-right)."""
    if turn >= 4:
        array = np.flip(array, axes[1])
    return np.rot90(array, turn % 4, axes)


def d4_box(box: Box, turn: int, width: float, height: float) -> Box:
    """Return `box` of an image of `width` x `height` after `d4(image, turn)`."""
    x0, y0, x1, y1 = box
    if turn >= 4:
        x0, x1 = width - x1, width - x0
    for _ in range(turn % 4):
        x0, y0, x1, y1 = y0, width - x1, y1, width - x0
        width, height = height, width
    return x0, y0, x1, y1


def crop(array: NDArray, x: int, y: int, size: int) -> NDArray:
    """Return the `size` x `size` window of (height, width, ...) `array` whose corner is (x, y)."""
    return array[y : y + size, x : x + size]


def restain(pixels: NDArray[np.uint8], strength: float, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Return (height, width, 3) `pixels` with each channel's optical density scaled by 1 ± `strength`."""
    if not strength:
        return pixels
    density = rng.uniform(1 - strength, 1 + strength, 3).astype(np.float32)
    white = float(rng.uniform(1 - strength / 2, 1))
    scaled = 255 * white * (np.maximum(pixels, 1) / np.float32(255)) ** density
    return np.clip(scaled, 0, 255).astype(np.uint8)


def soften(pixels: NDArray[np.uint8], share: float, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Return `pixels` blurred (Gaussian, 0.3 to 1.5 pixels) in a `share` of the calls."""
    if rng.random() >= share:
        return pixels
    radius = float(rng.uniform(0.3, 1.5))
    return np.asarray(Image.fromarray(np.ascontiguousarray(pixels)).filter(ImageFilter.GaussianBlur(radius)))
