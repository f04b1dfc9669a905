"""Stitching: two strips of a scan that do not meet."""

import numpy as np

from .view import Boxes, Variation, View


def stitching(view: View, amount: float, rng: np.random.Generator) -> View:
    """Return `view` of two strips, the second moved by `amount` micrometres in a random direction.

    The seam is upright or level, in the middle half of the image. What the second strip loses at the outer edges is
    filled with its mirror image. A box on the second strip moves with it; one across the seam grows to hold both parts.
    """
    upright = bool(rng.integers(2))
    pixels = view.pixels if upright else view.pixels.transpose(1, 0, 2)
    boxes = view.boxes if upright else view.boxes[:, [1, 0, 3, 2]]
    seam = round(pixels.shape[1] * rng.uniform(0.25, 0.75))
    angle = rng.uniform(0, 2 * np.pi)
    dx, dy = (round(amount / view.mpp * way) for way in (np.cos(angle), np.sin(angle)))
    margin = max(abs(dx), abs(dy))
    if margin >= min(pixels.shape[:2]):
        raise ValueError(f"stitching by {amount} µm: is as wide as the image")
    padded = np.pad(pixels, ((margin, margin), (margin, margin), (0, 0)), mode="symmetric")
    moved = padded[margin - dy : margin - dy + pixels.shape[0], margin - dx : margin - dx + pixels.shape[1]]
    joined = np.concatenate([pixels[:, :seam], moved[:, seam:]], axis=1)
    boxes = _moved(boxes, seam, dx, dy, (pixels.shape[1], pixels.shape[0]))
    if not upright:
        joined, boxes = joined.transpose(1, 0, 2), boxes[:, [1, 0, 3, 2]]
    return View(np.ascontiguousarray(joined), boxes, view.mpp)


def _moved(boxes: Boxes, seam: int, dx: int, dy: int, size: tuple[int, int]) -> Boxes:
    """Return `boxes` where what of them is left of `seam` stayed and what shows right of it moved by (dx, dy)."""
    moved = []
    for box in boxes:
        first = np.array([box[0], box[1], min(box[2], seam), box[3]])
        second = np.array([max(box[0] + dx, seam), box[1] + dy, box[2] + dx, box[3] + dy])
        parts = [part for part in (first, second) if part[2] > part[0]]
        if not parts:  # what the seam cut out of the image: the place where it was
            parts = [np.array([seam - 1.0, box[1], seam + 1.0, box[3]])]
        joined = np.concatenate([np.min(parts, axis=0)[:2], np.max(parts, axis=0)[2:]])
        moved.append(_clipped(joined, size))
    return np.array(moved).reshape(-1, 4)


def _clipped(box: Boxes, size: tuple[int, int]) -> Boxes:
    """Return the `box` (4,) inside an image of `size` (width, height), at least a pixel of it."""
    low = np.clip(box[:2], 0, np.array(size) - 1)
    return np.concatenate([low, np.clip(box[2:], low + 1, size)])


VARIATION = Variation("stitching", "offset of the strips", "µm", (1.0, 2.5, 5.0, 9.0, 15.0), (0.0, 100.0), stitching)
