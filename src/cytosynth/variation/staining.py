"""Stain in optical density: how dyes mix, how they are distinguished, and how far three bands can.

By Beer and Lambert's law the optical density of a pixel is the sum over dyes of amount times the dye's vector (its
density in the red, green and blue band): D = C V, with C the amounts and V the vectors (Ruifrok and Johnston, Anal.
Quant. Cytol. Histol. 23:291, 2001).

A camera has three bands, so at most three vectors can be distinguished, and only where none is nearly a mixture of
the others. Papanicolaou's stain has at least four dyes (haematoxylin, orange G, eosin Y, light green SF; often Bismarck
brown): their amounts are not to be had from an RGB image, whatever the method. Nor are three of them: haematoxylin's
vector lies within two degrees of the plane of eosin and light green (`PAPANICOLAOU`), so a grain of noise would turn
into dye. Hence two vectors are used here, and what lies off their plane stays as it is: the two are the ends of what
the image holds (pink and green-blue of Papanicolaou, nuclei between them), not dyes.
"""

import numpy as np
from numpy.typing import NDArray

from .light import Light, linear
from .view import Pixels

Density = NDArray[np.float64]
"""(..., 3) optical density, base 10."""
PAPANICOLAOU = {
    "haematoxylin": (0.644, 0.717, 0.267),
    "eosin": (0.093, 0.954, 0.283),
    "light green": (0.947, 0.254, 0.197),
}
"""Unit vectors of three dyes, from ImageJ's colour deconvolution (Landini; H&E, Feulgen and light green)."""
DARKEST = 1 / 510
"""Intensity that a byte of 0 is taken for: half a step."""
STAINED = 0.15
"""Optical density, mean of the bands, from which a pixel counts as stained (Macenko's beta)."""
FEWEST = 200
"""Stained pixels that an estimate needs."""
MOST = 100_000
"""Stained pixels that an estimate looks at, evenly spaced."""
WORST = 15.0
"""Condition number of vectors from which they cannot be distinguished: noise in density is multiplied by it."""


def white(pixels: Pixels) -> NDArray[np.float64]:
    """Return the linear intensity (3,) of the bare glass: the 99th percentile of each band."""
    light = linear(pixels[::2, ::2]).reshape(-1, 3)
    return np.asarray(np.maximum(np.percentile(light, 99, axis=0), 0.05), dtype=np.float64)


def density(light: Light, glass: NDArray[np.float64]) -> Density:
    """Return the optical density of linear intensity, where bare glass lets `glass` (3,) through; none is negative."""
    return np.asarray(np.maximum(-np.log10(np.maximum(light, DARKEST) / glass), 0.0), dtype=np.float64)


def intensity(densities: Density, glass: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the linear intensity behind `densities`: Beer and Lambert's law."""
    return np.asarray(glass * 10.0 ** (-densities), dtype=np.float64)


def stained(densities: Density) -> Density:
    """Return the (n, 3) densities of stained pixels, evenly spaced, at most MOST."""
    flat = densities.reshape(-1, 3)
    flat = flat[flat.mean(axis=1) > STAINED]
    return np.asarray(flat[:: max(1, len(flat) // MOST)], dtype=np.float64)


def two_vectors(densities: Density, percentile: float = 1.0) -> NDArray[np.float64]:
    """Return the two stain vectors (2, 3) of stained pixels' densities (n, 3), the one with less red first.

    The ends of their directions in the plane of the two greatest variances, by percentiles (Macenko et al., ISBI
    2009). Where fewer than FEWEST are stained, eosin and light green of `PAPANICOLAOU`.
    """
    if len(densities) < FEWEST:
        return np.array([PAPANICOLAOU["eosin"], PAPANICOLAOU["light green"]])
    _, _, axes = np.linalg.svd(densities, full_matrices=False)
    plane = axes[:2] * np.sign(axes[:2].sum(axis=1, keepdims=True) + 1e-12)
    angles = np.arctan2(densities @ plane[1], densities @ plane[0])
    ends = np.percentile(angles, (percentile, 100 - percentile))
    vectors = np.array([np.cos(end) * plane[0] + np.sin(end) * plane[1] for end in ends])
    vectors = np.maximum(vectors, 0.0)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors[np.argsort(vectors[:, 0])])


def three_vectors(densities: Density, share: float = 0.002) -> NDArray[np.float64]:
    """Return the three stain vectors (3, 3) of densities (n, 3), where some pixels hold (nearly) one dye each.

    Successive projection (Araújo et al., Chemom. Intell. Lab. Syst. 57:65, 2001) of directions: the one farthest from
    those chosen, as the mean of the `share` of pixels that lie farthest. Raises ValueError if the three cannot be
    distinguished (`WORST`), as with Papanicolaou's.
    """
    directions = densities / densities.sum(axis=1, keepdims=True)
    left, chosen = directions - directions.mean(axis=0), []
    for number in range(3):
        distance = np.linalg.norm(left, axis=1)
        reach = left @ left[np.argmax(distance)]
        farthest = directions[np.argsort(reach)[-max(1, round(share * len(reach))) :]].mean(axis=0)
        chosen.append(farthest)
        if number == 0:
            left = directions - farthest
        else:
            edge = chosen[1] - chosen[0]
            off = directions - chosen[0]
            left = off - np.outer(off @ edge / (edge @ edge), edge)
    vectors: NDArray[np.float64] = np.array(chosen) / np.linalg.norm(chosen, axis=1, keepdims=True)
    if condition(vectors) > WORST:
        raise ValueError(f"three stains cannot be separated here: condition number {condition(vectors):.0f}")
    return vectors


def condition(vectors: NDArray[np.float64]) -> float:
    """Return the condition number of stain vectors (k, 3): by how much noise in density may grow in the amounts."""
    return float(np.linalg.cond(vectors))


def separate(densities: Density, vectors: NDArray[np.float64]) -> tuple[NDArray[np.float64], Density]:
    """Return the amounts (..., k) of each stain of `vectors` (k, 3), and the density that none of them explains.

    Least squares; amounts @ vectors + rest is `densities` again. Raises ValueError for more than three vectors.
    """
    if len(vectors) > 3:
        raise ValueError(f"{len(vectors)} stains: three colour channels separate at most three")
    amounts = densities @ np.linalg.pinv(vectors)
    return amounts, densities - amounts @ vectors
