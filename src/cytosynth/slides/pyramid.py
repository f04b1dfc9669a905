"""Writing the pixels of a slide as the pyramids that viewers open, with their metadata."""

import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tifffile
from numpy.typing import NDArray

from .. import __version__
from ..io import atomic
from ..io.progress import Meter
from ..provenance import SOURCE_TYPE, XMP
from .mapped import MappedArray

TILE = 512
"""Side of the stored tiles, pixels."""
SMALLEST = 1024
"""The pyramid ends with the first level whose longer side is at most this."""
XMP_TAG, BYTES = 700, 1


@dataclass(frozen=True)
class FileSettings:
    """How a pyramid is stored: compression, quality of JPEG, micrometres per pixel, and the line that says what it is.

    `identity` tells slides apart; of it an OME-TIFF gets its UUID, so that the same slide is the same bytes.
    """

    compression: Literal["lossless", "jpeg"]
    quality: int
    mpp: float
    notice: str
    identity: str = ""

    @property
    def codec(self) -> dict[str, Any]:
        """The arguments of tifffile. JPEG without subsampled colours: nuclei are a few pixels wide."""
        if self.compression == "lossless":
            return {"compression": "deflate", "predictor": True}
        return {"compression": "jpeg", "compressionargs": {"level": self.quality}}


def sizes(width: int, height: int) -> list[tuple[int, int]]:
    """Return width and height of each level, the full size first, each half of the one before."""
    found = [(width, height)]
    while max(found[-1]) > SMALLEST:
        found.append((max(1, found[-1][0] // 2), max(1, found[-1][1] // 2)))
    return found


def reduce(larger: MappedArray, smaller: MappedArray) -> None:
    """Write into `smaller` the means of 2 x 2 pixels of `larger`, a band of rows at a time."""
    height, width = smaller.array.shape[:2]
    for top in range(0, height, TILE):
        rows = min(TILE, height - top)
        block = larger.array[2 * top : 2 * (top + rows), : 2 * width].astype(np.uint16)
        total = block[0::2, 0::2] + block[1::2, 0::2] + block[0::2, 1::2] + block[1::2, 1::2]
        smaller.array[top : top + rows] = (total + 2) // 4
        larger.release()
        smaller.release()


def write(path: Path, levels: Sequence[MappedArray], settings: FileSettings, bar: Meter, ome: bool = False) -> None:
    """Write the `levels` as a tiled BigTIFF pyramid to `path`, complete or not at all.

    Flat, as OpenSlide's generic TIFF needs it: the tiled full image first, each reduced image as a further page,
    resolution in centimetres. As `ome` an OME-TIFF, whose reduced images are SubIFDs. The notice that it is synthetic
    is in the description and in an XMP packet.
    """
    packet = XMP.format(source=SOURCE_TYPE, version=__version__, notice=settings.notice).encode()
    common: dict[str, Any] = {"tile": (TILE, TILE), "photometric": "rgb", "dtype": np.uint8} | settings.codec
    first: dict[str, Any] = {
        "software": f"CytoSynth {__version__}", "extratags": [(XMP_TAG, BYTES, len(packet), packet, True)],
    }  # fmt: skip
    if ome:
        first |= {"metadata": _ome(settings), "subifds": len(levels) - 1}
    else:
        first |= {"metadata": None, "description": settings.notice}
    with atomic.file(path) as part, tifffile.TiffWriter(part, bigtiff=True, ome=ome) as file:
        for number, level in enumerate(levels):
            pixels_a_cm = 1e4 / settings.mpp / 2**number
            options = common | (first if number == 0 else {"metadata": None, "subfiletype": 1})
            file.write(
                _tiles(level, bar), shape=level.array.shape, resolution=(pixels_a_cm, pixels_a_cm),
                resolutionunit="CENTIMETER", **options,
            )  # fmt: skip
            level.release()


def _tiles(level: MappedArray, bar: Meter) -> Iterator[NDArray[np.uint8]]:
    """Yield the tiles of `level` in reading order, those at the right and lower edges filled up."""
    height, width = level.array.shape[:2]
    for y in range(0, height, TILE):
        for x in range(0, width, TILE):
            part = level.array[y : y + TILE, x : x + TILE]
            tile = np.pad(part, ((0, TILE - part.shape[0]), (0, TILE - part.shape[1]), (0, 0)), mode="edge")
            bar.advance()
            yield np.ascontiguousarray(tile)
        level.release()


def tiles_of(shapes: Sequence[tuple[int, int]]) -> int:
    """Return how many tiles levels of these widths and heights have."""
    return sum(-(-width // TILE) * -(-height // TILE) for width, height in shapes)


def _ome(settings: FileSettings) -> dict[str, Any]:
    return {
        "axes": "YXS", "Description": settings.notice,
        "UUID": str(uuid.uuid5(uuid.NAMESPACE_URL, f"cytosynth:{settings.identity}")),
        "PhysicalSizeX": settings.mpp, "PhysicalSizeXUnit": "µm",
        "PhysicalSizeY": settings.mpp, "PhysicalSizeYUnit": "µm",
    }  # fmt: skip
