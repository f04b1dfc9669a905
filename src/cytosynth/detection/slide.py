"""`detect` on a whole slide: its cells in pixels of the slide, and a thumbnail with their boxes."""

from dataclasses import replace
from pathlib import Path

from ..annotations import Cell, Image
from ..data.formats import qupath
from ..data.preview import save_png
from ..data.slides import glass, reader, thumbnail
from ..data.slides.slide import WORKING_MPP
from ..io import atomic
from ..io.progress import console
from .model import Detector
from .tiled_search import Search, find

TILES = "tiles"
"""Folder of what each tile of a slide showed, a file a slide, from which a killed search continues."""


def detect(
    name: str,
    path: Path,
    detector: Detector,
    threshold: float,
    mpp: float | None,
    tiles: Path,
    files: tuple[Path, Path],
) -> Image:
    """Return the slide at `path` with its cells, in pixels of its level 0.

    Args:
        name: of the slide in the results.
        path: its file.
        detector: finds the cells, at x20.
        threshold: score threshold, 0–1.
        mpp: micrometres per pixel, where the file does not say.
        tiles: folder of what each tile showed.
        files: the thumbnail (PNG) and the GeoJSON to write.

    Raises SlideProblem for a slide that cannot be read.
    """
    with reader.opened(path, mpp) as slide:
        view = slide.at()
        covered = glass.coverage(view)
        console.print(f"{name}: {covered.empty:.1%} is empty glass, which is skipped", soft_wrap=True)
        identity = f"{atomic.sha256(path)} {slide.mpp:g} {detector.digest} {threshold:g}"
        tiles.mkdir(parents=True, exist_ok=True)
        search = Search(detector, threshold, identity)
        found = find(view, covered, search, tiles / f"{name}.jsonl", name[:40])
        cells = tuple(_placed(cell, view.factor) for cell in found)
        save_png(thumbnail.with_boxes(slide, cells), files[0])
        qupath.write(cells, name, files[1])
        extra = {"mpp": round(slide.mpp, 6), "empty_glass": round(covered.empty, 4)}
        return Image(name, *slide.size, cells, extra)


def _placed(cell: Cell, factor: float) -> Cell:
    """Return `cell`, found at x20, in pixels of level 0 of a slide with `factor` of them for one, and its area."""
    x0, y0, x1, y1 = (round(value * factor, 2) for value in cell.box)
    area = cell.size[0] * cell.size[1] * WORKING_MPP**2
    return replace(cell, box=(x0, y0, x1, y1), extra=cell.extra | {"measurements": {"Box area µm^2": round(area, 2)}})
