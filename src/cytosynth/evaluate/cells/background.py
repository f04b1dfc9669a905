"""How well the surroundings of an edited region are preserved, as peak signal-to-noise ratio."""

import math
from collections.abc import Iterable

import numpy as np

from ...annotations import Box
from ...data.image_files import Pixels


def background_psnr(edits: Iterable[tuple[Pixels, Pixels, Box]]) -> float:
    """Return the PSNR in dB over all pixels outside the boxes; infinite where they are identical to the bit.

    Args:
        edits: (height, width, 3) before, the same after, and the edited region (xyxy whole pixels) of each edit.
    """
    total, number = 0.0, 0
    for before, after, box in edits:
        outside = np.ones(before.shape[:2], dtype=bool)
        x0, y0, x1, y1 = map(int, box)
        outside[y0:y1, x0:x1] = False
        squares = (before[outside].astype(np.float64) - after[outside].astype(np.float64)) ** 2
        total += float(squares.sum())
        number += squares.size
    return math.inf if total == 0 else 10 * math.log10(255**2 * number / total)
