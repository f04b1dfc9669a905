"""Slides that OpenSlide reads: SVS, NDPI, MRXS, SCN, BIF, CZI, DICOM and tiled TIFF among them."""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..image_files import Pixels
from .slide import Level, SlideProblem, plausible


class OpenSlidePyramid:
    """The pyramid of a file that OpenSlide reads."""

    def __init__(self, path: Path) -> None:
        """Open `path`; raise SlideProblem if OpenSlide cannot."""
        import openslide

        self._path, self._broken = path, openslide.OpenSlideError
        try:
            self._file: Any = openslide.OpenSlide(str(path))
        except (openslide.OpenSlideError, OSError) as error:
            raise SlideProblem(f"{path}: OpenSlide cannot read it ({str(error)[:120]})") from None
        sizes = zip(self._file.level_dimensions, self._file.level_downsamples, strict=True)
        self.levels = tuple(Level(width, height, float(downsample)) for (width, height), downsample in sizes)
        self.mpp = self._mpp()

    def read(self, level: int, x: int, y: int, width: int, height: int) -> Pixels:
        """Return a region of `level`; see `Pyramid.read`."""
        downsample = self.levels[level].downsample
        try:
            region = self._file.read_region((round(x * downsample), round(y * downsample)), level, (width, height))
        except self._broken as error:
            raise SlideProblem(f"{self._path}: damaged near ({x}, {y}) of level {level} ({str(error)[:80]})") from None
        white = Image.new("RGB", region.size, (255, 255, 255))
        white.paste(region, mask=region.getchannel("A"))
        return np.asarray(white)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _mpp(self) -> float | None:
        """Return micrometres per pixel; raise SlideProblem if pixels are not square."""
        found = []
        for axis in "xy":
            try:
                found.append(float(self._file.properties[f"openslide.mpp-{axis}"]))
            except (KeyError, ValueError):
                return None
        if plausible(found[0]) and abs(found[0] - found[1]) > 0.02 * found[0]:
            raise SlideProblem(
                f"{self._path}: pixels are {found[0]:g} by {found[1]:g} µm; only square pixels are supported"
            )
        return plausible(found[0])
