"""The windows of each denoising step, on a plane that wraps around at its edges.

The plane is made so that every window is whole; the slide is cut out of it.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from .settings import WindowsName

STREAM = 5
"""Of the shifts of a run."""


@dataclass(frozen=True)
class Plane:
    """A plane of latents.

    Attributes:
        width: a multiple of `side`.
        height: the same.
        side: of what is kept of a window.
    """

    width: int
    height: int
    side: int

    @classmethod
    def around(cls, width: int, height: int, side: int) -> "Plane":
        """Return the smallest plane of whole windows that holds `width` x `height`."""
        return cls(-(-width // side) * side, -(-height // side) * side, side)

    def windows(self, kind: WindowsName, seed: int, step: int) -> Iterator[tuple[int, int]]:
        """Yield the corners (x, y) of the windows of `step`; together they cover each place `share` times over.

        SpotDiffusion (`shifted`): adjacent windows, all shifted by one random offset, a new one at each step, so that
        what one step leaves at a border lies inside a window at the next. MultiDiffusion (`overlapping`): half a
        window apart, the same at every step.
        """
        if kind == "overlapping":
            stride, shift_x, shift_y = self.side // 2, 0, 0
        else:
            stride = self.side
            shift_x, shift_y = np.random.default_rng([seed, STREAM, step]).integers(self.side, size=2).tolist()
        for y in range(0, self.height, stride):
            for x in range(0, self.width, stride):
                yield (x + shift_x) % self.width, (y + shift_y) % self.height


def kept(kind: WindowsName, field: int) -> tuple[int, int]:
    """Return the side of what is kept of a window of `field` latents, and the margin around it that is seen alone.

    SpotDiffusion keeps all of it. Then borders of the last steps, which no later step removes, stayed visible, because
    the denoiser has no context beyond them (results/slides.md). So an eighth on each side is context here: kept parts
    do not overlap, denoised windows do. MultiDiffusion's windows overlap anyway.
    """
    margin = 0 if kind == "overlapping" else field // 8
    return field - 2 * margin, margin


def share(kind: WindowsName) -> int:
    """Return how many windows of a step cover each place."""
    return 4 if kind == "overlapping" else 1
