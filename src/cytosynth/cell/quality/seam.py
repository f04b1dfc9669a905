"""Seams: whether the border of an edited region is visible.

The statistic of one image and one box is

    r = (B + e) / (C + e),    e = 0.5 grey levels,

where B is the mean absolute difference, over RGB and along the four sides of the box, between each pixel just
inside the border and its neighbour just outside, and C is the mean of the same difference across lines parallel
to the sides, 3 to 6 pixels further in and 3 to 6 further out. A side that lies on the image's edge is left out, and
so are parallel lines outside the image. r is about 1 where nothing happens at the border, whatever the texture.

The seam ratio of an edit is r of the edited image over r of the unedited one at the same box, so that a border that
follows a membrane of the original does not count against the edit. About 1 is seamless.
"""

from collections.abc import Iterator

import numpy as np

from ...annotations import Box
from ...data.image_files import Pixels

NEAR, FAR = 3, 6
"""Distance of the first and the last parallel line from the border, pixels."""
FLOOR = 0.5
"""Grey levels added to both means: in a uniform background both are only noise."""


def seam(edited: Pixels, original: Pixels, box: Box) -> float:
    """Return the seam ratio of the edit of `box` (xyxy whole pixels) of (height, width, 3) `original`."""
    return border_ratio(edited, box) / border_ratio(original, box)


def border_ratio(pixels: Pixels, box: Box) -> float:
    """Return r of `box` (xyxy whole pixels) in (height, width, 3) `pixels`; 1 where no side can be measured.

    Applied to boxes of real cells it gives r without any edit.
    """
    border: list[np.ndarray] = []
    parallel: list[np.ndarray] = []
    for lines, at in _sides(pixels, box):
        if not 0 < at < len(lines):
            continue
        offsets = [*range(-FAR, -NEAR + 1), *range(NEAR, FAR + 1)]
        border.append(_across(lines, at))
        parallel += [_across(lines, at + offset) for offset in offsets if 0 < at + offset < len(lines)]
    if not border or not parallel:
        return 1.0
    return float((np.concatenate(border).mean() + FLOOR) / (np.concatenate(parallel).mean() + FLOOR))


def _sides(pixels: Pixels, box: Box) -> Iterator[tuple[np.ndarray, int]]:
    """Yield for each side the image as lines parallel to it, cut to its length, and the line where it begins."""
    x0, y0, x1, y1 = (int(value) for value in box)
    columns = pixels[y0:y1].transpose(1, 0, 2).astype(np.float64)
    rows = pixels[:, x0:x1].astype(np.float64)
    yield columns, x0
    yield columns, x1
    yield rows, y0
    yield rows, y1


def _across(lines: np.ndarray, at: int) -> np.ndarray:
    """Return the absolute difference of line `at` and the one before it, one value a pixel."""
    return np.asarray(np.abs(lines[at] - lines[at - 1]).mean(axis=-1))
