"""The style of a centre, measured on 5 to 50 unlabelled fields, and an image brought to it.

A style is a list of statistics, one entry a field: the light of bare glass; mean and covariance of the optical density
of what is stained; structure by octave (focus); noise. An image takes those of one field, drawn by its name, so that
images of a style differ as the centre's fields do. Nothing is learnt, and no pixel of the fields goes into an image.
"""

import json
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from scipy import linalg, ndimage

from ..errors import UserError
from . import staining
from .light import coded, linear
from .view import Boxes, Pixels, View, generator

FEWEST, MOST = 5, 50
"""Fields that make a style."""
OCTAVES = 4
"""Bands of structure, of 1, 2, 4 and 8 pixels; the last one is what the others are compared with."""
GAINS = (0.25, 1.8)
"""Limits of the factor on an octave, so that no structure is invented."""

Vector = tuple[float, float, float]


class FieldStyle(BaseModel):
    """Statistics of one field.

    Attributes:
        glass: linear intensity of bare glass, by band.
        mean: optical density of stained pixels, by band.
        covariance: of the same.
        structure: root mean square of each octave of the density, finest first, over that of the coarsest.
        noise: deviation in linear intensity between neighbouring pixels of bare glass or smooth parts.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
    glass: Vector
    mean: Vector
    covariance: tuple[Vector, Vector, Vector]
    structure: tuple[float, float, float]
    noise: float = Field(ge=0, le=1)


class Style(BaseModel):
    """Statistics of a centre's fields.

    Attributes:
        mpp: micrometres per pixel of the fields; None if that is not known, and scale stays as it is.
        fields: one entry a field.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
    mpp: float | None = Field(default=None, gt=0.05, le=5)
    fields: list[FieldStyle] = Field(min_length=FEWEST, max_length=MOST)

    @classmethod
    def of(cls, fields: Sequence[Pixels], mpp: float | None = None) -> "Style":
        """Measure the style of `fields`; raise UserError if they are fewer than FEWEST or more than MOST."""
        if not FEWEST <= len(fields) <= MOST:
            raise UserError(f"a style needs {FEWEST} to {MOST} fields; {len(fields)} are given")
        return cls(mpp=mpp, fields=[measured(pixels) for pixels in fields])

    @classmethod
    def read(cls, path: Path, text: str) -> "Style":
        """Return the style that `text` of the file at `path` holds; raise UserError if that is none."""
        try:
            return cls.model_validate(json.loads(text))
        except (ValueError, ValidationError, RecursionError):
            raise UserError(f"{path}: not a style; give a folder of {FEWEST} to {MOST} fields, or a slide") from None


def measured(pixels: Pixels) -> FieldStyle:
    """Return the statistics of one field; raise UserError if hardly anything in it is stained."""
    glass = staining.white(pixels)
    densities = staining.density(linear(pixels), glass)
    stained = staining.stained(densities)
    if len(stained) < staining.FEWEST:
        raise UserError("a field of the style has almost no stained pixels; give fields with cells")
    return FieldStyle(
        glass=_vector(glass),
        mean=_vector(stained.mean(axis=0)),
        covariance=tuple(_vector(row) for row in np.cov(stained.T)),  # type: ignore[arg-type]
        structure=structure(densities),
        noise=noise(pixels),
    )


def structure(densities: staining.Density) -> Vector:
    """Return the root mean square of the three finest octaves of `densities` over that of the coarsest."""
    grey = densities.mean(axis=2)
    levels = [float(np.sqrt(np.mean(np.square(band)))) for band in _octaves(grey)[:OCTAVES]]
    return _vector(np.array(levels[:-1]) / max(levels[-1], 1e-6))


def noise(pixels: Pixels) -> float:
    """Return the deviation of a pixel's noise in linear intensity: the median of Immerkær's operator's size.

    J. Immerkær, Comput. Vis. Image Underst. 64:300, 1996; the median, as edges are few.
    """
    kernel = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], dtype=np.float32)
    answer = np.abs(ndimage.convolve(linear(pixels).mean(axis=2), kernel)) * np.sqrt(3.0)  # a mean of three bands
    return float(np.median(answer) / 0.6745 / 6)


def restyled(pixels: Pixels, boxes: Boxes, style: Style, mpp: float, seed: int, image: str) -> tuple[View, int]:
    """Return `pixels` with `boxes` (n, 4) in the style, and the number of the field whose statistics they took.

    First the density of what is stained, by the linear map that takes one Gaussian to the other at the least cost
    (Monge's, as in Pitié and Kokaram, CVMP 2007); then focus, octave by octave; the light of the glass; noise, where
    the field has more; last the scale, where that of the style is known. Bare glass stays bare.

    Args:
        pixels: (height, width, 3).
        boxes: (n, 4) xyxy.
        style: of the centre.
        mpp: micrometres per pixel of `pixels`.
        seed: of the run.
        image: its name.
    """
    rng = generator(seed, image, "style")
    number = int(rng.integers(len(style.fields)))
    target, glass = style.fields[number], staining.white(pixels)
    densities = staining.density(linear(pixels), glass)
    if len(staining.stained(densities)) >= staining.FEWEST:
        densities = refocused(_restained(densities, target), target.structure)
    light = staining.intensity(np.maximum(densities, 0), np.array(target.glass))
    missing = target.noise**2 - noise(coded(light)) ** 2
    if missing > 0:
        light = light + rng.normal(0, np.sqrt(missing), light.shape)
    return _rescaled(View(coded(light), boxes, mpp), style.mpp), number


def _restained(densities: staining.Density, target: FieldStyle) -> staining.Density:
    """Return `densities` where what is stained has the mean and covariance of `target`."""
    stained = staining.stained(densities)
    mean, covariance = stained.mean(axis=0), np.cov(stained.T) + 1e-6 * np.eye(3)
    root = linalg.sqrtm(covariance).real
    inverse = np.linalg.inv(root)
    middle = linalg.sqrtm(root @ (np.array(target.covariance) + 1e-6 * np.eye(3)) @ root).real
    moved = (densities - mean) @ (inverse @ middle @ inverse).T + np.array(target.mean)
    share = np.clip(densities.mean(axis=2, keepdims=True) / (2 * staining.STAINED), 0, 1)  # of glass nothing is moved
    return np.asarray(share * moved + (1 - share) * densities, dtype=np.float64)


def refocused(densities: staining.Density, target: Sequence[float]) -> staining.Density:
    """Return `densities` with the octaves of `target` (`structure`), each changed by GAINS at most."""
    have = structure(densities)
    gains = [float(np.clip(want / max(is_, 1e-6), *GAINS)) for want, is_ in zip(target, have, strict=True)]
    bands = [np.stack(octave, axis=2) for octave in zip(*(_octaves(densities[..., b]) for b in range(3)), strict=True)]
    weighted = [gain * band for gain, band in zip([*gains, *[1.0] * 2], bands, strict=True)]
    return np.asarray(np.sum(weighted, axis=0), dtype=np.float64)


def _octaves(grey: NDArray[np.float64]) -> list[NDArray[np.float64]]:
    """Return the octaves of `grey`, finest first, and what is coarser: they add up to it."""
    blurred = [grey, *(ndimage.gaussian_filter(grey, 0.7 * 2**level) for level in range(OCTAVES))]
    return [fine - coarse for fine, coarse in pairwise(blurred)] + [blurred[-1]]


def _rescaled(view: View, mpp: float | None) -> View:
    if mpp is None or abs(mpp / view.mpp - 1) < 0.01:
        return view
    height, width = view.pixels.shape[:2]
    size = (max(1, round(width * view.mpp / mpp)), max(1, round(height * view.mpp / mpp)))
    resized = np.asarray(Image.fromarray(view.pixels).resize(size, Image.Resampling.LANCZOS))
    return View(resized, view.boxes * np.array([size[0] / width, size[1] / height] * 2), mpp)


def _vector(values: Any) -> Vector:
    first, second, third = (round(float(value), 6) for value in values)
    return first, second, third
