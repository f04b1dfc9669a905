"""Size of the nucleus and nucleus/cytoplasm ratio of a cell, by the colours of its stain.

Optical density is taken channel by channel. Stained pixels are separated from the empty slide by the channel that
absorbs most, whichever dye it is, with Otsu's threshold over the whole window (densities above `DENSE` count as
`DENSE`). The nucleus is separated from the cytoplasm by the channel that absorbs least: each of Papanicolaou's
counterstains transmits a colour (light green: blue; eosin and orange G: red), a nucleus transmits none. Otsu's
threshold over the stained pixels of the box separates them, and the nucleus is the region at the centre of the box.
(The haematoxylin channel of a deconvolution into haematoxylin, eosin and DAB classifies green cytoplasm as nucleus.)
The cell is the part of the stained area that is nearer to this nucleus than to any other.

Limits. Where cells overlap, the borders between them are lines half-way between nuclei, not membranes, and in a window
without empty slide a part of the cytoplasm is taken for it. Touching nuclei are measured as one region, and blood or
overlying leucocytes may be taken for a nucleus. So use the numbers to compare sets of cells measured in the same way,
not for a single cell.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.filters import gaussian, threshold_otsu
from skimage.segmentation import watershed

from ...annotations import Box
from ...data.image_files import Pixels

Mask = NDArray[np.bool_]
SMOOTHING = 1.0
"""Standard deviation of the Gaussian that removes grain, pixels."""
DENSE = 0.2
"""Optical density of clearly visible cytoplasm."""
FEWEST = 12
"""Minimum area of a nucleus, pixels."""
OTHER = 0.5
"""A region with at least this share of the nucleus' area is another nucleus, a smaller one is not."""


@dataclass(frozen=True)
class Morphology:
    """What was measured of one cell.

    Attributes:
        area: of the nucleus, square pixels.
        diameter: of the disc of the same area, pixels.
        ratio: area of the nucleus over that of the whole cell, 0..1; 1 is a bare nucleus.
        density: mean optical density of the nucleus above the empty slide's, in the channel that absorbs least.
    """

    area: float
    diameter: float
    ratio: float
    density: float


def measure(window: Pixels, box: Box) -> Morphology | None:
    """Return the morphology of the cell in `box` (xyxy) of (height, width, 3) `window`; None if none is found."""
    density = _density(window)
    nuclear, stained = density.min(axis=2), _foreground(density)
    masks = None if stained is None else _segment(nuclear, stained, box)
    if stained is None or masks is None:
        return None
    nucleus, cell = masks
    area = float(nucleus.sum())
    slide = 0.0 if stained.all() else float(np.median(nuclear[~stained]))
    above = float(nuclear[nucleus].mean()) - slide
    return Morphology(area, float(2 * np.sqrt(area / np.pi)), area / float(cell.sum()), above)


def nucleus_square(window: Pixels, box: Box) -> Box | None:
    """Return the square about the disc of the nucleus' centre and area, xyxy pixels of `window`; None as `measure`."""
    density = _density(window)
    stained = _foreground(density)
    found = None if stained is None else _nucleus(density.min(axis=2), stained, box)
    if found is None:
        return None
    y, x = (float(values.mean()) + 0.5 for values in np.nonzero(found[0]))
    radius = float(np.sqrt(found[0].sum() / np.pi))
    return x - radius, y - radius, x + radius, y + radius


def _segment(nuclear: NDArray[np.float64], stained: Mask, box: Box) -> tuple[Mask, Mask] | None:
    """Return the nucleus and the cell with its nucleus, (height, width) each, of the cell in `box`."""
    found = _nucleus(nuclear, stained, box)
    if found is None:
        return None
    nucleus, dark, labels = found
    own = labels[nucleus][0]
    sizes = np.bincount(labels.ravel())
    markers = np.where((sizes >= OTHER * sizes[own])[labels] & dark, labels, 0)
    distance = ndimage.distance_transform_edt(markers == 0)
    return nucleus, watershed(distance, markers, mask=stained | nucleus) == own


def _nucleus(
    nuclear: NDArray[np.float64], stained: Mask, box: Box
) -> tuple[Mask, Mask, NDArray[np.int32]] | None:  # fmt: skip
    """Return the nucleus of the cell in `box`, all that is as dark, and its regions' labels, (height, width) each.

    `nuclear` is the density in the channel that absorbs least. None if no region of at least `FEWEST` pixels begins
    within a quarter of the box's longer side from its middle, or that region runs out of twice the box.
    """
    inside = _frame(box, nuclear.shape)
    values = nuclear[stained & inside]
    if values.size < FEWEST or np.ptp(values) == 0:
        return None
    dark = ndimage.binary_fill_holes((nuclear > threshold_otsu(values)) & stained)
    dark = ndimage.binary_opening(dark, iterations=1)
    labels, _ = ndimage.label(dark)
    own = _at_the_middle(labels, box)
    if own is None:
        return None
    nucleus = labels == own
    if nucleus.sum() < FEWEST or (nucleus & ~_frame(_grown(box, 2), nuclear.shape)).any():
        return None
    return nucleus, dark, labels


def _foreground(density: NDArray[np.float64]) -> Mask | None:
    """Return the stained pixels, by the (height, width, 3) optical `density`; None if it is constant."""
    most = density.max(axis=2).clip(max=DENSE)
    if np.ptp(most) == 0:
        return None
    return np.asarray(most > threshold_otsu(most))


def _density(pixels: Pixels) -> NDArray[np.float64]:
    """Return the optical density of each channel, smoothed."""
    return np.asarray(gaussian(-np.log10(np.maximum(pixels, 1) / 255), SMOOTHING, channel_axis=2))


def _at_the_middle(labels: NDArray[np.int32], box: Box) -> int | None:
    """Return the label nearest to the middle of `box`, at most a quarter of its longer side away."""
    y, x = np.nonzero(labels)
    if not len(x):
        return None
    squares = (x + 0.5 - (box[0] + box[2]) / 2) ** 2 + (y + 0.5 - (box[1] + box[3]) / 2) ** 2
    nearest = int(squares.argmin())
    if squares[nearest] > (max(box[2] - box[0], box[3] - box[1]) / 4) ** 2:
        return None
    return int(labels[y[nearest], x[nearest]])


def _frame(box: Box, shape: tuple[int, ...]) -> Mask:
    mask = np.zeros(shape, dtype=bool)
    x0, y0, x1, y1 = (max(0, round(value)) for value in box)
    mask[y0:y1, x0:x1] = True
    return mask


def _grown(box: Box, factor: float) -> Box:
    x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    half_x, half_y = (box[2] - box[0]) * factor / 2, (box[3] - box[1]) * factor / 2
    return x - half_x, y - half_y, x + half_x, y + half_y
