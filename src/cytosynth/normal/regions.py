"""The normal regions of an image, without an abnormal cell."""

from collections.abc import Sequence

import numpy as np

from ..annotations import Box
from ..bethesda import NILM, NORMAL_LABELS
from ..data import augment
from ..data.image_files import Pixels
from ..data.sources import Sample

ATTEMPTS = 200
"""Number of windows sampled before an image is skipped."""


def normal(sample: Sample, turn: int, window: Box) -> bool:
    """Return whether no abnormal cell has its centre in `window` (xyxy of the turned image)."""
    width, height = sample.size
    x0, y0, x1, y1 = window
    for cell in sample.cells:
        if cell.category != NILM:
            box = augment.d4_box(cell.box, turn, width, height)
            if x0 <= (box[0] + box[2]) / 2 <= x1 and y0 <= (box[1] + box[3]) / 2 <= y1:
                return False
    return True


def usable(samples: Sequence[Sample], window: int) -> list[Sample]:
    """Return those of `samples` in which normal cells are known, and that have a normal window of `window` pixels."""
    labelled = {sample.source for sample in samples if sample.label is not None}
    known = [s for s in samples if s.cells or s.label in NORMAL_LABELS or s.source not in labelled]
    return [sample for sample in known if _has_normal(sample, window)]


def _has_normal(sample: Sample, window: int) -> bool:
    width, height = sample.size
    if min(height, width) < window:
        return False
    rng = np.random.default_rng(0)
    corners = ((int(rng.integers(width - window + 1)), int(rng.integers(height - window + 1))) for _ in range(ATTEMPTS))
    return any(normal(sample, 0, (x, y, x + window, y + window)) for x, y in corners)


def windows(samples: Sequence[Sample], window: int, count: int) -> list[Pixels]:
    """Return `count` normal windows, from the `samples` in turn, the same at every call."""
    rng = np.random.default_rng(0)
    found: list[Pixels] = []
    fit = usable(samples, window)
    while fit and len(found) < count:
        sample = fit[len(found) % len(fit)]
        width, height = sample.size
        x, y = int(rng.integers(width - window + 1)), int(rng.integers(height - window + 1))
        if normal(sample, 0, (x, y, x + window, y + window)):
            found.append(np.ascontiguousarray(sample.pixels[y : y + window, x : x + window]))
    return found
