"""Slides for the tests: tiled TIFF written by tifffile, with planted cells whose places are known."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import tifffile
import torch
from scipy import ndimage
from torch import Tensor, nn

from cytosynth.detection.model import Detector, DetectorConfig

GLASS = (238, 240, 243)
NUCLEUS = (60, 45, 95)
TILE = 512
Planted = tuple[float, float, float]
"""x, y, radius in pixels of level 0."""


def write_slide(
    path: Path, size: tuple[int, int], cells: Sequence[Planted], mpp: float | None = 0.49, levels: int = 3
) -> Path:
    """Write a slide of glass with dark discs: a flat pyramid, each level drawn anew."""
    resolution = {} if mpp is None else {"resolutionunit": "CENTIMETER"}
    with tifffile.TiffWriter(path, bigtiff=True) as file:
        for level in range(levels):
            factor = 2**level
            width, height = size[0] // factor, size[1] // factor
            scaled = [(x / factor, y / factor, r / factor) for x, y, r in cells]
            if mpp is not None:
                resolution["resolution"] = (1e4 / mpp / factor,) * 2
            file.write(
                _tiles(width, height, scaled), shape=(height, width, 3), dtype=np.uint8, tile=(TILE, TILE),
                photometric="rgb", compression="deflate", subfiletype=int(level > 0), metadata=None, **resolution,
            )  # fmt: skip
    return path


def write_pixels(path: Path, pixels: np.ndarray, mpp: float = 0.49, ome: bool = False) -> Path:
    """Write `pixels` as a tiled TIFF with one reduced level: a further page, or a SubIFD of an OME-TIFF."""
    small = pixels[::2, ::2]
    options = {"tile": (64, 64), "photometric": "rgb", "compression": "deflate", "resolutionunit": "CENTIMETER"}
    metadata = {"axes": "YXS", "PhysicalSizeX": mpp, "PhysicalSizeXUnit": "µm"} if ome else None
    with tifffile.TiffWriter(path, bigtiff=True, ome=ome) as file:
        file.write(pixels, subifds=1 if ome else 0, resolution=(1e4 / mpp,) * 2, metadata=metadata, **options)
        file.write(small, subfiletype=1, resolution=(5e3 / mpp,) * 2, metadata=None, **options)
    return path


def _tiles(width: int, height: int, cells: Sequence[Planted]) -> Iterator[np.ndarray]:
    """Yield the tiles of a level in reading order."""
    there: dict[tuple[int, int], list[Planted]] = {}
    for x, y, r in cells:
        for row in range(int(y - r) // TILE, int(y + r) // TILE + 1):
            for column in range(int(x - r) // TILE, int(x + r) // TILE + 1):
                there.setdefault((row, column), []).append((x, y, r))
    empty = np.full((TILE, TILE, 3), GLASS, dtype=np.uint8)
    for row in range(-(-height // TILE)):
        for column in range(-(-width // TILE)):
            tile = empty
            if (row, column) in there:
                tile = empty.copy()
                ys, xs = np.mgrid[row * TILE : (row + 1) * TILE, column * TILE : (column + 1) * TILE] + 0.5
                for x, y, r in there[row, column]:
                    tile[(xs - x) ** 2 + (ys - y) ** 2 <= r * r] = NUCLEUS
            yield tile


class Discs(nn.Module):
    """A detector that needs no training: finds the dark discs of `write_slide`, cut where its tile cuts them."""

    def __init__(self) -> None:
        super().__init__()
        self.anchor = nn.Parameter(torch.zeros(1))
        self.seen = 0
        self.stop_after: int | None = None

    def forward(self, images: Sequence[Tensor]) -> list[dict[str, Tensor]]:
        """Return torchvision's `boxes`, `labels` and `scores` of each image."""
        results = []
        for image in images:
            self.seen += 1
            if self.stop_after is not None and self.seen > self.stop_after:
                raise KeyboardInterrupt
            dark = image.mean(dim=0).numpy() < 0.5
            found = ndimage.find_objects(ndimage.label(dark)[0])
            boxes = [[s[1].start, s[0].start, s[1].stop, s[0].stop] for s in found]
            results.append({
                "boxes": torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
                "labels": torch.ones(len(boxes), dtype=torch.int64),
                "scores": torch.linspace(0.99, 0.9, max(len(boxes), 1))[: len(boxes)],
            })  # fmt: skip
        return results


def discs() -> Detector:
    """Return the detector of dark discs, as the program holds any."""
    return Detector(Discs().eval(), DetectorConfig(categories=("NILM",), tile=1024), "discs")


def matched(boxes: Sequence[Sequence[float]], cells: Sequence[Planted], tolerance: float) -> list[int]:
    """Return how many of `boxes` lie at each planted cell; raise AssertionError for one that lies at none."""
    counts = [0] * len(cells)
    for x0, y0, x1, y1 in boxes:
        near = [
            index
            for index, (x, y, r) in enumerate(cells)
            if abs(x0 - x + r) <= tolerance and abs(y0 - y + r) <= tolerance
            and abs(x1 - x - r) <= tolerance and abs(y1 - y - r) <= tolerance
        ]  # fmt: skip
        assert len(near) == 1, (x0, y0, x1, y1)
        counts[near[0]] += 1
    return counts


Reader = Callable[[Path], np.ndarray]
