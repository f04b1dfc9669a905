"""A whole slide, read by region at a scale in micrometres per pixel (mpp)."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from PIL import Image

from ...errors import UsageError
from ..image_files import ImageProblem, Pixels

WORKING_MPP = 0.49
"""Microns per pixel at which models work: a true x20."""
PLAUSIBLE_MPP = (0.05, 5.0)
"""What a microscope's image can have; 72 dpi, which many programs write, is 353."""
COARSEST = 2.0
"""A slide is enlarged by at most this factor; a coarser one does not show what a model looks for."""
EXACT = 1e-4
"""Relative difference of scales below which pixels are taken as they are."""
LARGEST_READ = 4096
"""Side of what is read of a level at a time for a thumbnail, pixels."""
SUPPORT = 3
"""Reach of the Lanczos filter, pixels of the coarser grid."""


class SlideProblem(ImageProblem):
    """A slide that cannot be read; the message says why."""


@dataclass(frozen=True)
class Level:
    """One image of a pyramid: width and height in its own pixels, and how many pixels of level 0 one of them spans."""

    width: int
    height: int
    downsample: float


class Pyramid(Protocol):
    """What a reader of a file format offers."""

    @property
    def levels(self) -> tuple[Level, ...]:
        """Full size first, then smaller ones."""

    @property
    def mpp(self) -> float | None:
        """Microns per pixel of level 0, None if the file does not say."""

    def read(self, level: int, x: int, y: int, width: int, height: int) -> Pixels:
        """Return (height, width, 3) pixels of a region inside `level`, in its own pixels; white where nothing is."""

    def close(self) -> None:
        """Close the file."""


@dataclass(frozen=True)
class Slide:
    """An opened slide.

    Attributes:
        path: the file.
        pyramid: reads it.
        mpp: micrometres per pixel of level 0.
    """

    path: Path
    pyramid: Pyramid
    mpp: float

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of level 0, pixels."""
        return self.pyramid.levels[0].width, self.pyramid.levels[0].height

    def at(self, mpp: float = WORKING_MPP) -> "View":
        """Return the slide as it is at `mpp` micrometres per pixel; raise SlideProblem if it is much coarser."""
        if self.mpp > COARSEST * mpp:
            raise SlideProblem(
                f"{self.path}: {self.mpp:g} µm per pixel is too coarse; at most {COARSEST * mpp:g} is supported"
            )
        return View(self, mpp / self.mpp)

    def thumbnail(self, side: int = 2048) -> "View":
        """Return the slide reduced so that its longer side has at most `side` pixels."""
        return View(self, max(1.0, max(self.size) / side))


@dataclass(frozen=True)
class View:
    """A slide at one scale.

    A pixel does not depend on the region with which it is read.

    Attributes:
        slide: what is seen.
        factor: pixels of level 0 for one pixel of the view.
    """

    slide: Slide
    factor: float

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels of the view."""
        width, height = (max(1, int(side / self.factor + 1e-6)) for side in self.slide.size)
        return width, height

    def read(self, x: int, y: int, width: int, height: int) -> Pixels:
        """Return the (height, width, 3) pixels whose upper left corner is (x, y), all inside the view.

        Raises SlideProblem for a part of the file that is damaged.
        """
        number, level = self._level()
        scale = self.factor / level.downsample
        if abs(scale - 1) < EXACT:
            return self.slide.pyramid.read(number, x, y, width, height)
        box = (x * scale, y * scale, (x + width) * scale, (y + height) * scale)
        reach = math.ceil(SUPPORT * max(scale, 1)) + 1
        left, top = (max(0, math.floor(value) - reach) for value in box[:2])
        right = min(level.width, math.ceil(box[2]) + reach)
        bottom = min(level.height, math.ceil(box[3]) + reach)
        region = self.slide.pyramid.read(number, left, top, right - left, bottom - top)
        inside = (
            box[0] - left, box[1] - top, min(box[2] - left, right - left), min(box[3] - top, bottom - top)
        )  # fmt: skip
        resized = Image.fromarray(region).resize((width, height), Image.Resampling.LANCZOS, box=inside)
        return np.asarray(resized)

    def whole(self) -> Pixels:
        """Return all of the view, for thumbnails: read in blocks, so that memory stays bounded."""
        width, height = self.size
        block = max(8, min(1024, int(LARGEST_READ * self._level()[1].downsample / self.factor)))
        pixels = np.empty((height, width, 3), dtype=np.uint8)
        for y in range(0, height, block):
            for x in range(0, width, block):
                w, h = min(block, width - x), min(block, height - y)
                pixels[y : y + h, x : x + w] = self.read(x, y, w, h)
        return pixels

    def _level(self) -> tuple[int, Level]:
        """Return number and entry of the smallest level that has the detail of the view."""
        fine = [
            (number, level)
            for number, level in enumerate(self.slide.pyramid.levels)
            if level.downsample <= self.factor * (1 + EXACT)
        ]
        return max(fine, key=lambda one: one[1].downsample, default=(0, self.slide.pyramid.levels[0]))


def plausible(mpp: float | None) -> float | None:
    """Return `mpp` where a microscope's image can have it, else None."""
    low, high = PLAUSIBLE_MPP
    return mpp if mpp is not None and low <= mpp <= high else None


def scale_of(path: Path, said: float | None, given: float | None) -> float:
    """Return micrometres per pixel of the slide at `path`: what is `given`, else what the file `said`.

    Raises UsageError if neither is there.
    """
    if given is not None:
        if plausible(given) is None:
            raise UsageError(f"--mpp {given:g}: must be between {PLAUSIBLE_MPP[0]:g} and {PLAUSIBLE_MPP[1]:g}")
        return given
    if said is None:
        raise UsageError(
            f"{path}: does not state its micrometres per pixel; give --mpp (about 0.25 at x40, 0.5 at x20)"
        )
    return said
