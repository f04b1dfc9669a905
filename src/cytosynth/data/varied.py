"""Training images with the appearance of other centres: new at every step, or as copies if they are encoded once."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..annotations import Cell
from ..errors import UsageError
from ..io.progress import meter
from ..variation.centre import Centre, resizes, vary
from ..variation.view import View
from .image_files import Pixels
from .sources import Sample


@dataclass(frozen=True)
class VariedImage:
    """A copy of an image that is made again at each use.

    Attributes:
        sample: of which it is a copy.
        centre: the distribution of its variations.
        seed: of that.
        name: of the copy.
        size: (width, height), pixels.
    """

    sample: Sample
    centre: Centre
    seed: int
    name: str
    size: tuple[int, int]

    def read(self) -> Pixels:
        """Return its (height, width, 3) pixels."""
        return shown(self.sample.pixels, self.sample.cells, self.centre, self.seed, self.name)[0]


def shown(
    pixels: Pixels, cells: Sequence[Cell], centre: Centre, seed: int, name: str
) -> tuple[Pixels, tuple[Cell, ...]]:
    """Return `pixels` and `cells` with the variations of the `centre` for the image `name`."""
    boxes = np.array([cell.box for cell in cells], dtype=np.float64).reshape(-1, 4)
    view, _ = vary(np.ascontiguousarray(pixels), boxes, centre, seed, name)
    return view.pixels, placed(cells, view)


def placed(cells: Sequence[Cell], view: View) -> tuple[Cell, ...]:
    """Return `cells` in the boxes that `view` has for them, in the same order."""
    return tuple(
        replace(cell, box=(x0, y0, x1, y1)) for cell, (x0, y0, x1, y1) in zip(cells, view.boxes.tolist(), strict=True)
    )


def with_copies(samples: Sequence[Sample], centre: Centre | None, copies: int, seed: int) -> list[Sample]:
    """Return `samples` and, where there is a `centre`, that many varied copies of each, with their cells.

    For trainings that encode their images once; `seed` and the name of an image decide what its copies get.
    """
    if centre is None:
        return list(samples)
    varied: list[Sample] = []
    with meter("varying images", copies * len(samples)) as bar:
        for sample in samples:
            for number in range(1, copies + 1):
                name = f"{sample.source}/{sample.name}#{number}"
                pixels, cells = shown(sample.pixels, sample.cells, centre, seed, name)
                image = VariedImage(sample, centre, seed, name, (pixels.shape[1], pixels.shape[0]))
                varied.append(replace(sample, image=image, cells=cells))
                bar.advance()
    return [*samples, *varied]


def at_this_step(
    pixels: Pixels, cells: Sequence[Cell], centre: Centre | None, rng: np.random.Generator
) -> tuple[Pixels, list[Cell]]:
    """Return `pixels` and `cells` for a training step, sampled again at every call; None: unchanged."""
    if centre is None:
        return pixels, list(cells)
    varied, moved = shown(pixels, cells, centre, int(rng.integers(2**63)), "")
    return varied, list(moved)


def keep_size(centre: Centre | None, trainer: str) -> None:
    """Raise UsageError if `centre` would change the size of the crops of a `trainer` that needs them all alike."""
    if centre is not None and resizes(centre):
        raise UsageError(
            f"augment: 'scale' changes the size of images, but {trainer} needs crops of one size; leave it out"
        )
