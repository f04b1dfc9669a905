"""The large-scale appearance of a preparation: where cells are, and how deep the stain is.

A denoiser fills all of its window alike. Here each place has a density d in 0..1; a random field that varies over a
cell or two is cut at its quantile of d, and what is below stays empty glass while the field is laid out (the first
part of the denoising steps, as masked latents are in Blended Latent Diffusion, arXiv 2206.02779). The last steps are
free to end the cells at the rim of the gaps. Not in the paper.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import special

from ..data import image_files
from .noise import smooth
from .settings import DISC, FULL

Values = NDArray[np.float64]
GAP = 200.0
"""Pixels over which gaps between cells vary: two mature squamous cells."""
RIM = 0.2
"""Softness of the rim of a gap, in deviations of the random field."""
DRIFT = (1600.0, 6400.0)
"""Pixels over which density drifts."""
EVEN, SPREAD = 0.88, 0.14
"""Mean and deviation of the density of an even preparation."""
RADIUS, EDGE = 0.47, 0.025
"""Of a disc: its radius and the width of its rim, over the shorter side of the slide."""
STAIN_DRIFT, STAIN = 4000.0, 0.06
"""Pixels over which the depth of stain drifts, and its relative deviation."""
DEEPEST = 3.0
"""Deviations of the drift of stain at most."""
MAP_SIDE = 512
"""A density map is reduced to this: it says where there are many cells, not where each is."""


@dataclass(frozen=True)
class Preparation:
    """A preparation of `width` x `height` pixels, made of `seed`.

    Attributes:
        seed: of the run.
        width: pixels.
        height: pixels.
        shape: FULL, DISC, or a (rows, columns) map of densities 0..1 that spans the slide.
    """

    seed: int
    width: int
    height: int
    shape: str | Values

    def density(self, x: int, y: int, width: int, height: int, step: int) -> Values:
        """Return the (height, width) density of cells, 0..1, at points `step` pixels apart from (x, y) steps on."""
        drift = sum(
            smooth((self.seed, 11 + number), spacing, x, y, width, height, step) for number, spacing in enumerate(DRIFT)
        ) / np.sqrt(len(DRIFT))
        even = np.clip(EVEN + SPREAD * drift, 0, 1)
        across, down = (np.arange(x, x + width) + 0.5) * step, (np.arange(y, y + height) + 0.5) * step
        return np.asarray(even * self._outline(across, down))

    def cover(self, x: int, y: int, width: int, height: int, step: int) -> Values:
        """Return (height, width) values: 1 where cells may lie, 0 on empty glass, between at rims; as `density`."""
        density = self.density(x, y, width, height, step)
        field = smooth((self.seed, 15), GAP, x, y, width, height, step)
        with np.errstate(divide="ignore"):
            quantile = special.ndtri(density)
        return np.asarray(special.expit((quantile - field) / RIM * 4))

    def stain(self, x: int, y: int, width: int, height: int) -> Values:
        """Return the (height, width) factor on optical densities at the pixels from (x, y) on."""
        coarse = 16  # it drifts over thousands of pixels
        left, top = x // coarse, y // coarse
        columns, rows = (x + width - 1) // coarse - left + 3, (y + height - 1) // coarse - top + 3
        drift = np.clip(smooth((self.seed, 16), STAIN_DRIFT, left, top, columns, rows, coarse), -DEEPEST, DEEPEST)
        across = (np.arange(x, x + width) + 0.5) / coarse - 0.5 - left
        down = (np.arange(y, y + height) + 0.5) / coarse - 0.5 - top
        return 1 + STAIN * _bilinear(drift, np.maximum(across, 0), np.maximum(down, 0))

    def _outline(self, across: NDArray[np.floating], down: NDArray[np.floating]) -> Values:
        """Return the share of the density that the shape of the preparation leaves, at pixels (down, across)."""
        if isinstance(self.shape, str):
            if self.shape == FULL:
                return np.ones((len(down), len(across)))
            side = min(self.width, self.height)
            distance = np.hypot(across[None] - self.width / 2, down[:, None] - self.height / 2) / side
            return np.asarray(special.expit((RADIUS - distance) / EDGE * 6))
        rows, columns = self.shape.shape
        return _bilinear(
            self.shape,
            np.clip(across / self.width * columns - 0.5, 0, columns - 1),
            np.clip(down / self.height * rows - 0.5, 0, rows - 1),
        )


def read_map(name: str) -> str | Values:
    """Return the shape that `name` means: FULL or DISC as they are, of an image file its grey levels as 0..1."""
    if name in (FULL, DISC):
        return name
    grey = Image.fromarray(image_files.read(Path(name))).convert("L")
    grey.thumbnail((MAP_SIDE, MAP_SIDE), Image.Resampling.BOX)
    return np.asarray(grey, dtype=np.float64) / 255


def stained(pixels: NDArray[np.float32], glass: NDArray[np.int16], factor: Values) -> NDArray[np.float32]:
    """Return (height, width, 3) `pixels`, 0..255, with optical densities against `glass` (3,) times `factor`.

    That is of (height, width).
    """
    ratio = np.clip(pixels / glass.astype(np.float32), 1 / 255, 1)
    return np.asarray(np.where(pixels < glass, glass * ratio ** factor[..., None].astype(np.float32), pixels))


def _bilinear(values: Values, across: NDArray[np.floating], down: NDArray[np.floating]) -> Values:
    """Return `values` at the positions (down, across), both in units of its axes and inside."""
    left = np.minimum(across.astype(int), values.shape[1] - 2) if values.shape[1] > 1 else np.zeros(len(across), int)
    top = np.minimum(down.astype(int), values.shape[0] - 2) if values.shape[0] > 1 else np.zeros(len(down), int)
    fx, fy = (across - left)[None], (down - top)[:, None]
    right, bottom = np.minimum(left + 1, values.shape[1] - 1), np.minimum(top + 1, values.shape[0] - 1)
    upper = values[np.ix_(top, left)] * (1 - fx) + values[np.ix_(top, right)] * fx
    lower = values[np.ix_(bottom, left)] * (1 - fx) + values[np.ix_(bottom, right)] * fx
    return np.asarray(upper * (1 - fy) + lower * fy)
