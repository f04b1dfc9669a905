"""Statistics of the images that a synthesizer was trained on: `training_images.json` next to its weights.

Written by `train cell`. They are used to map an image of another stain to theirs for an edit (`stain`), and to report
images that differ from them. An image is described by a few numbers:

- `glass`: optical density of the bare glass, mean of the channels;
- `density`: optical density above the glass, mean over stained pixels and channels;
- `red`, `blue`: the share that the channel has in that density;
- `nucleus`: diameter of the disc of a nucleus' area, pixels: the median over the dark regions in the channel that
  absorbs least (see `quality.morphology`), which depends on the scale.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict, Field
from scipy import ndimage
from skimage.filters import threshold_otsu

from ..config import validated
from ..data.image_files import Pixels
from ..io import plain
from .editing import TRAINING_IMAGES
from .stain import STAINED, Stain, density

FILE = TRAINING_IMAGES
SMALLEST = 20
"""Square pixels of a dark region that counts: smaller is grain."""
STAINS = ("glass", "density", "red", "blue")
"""Quantities that depend on the stain; the nucleus depends on the scale."""
MARGIN = 0.05
"""Share of a range's width by which an image may exceed it."""
LEAST = 0.001
"""Of that margin: numbers are rounded."""
COMPUTED = (
    "cytosynth.cell.training_images.TrainingImages.of the training images that hold a cell of the recipe's categories, "
    "at the working scale: least and greatest value of each quantity, and the stain of the image to which the others' "
    "stains are nearest in sum"
)


class TrainingImages(BaseModel):
    """Statistics of training images.

    Attributes:
        images: how many.
        ranges: least and greatest value of each quantity.
        glass: (3,) optical density of the typical image's glass.
        moment: (3, 3) second moment of its optical density above the glass (see `stain.Stain`).
        computed: how.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    images: int = Field(ge=1)
    ranges: dict[str, tuple[float, float]]
    glass: tuple[float, float, float]
    moment: tuple[tuple[float, float, float], tuple[float, float, float], tuple[float, float, float]]
    computed: str = COMPUTED

    @classmethod
    def of(cls, images: Iterable[Pixels]) -> "TrainingImages | None":
        """Return the statistics of `images`, each (height, width, 3); None if none has a stain."""
        found = [(stain, described(pixels, stain)) for pixels in images if (stain := Stain.of(pixels))]
        if not found:
            return None
        stains = [stain for stain, _ in found]
        typical = stains[int(np.argmin([sum(one.distance(other) for other in stains) for one in stains]))]
        ranges = {}
        for name in found[0][1]:
            values = [said[name] for _, said in found if name in said]
            if values:
                ranges[name] = (round(min(values), 4), round(max(values), 4))
        return cls.model_validate(
            {"images": len(found), "ranges": ranges, "glass": typical.glass.round(4).tolist(),
             "moment": typical.moment.round(5).tolist()}
        )  # fmt: skip

    @classmethod
    def read(cls, folder: Path) -> "TrainingImages | None":
        """Return the statistics in `folder`, None if there are none; raise UserError if the file is damaged."""
        path = folder / FILE
        return validated(cls, plain.load(path), str(path)) if path.is_file() else None

    @property
    def stain(self) -> Stain:
        """The stain of the typical image."""
        return Stain(np.array(self.glass), np.array(self.moment))

    def outside(self, pixels: Pixels) -> dict[str, list[float]]:
        """Return the quantities of (height, width, 3) `pixels` that are outside the training images' ranges.

        Each with its value, and the minimum and maximum of the training images.
        """
        stain = Stain.of(pixels)
        said = described(pixels, stain) if stain else {}
        found = {name: value for name, value in said.items() if not self._within(name, value)}
        return {name: [round(value, 4), *self.ranges[name]] for name, value in found.items()}

    def stain_outside(self, pixels: Pixels, stain: Stain) -> bool:
        """Return whether the `stain` of (height, width, 3) `pixels` lies outside the training images' ranges."""
        said = described(pixels, stain)
        return any(not self._within(name, said[name]) for name in STAINS if name in said)

    def _within(self, name: str, value: float) -> bool:
        low, high = self.ranges.get(name, (value, value))
        margin = max(MARGIN * (high - low), LEAST)
        return low - margin <= value <= high + margin


def described(pixels: Pixels, stain: Stain) -> dict[str, float]:
    """Return the quantities of (height, width, 3) `pixels` of the given `stain`; no `nucleus` where none is found."""
    above = density(pixels) - stain.glass
    stained = above.mean(axis=2) > STAINED
    mean = above[stained].mean(axis=0)
    said = {"glass": float(stain.glass.mean()), "density": float(mean.mean()), "red": float(mean[0] / mean.sum()),
            "blue": float(mean[2] / mean.sum())}  # fmt: skip
    least = ndimage.gaussian_filter(above.min(axis=2), 1.0)
    values = least[stained]
    if np.ptp(values) > 0:
        labels, _ = ndimage.label(ndimage.binary_opening(least > threshold_otsu(values)))
        areas = np.bincount(labels.ravel())[1:]
        areas = areas[areas >= SMALLEST]
        if len(areas):
            said["nucleus"] = float(2 * np.sqrt(np.median(areas) / np.pi))
    return said


def line(outside: Sequence[Mapping[str, Sequence[float]]], images: int) -> str:
    """Return one line on those of `images` that differ from the training images (see `TrainingImages.outside`)."""
    names = sorted({name for one in outside for name in one})
    said = []
    for name in names:
        values = [one[name][0] for one in outside if name in one]
        low, high = next(one[name][1:] for one in outside if name in one)
        said.append(f"{name} {min(values):.2g} to {max(values):.2g}, there {low:.2g} to {high:.2g}")
    return (
        f"{len(outside)} of {images} images differ from those the cell synthesizer was trained on ({'; '.join(said)}): "
        "expect cells of another stain or size; check preview.png and use a gate"
    )
