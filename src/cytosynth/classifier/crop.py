"""The square crop of a cell for a cell classifier."""

import numpy as np
from PIL import Image

from ..annotations import Box
from ..data.image_files import Pixels


def square(pixels: Pixels, box: Box, context: float, size: int, shift: int = 0) -> Pixels:
    """Return the (size + 2 shift, size + 2 shift, 3) square about `box` (xyxy) of (height, width, 3) `pixels`.

    Its side is `context` times the box's longer side, and at least `size`: a larger square is reduced (Lanczos), a
    smaller one is not enlarged but takes in more of the field, so that nuclei keep their size. It has a margin of
    `shift` pixels on each side. Beyond the edges of `pixels` it is mirrored.
    """
    factor = max(max(box[2] - box[0], box[3] - box[1]) * context / size, 1.0)
    target = size + 2 * shift
    side = round(target * factor)
    x, y = round((box[0] + box[2] - side) / 2), round((box[1] + box[3] - side) / 2)
    rows, columns = (
        _mirrored(np.arange(at, at + side), end) for at, end in ((y, pixels.shape[0]), (x, pixels.shape[1]))
    )
    cut = np.ascontiguousarray(pixels[np.ix_(rows, columns)])
    if side == target:
        return cut
    return np.asarray(Image.fromarray(cut).resize((target, target), Image.Resampling.LANCZOS))


def _mirrored(positions: np.ndarray, extent: int) -> np.ndarray:
    """Return `positions` reflected into 0..extent-1, the edge pixel not doubled, as often as needed."""
    period = max(2 * (extent - 1), 1)
    inside = np.abs(positions) % period
    return np.asarray(np.minimum(inside, period - inside))
