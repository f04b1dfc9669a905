"""Whether the region is visible as a square.

A blend hides the step at the region's border from `seam`, but not the eye: a square stays when the colour changes
along a straight line. The contrast of a line is the difference in optical density between a strip of `WIDTH` pixels
before it and one `BLEND` pixels behind it, averaged along runs of `RUN` pixels, so that only what goes straight along
the line adds up; of a line's runs the mean is taken, without sign. The score is

    (mean contrast of the region's four sides in the edited image + e) / (the same of lines next to them + e),

where the lines next to are parallel to the sides, 12 to 24 pixels away, in the unedited image, and e = 0.01: about 1
where nothing goes along the border that does not go along other lines too.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from ...annotations import Box
from ...data.image_files import Pixels
from ..stain import density

Values = NDArray[np.float64]
WIDTH = 4
"""Width of a strip, pixels."""
BLEND = 6
"""Pixels between the strips: most of the default blend (`cell.feather`)."""
RUN = 16
"""Length over which differences add up, pixels."""
OFFSETS = (-24, -20, -16, -12, 12, 16, 20, 24)
"""Of the lines next to a side, pixels."""
FLOOR = 0.01


def straightness(edited: Pixels, original: Pixels, box: Box) -> float:
    """Return the score of `box` (xyxy whole pixels) in (height, width, 3) `edited`; 1 where no side can be measured.

    Applied to one image twice it says how straight real borders are where no edit is.
    """
    own = [contrast for _, contrast in _contrasts(edited, box, (0,))]
    beside = [contrast for _, contrast in _contrasts(original, box, OFFSETS)]
    if not own or not beside:
        return 1.0
    return float((np.mean(own) + FLOOR) / (np.mean(beside) + FLOOR))


def _contrasts(pixels: Pixels, box: Box, offsets: tuple[int, ...]) -> Iterator[tuple[int, float]]:
    """Yield side and contrast of each line at one of `offsets` from a side of `box` that `pixels` have."""
    margin = WIDTH + BLEND + max(abs(offset) for offset in offsets)
    height, width = pixels.shape[:2]
    x0, y0, x1, y1 = (int(value) for value in box)
    left, top = max(0, x0 - margin), max(0, y0 - margin)
    densities = density(pixels[top : min(height, y1 + margin), left : min(width, x1 + margin)])
    columns, rows = densities[y0 - top : y1 - top].transpose(1, 0, 2), densities[:, x0 - left : x1 - left]
    sides = ((columns, x0 - left, 1), (columns, x1 - left, -1), (rows, y0 - top, 1), (rows, y1 - top, -1))
    for number, (lines, at, inward) in enumerate(sides):
        for offset in offsets:
            contrast = _contrast(lines, at + offset, inward)
            if contrast is not None:
                yield number, contrast


def _contrast(lines: Values, at: int, inward: int) -> float | None:
    """Return the contrast of line `at` of (lines, length, 3) densities, whose region begins there going `inward`."""
    inner = (at + BLEND, at + BLEND + WIDTH) if inward > 0 else (at - BLEND - WIDTH, at - BLEND)
    outer = (at - WIDTH, at) if inward > 0 else (at, at + WIDTH)
    if min(*inner, *outer) < 0 or max(*inner, *outer) > len(lines) or lines.shape[1] < RUN:
        return None
    step = lines[slice(*inner)].mean(axis=0) - lines[slice(*outer)].mean(axis=0)
    sums = np.concatenate([np.zeros((1, step.shape[1])), np.cumsum(step, axis=0)])
    return float(np.abs(sums[RUN:] - sums[:-RUN]).mean() / RUN)
