"""The stain of an image: patches are mapped to the training images' stain before an edit, and back after it.

A synthesizer was trained on slides of certain stains. In an image of another stain it paints in those colours: brown
squares on pale thin-prep. So a patch is first mapped to the stain of the training images, then edited, and mapped back.

The stain of an image is the colour of its glass and the second moment M of the optical density above the glass, over
what is stained. Glass has density 0, so the map of one stain to another is linear. Of all matrices A with A M A^T = M'
the symmetric positive one moves densities least (optimal transport of Gaussians; Pitie and Kokaram, The linear
Monge-Kantorovitch colour mapping, CVMP 2007, in optical density in the place of RGB):

    A = M^(-1/2) (M^(1/2) M' M^(1/2))^(1/2) M^(-1/2).

Not in the paper.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..data.image_files import Pixels

Values = NDArray[np.float64]
GLASS = 99.0
"""Percentile of each channel that is used as the colour of bare glass."""
STAINED = 0.05
"""Optical density above the glass, mean of the channels, from which a pixel counts as stained."""
FEWEST = 500
"""Stained pixels without which an image has no stain of its own."""
NOISE = 0.05
"""Density that is added to every direction of the moment, so that grain is not taken for a dye."""
RANGE = 4.0
"""Largest factor on densities, in any direction: a larger one would turn noise into colour."""


@dataclass(frozen=True)
class Stain:
    """The stain of an image or of many.

    Attributes:
        glass: (3,) optical density of the bare glass.
        moment: (3, 3) mean of d d^T over stained pixels, with d the (3,) optical density above the glass.
    """

    glass: Values
    moment: Values

    @classmethod
    def of(cls, pixels: Pixels) -> "Stain | None":
        """Return the stain of (height, width, 3) `pixels`; None if almost nothing is stained."""
        glass = density(np.percentile(pixels.reshape(-1, 3), GLASS, axis=0))
        above = density(pixels).reshape(-1, 3) - glass
        above = above[above.mean(axis=1) > STAINED]
        if len(above) < FEWEST:
            return None
        return cls(glass, above.T @ above / len(above))

    def matrix(self, other: "Stain") -> Values:
        """Return the (3, 3) matrix that brings densities above the glass from this stain to the `other`."""
        noise = NOISE**2 * np.eye(3)
        root, inverse = _power(self.moment + noise, 0.5), _power(self.moment + noise, -0.5)
        matrix = inverse @ _power(root @ (other.moment + noise) @ root, 0.5) @ inverse
        values, vectors = np.linalg.eigh((matrix + matrix.T) / 2)
        return np.asarray(vectors * np.clip(values, 1 / RANGE, RANGE) @ vectors.T)

    def distance(self, other: "Stain") -> float:
        """Return how far the matrix to the `other` is from none: the norm of its logarithm."""
        return float(np.linalg.norm(np.log(np.linalg.eigvalsh(self.matrix(other)))))


@dataclass(frozen=True)
class Transfer:
    """Maps pixels from one stain to another, and back."""

    source: Stain
    target: Stain

    def there(self, pixels: Pixels) -> Pixels:
        """Return (..., 3) `pixels` of the source as they would be in the target's stain."""
        return _mapped(pixels, self.source.glass, self.source.matrix(self.target), self.target.glass)

    def back(self, pixels: Pixels) -> Pixels:
        """Return (..., 3) `pixels` in the target's stain as they would be in the source's."""
        matrix = np.asarray(np.linalg.inv(self.source.matrix(self.target)), dtype=np.float64)
        return _mapped(pixels, self.target.glass, matrix, self.source.glass)


def density(pixels: NDArray[np.generic]) -> Values:
    """Return the optical density of byte `pixels`, channel by channel."""
    return np.asarray(-np.log10(np.maximum(pixels, 1) / 255), dtype=np.float64)


def _mapped(pixels: Pixels, glass: Values, matrix: Values, new_glass: Values) -> Pixels:
    densities = (density(pixels) - glass) @ matrix.T + new_glass
    return np.asarray(np.clip(np.rint(255 * 10.0**-densities), 0, 255), dtype=np.uint8)


def _power(matrix: Values, exponent: float) -> Values:
    """Return the power of a symmetric positive `matrix`."""
    values, vectors = np.linalg.eigh(matrix)
    return np.asarray(vectors * np.maximum(values, 1e-12) ** exponent @ vectors.T)
