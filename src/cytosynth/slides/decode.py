"""Decoding the latents of a slide in overlapping tiles, a row of tiles at a time."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from ..data.image_files import Pixels
from ..foundation.model import Foundation
from ..io.progress import Meter
from .mapped import MappedArray
from .preparation import Preparation, stained

TILE, OVERLAP = 128, 24
"""Latents: side of what is decoded at a time, and how far tiles reach into each other."""
PART = 2048
"""Columns that are blended and stained at a time."""


@dataclass
class Decoding:
    """Decodes the latents of a slide into its pixels.

    Overlapping tiles are blended linearly: a decoder's normalisation differs a little from tile to tile, which must not
    be visible as a line.

    Attributes:
        model: has the decoder.
        latents: (C, rows, columns), of at least the slide.
        pixels: (height, width, 3) of the slide, written row by row of tiles.
        preparation: gives the depth of stain.
        glass: (3,) colour of empty glass.
        factor: pixels for one of the latents.
    """

    model: Foundation
    latents: MappedArray
    pixels: MappedArray
    preparation: Preparation
    glass: NDArray[np.int16]
    factor: int

    @property
    def rows(self) -> int:
        """How many rows of tiles there are."""
        return len(self._starts(0))

    @property
    def columns(self) -> int:
        """How many tiles a row has."""
        return len(self._starts(1))

    def run(self, done: int, finished: Callable[[int], None], bar: Meter) -> None:
        """Decode the rows of tiles after `done`; call `finished` with the number of those whose pixels are on disk."""
        starts = self._starts(0)
        ends = [*starts[1:], -(-self.pixels.array.shape[0] // self.factor)]
        above = self._row(starts[done - 1]) if done else None
        for number in range(done, len(starts)):
            own = self._row(starts[number])
            reach = (starts[number - 1] + self._side(1) - starts[number]) * self.factor if number else 0
            top = starts[number] * self.factor
            bottom = min(ends[number] * self.factor, self.pixels.array.shape[0])
            self._write(own, None if above is None else above[len(above) - reach :], top, bottom)
            above = own
            finished(number + 1)
            bar.advance(amount=self.columns)

    def _write(self, own: Pixels, above: Pixels | None, top: int, bottom: int) -> None:
        """Stain the first rows of `own` and write them to the rows `top` to `bottom`, a part at a time.

        The last rows `above`, of the tiles before, lie over the first of `own`.
        """
        width = self.pixels.array.shape[1]
        for left in range(0, width, PART):
            part = own[: bottom - top, left : left + PART].astype(np.float32)
            if above is not None:
                weight = _ramp(len(above))[: len(part), None, None]
                over = above[: len(part), left : left + PART]
                part[: len(over)] = (1 - weight) * over + weight * part[: len(over)]
            factor = self.preparation.stain(left, top, part.shape[1], part.shape[0])
            self.pixels.array[top:bottom, left : left + PART] = rounded(stained(part, self.glass, factor))
        self.pixels.release()
        self.latents.release()

    @torch.no_grad()
    def _row(self, start: int) -> Pixels:
        """Return the (tile, width, 3) pixels of the row of tiles that begins at row `start` of the latents."""
        width = self.pixels.array.shape[1]
        side_y, side_x = self._side(1), self._side(2)
        row = np.zeros((side_y * self.factor, width, 3), dtype=np.uint8)
        reached = 0
        for x in self._starts(1):
            region = torch.from_numpy(np.array(self.latents.array[:, start : start + side_y, x : x + side_x]))
            left = x * self.factor
            tile = self.model.decode_latents(region[None].to(self.model.device))[0, :, : width - left]
            share = max(0, min(reached - left, tile.shape[1]))  # columns that the tile before has too
            row[:, left + share : left + tile.shape[1]] = tile[:, share:]
            if share:
                weight = _ramp(share)[None, :, None]
                row[:, left : left + share] = rounded(
                    (1 - weight) * row[:, left : left + share] + weight * tile[:, :share]
                )
            reached = left + tile.shape[1]
        return row

    def _side(self, axis: int) -> int:
        return min(TILE, int(self.latents.array.shape[axis]))

    def _starts(self, axis: int) -> list[int]:
        """Return where tiles begin along `axis` of the slide, in latents; the last ends with the slide."""
        wanted = -(-self.pixels.array.shape[axis] // self.factor)
        side = self._side(axis + 1)
        last = max(0, wanted - side)
        return [*range(0, last, side - OVERLAP), last] if last else [0]


def rounded(values: NDArray[np.floating]) -> Pixels:
    """Return `values` as bytes."""
    return np.asarray(np.clip(np.rint(values), 0, 255).astype(np.uint8))


def _ramp(length: int) -> NDArray[np.float32]:
    """Return weights that rise from near 0 to near 1."""
    return ((np.arange(length) + 0.5) / length).astype(np.float32)
