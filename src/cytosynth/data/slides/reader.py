"""Opening a slide with a suitable reader, and distinguishing slides from images."""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from ...errors import EnvironmentProblem, UserError
from ..image_files import MAX_PIXELS
from .slide import Pyramid, Slide, SlideProblem, scale_of

SLIDES: Final = frozenset({".svs", ".ndpi", ".mrxs", ".scn", ".bif", ".vms", ".vmu", ".svslide", ".czi", ".dcm"})
"""Suffixes of files that are slides whatever is in them."""
TIFF: Final = frozenset({".tif", ".tiff"})
"""Suffixes of files that are slides where they are tiled pyramids, or too large to be read whole."""


def is_slide(path: Path) -> bool:
    """Return whether the file at `path` is a slide rather than an image."""
    suffix = path.suffix.lower()
    if suffix in SLIDES:
        return True
    if suffix not in TIFF or not path.is_file():
        return False
    from .tiff_pyramid import is_pyramid

    return is_pyramid(path, MAX_PIXELS)


@contextmanager
def opened(path: Path, mpp: float | None = None) -> Iterator[Slide]:
    """Yield the slide at `path`, of `mpp` micrometres per pixel where that is given.

    Raises SlideProblem for what cannot be read, UsageError where `mpp` is not known, EnvironmentProblem where the
    packages of the extra `slides` are missing.
    """
    pyramid = _pyramid(path)
    try:
        yield Slide(path, pyramid, scale_of(path, pyramid.mpp, mpp))
    finally:
        pyramid.close()


def gather(source: Path) -> list[Path]:
    """Return the slides of a folder in order, or the one at `source`; raise UserError if there is none."""
    if source.is_dir():
        found = sorted(path for path in source.iterdir() if not path.name.startswith(".") and is_slide(path))
        if not found:
            raise UserError(f"{source}: contains no slide ({', '.join(sorted(SLIDES))}, or a tiled TIFF with levels)")
    elif not is_slide(source):
        raise UserError(f"{source}: not a slide ({', '.join(sorted(SLIDES))}, or a tiled TIFF with levels)")
    else:
        found = [source]
    stems = [path.stem for path in found]
    twice = next((stem for stem in stems if stems.count(stem) > 1), None)
    if twice:
        raise UserError(f"{source}: two slides are named {twice[:80]!r}; rename one of them")
    return found


def holds_slides(root: Path) -> bool:
    """Return whether `root` is a slide, or a folder with one directly in it."""
    if not root.is_dir():
        return root.is_file() and is_slide(root)
    known = SLIDES | TIFF
    return any(is_slide(path) for path in sorted(root.iterdir()) if path.suffix.lower() in known and path.is_file())


def _pyramid(path: Path) -> Pyramid:
    """Return what reads `path`: tifffile for OME-TIFF and what OpenSlide does not know, else OpenSlide."""
    if not path.is_file():
        raise SlideProblem(f"{path}: no such file")
    missing = [name for name in ("openslide", "imagecodecs") if find_spec(name) is None]
    if missing:
        raise EnvironmentProblem(f"reading slides needs {missing[0]}: pip install 'cytosynth[slides]'")
    from .openslide_pyramid import OpenSlidePyramid
    from .tiff_pyramid import TiffPyramid, is_ome

    tiff = path.suffix.lower() in TIFF
    if tiff and is_ome(path):
        return TiffPyramid(path)
    try:
        return OpenSlidePyramid(path)
    except SlideProblem:
        if not tiff:
            raise
        return TiffPyramid(path)
