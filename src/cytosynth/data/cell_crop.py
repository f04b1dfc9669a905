"""The square in which a cell classifier sees a cell, and the `config.json` beside its weights that says how large.

`train features` writes the folder, the gate's classifier and the feature network read it.
"""

import numpy as np
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field

from ..annotations import Box
from .image_files import Pixels


class ClassifierConfig(BaseModel):
    """What rebuilds a cell classifier, and how its crops are cut."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    architecture: str = Field(description="a classification network of torchvision by name: resnet50 ...")
    classes: tuple[str, ...] = Field(min_length=2, description="names in the order of the outputs")
    size: int = Field(ge=16, le=2048, description="side of the crops, pixels")
    context: float = Field(default=1.5, ge=0.5, le=8, description="side of the square over the box's longer side")
    mean: tuple[float, float, float] = Field(description="of RGB in 0..1")
    std: tuple[float, float, float]
    scale: dict[str, float] = Field(default={}, description="factor on the images of each training set")


def square(pixels: Pixels, box: Box, context: float, size: int, shift: int = 0) -> Pixels:
    """Return the (size + 2 shift, size + 2 shift, 3) square about `box` (xyxy) of (height, width, 3) `pixels`.

    Its side is `context` times the box's longer side, and at least `size`: a larger square is reduced (Lanczos), a
    smaller one is not enlarged but takes in more of the field, so that nuclei keep their size. It has a margin of
    `shift` pixels on each side. Beyond the edges of `pixels` it is mirrored.
    """
    factor = max(max(box[2] - box[0], box[3] - box[1]) * context / size, 1.0)
    target = size + 2 * shift
    side = round(target * factor)
    x, y = round((box[0] + box[2] - side) / 2), round((box[1] + box[3] - side) / 2)
    rows, columns = (
        _mirrored(np.arange(at, at + side), end) for at, end in ((y, pixels.shape[0]), (x, pixels.shape[1]))
    )
    cut = np.ascontiguousarray(pixels[np.ix_(rows, columns)])
    if side == target:
        return cut
    return np.asarray(Image.fromarray(cut).resize((target, target), Image.Resampling.LANCZOS))


def _mirrored(positions: np.ndarray, extent: int) -> np.ndarray:
    """Return `positions` reflected into 0..extent-1, the edge pixel not doubled, as often as needed."""
    period = max(2 * (extent - 1), 1)
    inside = np.abs(positions) % period
    return np.asarray(np.minimum(inside, period - inside))
