"""Tiled TIFF read by tifffile: OME-TIFF pyramids, whose levels OpenSlide does not look for."""

import struct
from pathlib import Path
from typing import Any, Final

import numpy as np
import tifffile
from defusedxml import ElementTree
from defusedxml.common import DefusedXmlException

from ...errors import EnvironmentProblem
from ..image_files import BROKEN, Pixels
from .slide import Level, SlideProblem, plausible

BROKEN_TIFF: Final = (*BROKEN, tifffile.TiffFileError)
"""What tifffile raises on broken files."""
LARGEST_TILE = 64 << 20
"""Pixels of a stored tile; a larger one is a bomb."""
LARGEST_SIDE = 2**22
"""Pixels; four times the largest slides."""
MOST_PAGES = 64
"""Of a file that are looked at."""
CENTIMETRE, INCH = 3, 2
"""Of the tag ResolutionUnit."""
MICRONS: Final = {"µm": 1.0, "μm": 1.0, "um": 1.0, "nm": 1e-3, "mm": 1e3, "cm": 1e4}
"""Units of OME's PhysicalSize, micrometres."""


class TiffPyramid:
    """The pyramid of a tiled 8-bit TIFF: levels in SubIFDs, or as further reduced pages."""

    def __init__(self, path: Path) -> None:
        """Open `path`; raise SlideProblem for what is no tiled RGB or grey TIFF of 8 bits."""
        self._path = path
        try:
            self._file: Any = tifffile.TiffFile(path)
            pages = _pages(self._file)
            for page in pages:
                self._check(page)
            first = pages[0]
            self.mpp = _mpp(self._file, first)
        except FileNotFoundError:
            raise SlideProblem(f"{path}: no such file") from None
        except SlideProblem:
            raise
        except BROKEN_TIFF as error:
            raise SlideProblem(f"{path}: not a readable TIFF ({str(error)[:120]})") from None
        self._pages = pages
        self.levels = tuple(
            Level(page.imagewidth, page.imagelength, first.imagewidth / page.imagewidth) for page in pages
        )

    def read(self, level: int, x: int, y: int, width: int, height: int) -> Pixels:
        """Return a region of `level`; see `Pyramid.read`."""
        page = self._pages[level]
        side_x, side_y = page.tilewidth, page.tilelength
        across = -(-page.imagewidth // side_x)
        pixels = np.full((height, width, 3), 255, dtype=np.uint8)
        for row in range(y // side_y, (y + height - 1) // side_y + 1):
            for column in range(x // side_x, (x + width - 1) // side_x + 1):
                tile = self._tile(page, row * across + column)
                if tile is None:
                    continue
                left, top = column * side_x, row * side_y
                x0, y0 = max(x, left), max(y, top)
                x1, y1 = min(x + width, left + tile.shape[1]), min(y + height, top + tile.shape[0])
                pixels[y0 - y : y1 - y, x0 - x : x1 - x] = tile[y0 - top : y1 - top, x0 - left : x1 - left]
        return pixels

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _tile(self, page: Any, index: int) -> Pixels | None:
        """Return the (height, width, 3) stored tile `index`, None for one that is not stored."""
        try:
            size = page.databytecounts[index]
            if size == 0:
                return None
            handle = self._file.filehandle
            handle.seek(page.dataoffsets[index])
            tables = {"jpegtables": page.jpegtables} if page.jpegtables is not None else {}
            decoded = page.decode(handle.read(size), index, **tables)[0]
        except BROKEN_TIFF as error:
            if "imagecodecs" in str(error):
                raise EnvironmentProblem(
                    "reading this slide needs imagecodecs: pip install cytosynth[slides]"
                ) from None
            raise SlideProblem(f"{self._path}: tile {index} is damaged ({str(error)[:80]})") from None
        if decoded is None:
            return None
        tile = np.asarray(decoded).reshape(decoded.shape[-3:])
        return np.repeat(tile, 3, axis=2) if tile.shape[2] == 1 else np.asarray(tile[..., :3])

    def _check(self, page: Any) -> None:
        """Raise SlideProblem for a `page` that cannot be read by region."""
        reason = ""
        if not page.is_tiled:
            reason = "is not tiled; tile it with `vips tiffsave IN OUT --tile --pyramid --bigtiff`"
        elif page.dtype != np.uint8:
            reason = f"has samples of {page.dtype}; only 8 bits are supported"
        elif page.planarconfig != 1 or page.samplesperpixel not in (1, 3, 4) or page.imagedepth != 1:
            reason = "is not an RGB or grey image with interleaved samples"
        elif max(page.imagewidth, page.imagelength) > LARGEST_SIDE or not page.imagewidth or not page.imagelength:
            reason = f"has {page.imagewidth}x{page.imagelength} pixels"
        elif page.tilewidth * page.tilelength > LARGEST_TILE:
            reason = f"has tiles of {page.tilewidth}x{page.tilelength} pixels (a decompression bomb?)"
        if reason:
            raise SlideProblem(f"{self._path}: {reason}")


def is_pyramid(path: Path, most: int) -> bool:
    """Return whether the TIFF at `path` is to be read by region: tiled, with reduced levels or more pixels than `most`.

    False for what cannot be read: reading it as an image then says why.
    """
    try:
        with tifffile.TiffFile(path) as file:
            pages = _pages(file)
            first = pages[0]
            return bool(first.is_tiled and (len(pages) > 1 or first.imagewidth * first.imagelength > most))
    except BROKEN_TIFF:
        return False


def is_ome(path: Path) -> bool:
    """Return whether the file at `path` is an OME-TIFF."""
    try:
        with tifffile.TiffFile(path) as file:
            return bool(file.is_ome)
    except BROKEN_TIFF:
        return False


def _pages(file: Any) -> list[Any]:
    """Return the pages of the levels of an opened TIFF, the largest first."""
    first = file.pages[0]
    found = [first]
    reduced = list(first.pages)[:MOST_PAGES] if first.subifds else _reduced(file)
    for page in reduced:
        factor = first.imagewidth / page.imagewidth
        same_shape = abs(page.imagelength * factor - first.imagelength) <= 2 * factor + 1
        if page.is_tiled and page.imagewidth < found[-1].imagewidth and same_shape:
            found.append(page)
    return found


def _reduced(file: Any) -> list[Any]:
    """Return the pages after the first that say they are reduced images, of the first MOST_PAGES."""
    found = []
    for index in range(1, MOST_PAGES):
        try:
            page = file.pages[index]
        except IndexError:
            break
        if page.is_reduced:
            found.append(page)
    return found


def _mpp(file: Any, page: Any) -> float | None:
    """Return micrometres per pixel of the first `page`: of OME's metadata, else of the resolution tags."""
    if file.is_ome:
        return _ome_mpp(file.ome_metadata)
    tags = page.tags
    unit, resolution = tags.get("ResolutionUnit"), tags.get("XResolution")
    if unit is None or resolution is None or unit.value not in (CENTIMETRE, INCH):
        return None
    numerator, denominator = resolution.value
    if not numerator:
        return None
    return plausible((1e4 if unit.value == CENTIMETRE else 25400.0) * denominator / numerator)


def _ome_mpp(xml: str) -> float | None:
    try:
        root = ElementTree.fromstring(xml)
        pixels = next(element for element in root.iter() if element.tag.endswith("}Pixels"))
        size = float(str(pixels.get("PhysicalSizeX")))
        return plausible(size * MICRONS[pixels.get("PhysicalSizeXUnit", "µm")])
    except (ElementTree.ParseError, DefusedXmlException, StopIteration, TypeError, ValueError, KeyError, struct.error):
        return None
