"""Fields of slides as training images, read from the slide at each use."""

from dataclasses import dataclass
from pathlib import Path

from ...annotations import Cell
from ..image_files import Pixels
from . import annotations, reader
from .fields import FieldSettings, candidates, chosen


@dataclass(frozen=True)
class SlideField:
    """A field of a slide at x20.

    Attributes:
        path: the slide.
        x: of its corner, pixels of the slide at x20.
        y: the same.
        size: (width, height), pixels.
    """

    path: Path
    x: int
    y: int
    size: tuple[int, int]

    def read(self) -> Pixels:
        """Return its (height, width, 3) pixels; raise SlideProblem if the slide is damaged there."""
        with reader.opened(self.path) as slide:
            return slide.at().read(self.x, self.y, *self.size)


def of_slide(path: Path) -> list[tuple[str, SlideField, tuple[Cell, ...]]]:
    """Return name, field and cells of each field of the slide at `path` that is fit to train on.

    Of a slide with annotations those with an annotated cell: what was not annotated elsewhere is not known to be
    normal. Of one without, all fields that are sharp and have nuclei, as `cytosynth tiles` keeps them.
    """
    with reader.opened(path) as slide:
        known = annotations.find(path, None, slide.mpp)
        settings = FieldSettings(only_annotated=known is not None)
        found = chosen(candidates(slide.at(), settings, known, None), settings)
        size = (settings.side, settings.side)
        return [(f"{path.stem}_{one.x}_{one.y}", SlideField(path, one.x, one.y, size), one.cells) for one in found]
