"""Reference cells of the Comparison Detector: a few of each class, cut along their boxes."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..annotations import Box
from ..data import content, image_files
from ..data.formats import folders
from ..data.image_files import Pixels
from ..data.sources import Sample
from ..errors import UserError


def of_samples(samples: Sequence[Sample], categories: Sequence[str], shots: int, side: int, seed: int) -> Tensor:
    """Return `shots` cells of each category, sampled from `samples` by `seed`.

    Returns (categories, shots, 3, side, side) in 0..1. A category with fewer cells repeats them. Raises UserError for
    one that has none.
    """
    found: list[list[Pixels]] = []
    for category in categories:
        known = [(sample, cell) for sample in samples for cell in sample.cells if not cell.crowd]
        cells = [(sample, cell.box) for sample, cell in known if cell.category == category]
        if not cells:
            raise UserError(
                f"no {category} cell in the training data to use as reference; "
                "give a folder of reference cells: --set references=FOLDER"
            )
        rng = np.random.default_rng([seed, len(found)])
        chosen = rng.permutation(len(cells))[:shots]
        found.append([_cut(cells[index][0].pixels, cells[index][1], side) for index in np.resize(chosen, shots)])
    return _tensor(found)


def of_folder(root: Path, categories: Sequence[str], shots: int, side: int) -> Tensor:
    """Return the first `shots` images, by name, of each category's folder below `root`.

    Returns (categories, shots, 3, side, side) in 0..1. A category with fewer images repeats them. Raises UserError for
    one that has none, and for an image that cannot be read.
    """
    found = []
    for paths in _files(root, categories, shots):
        images = [image_files.read(path) for path in paths]
        whole = [_cut(pixels, (0, 0, pixels.shape[1], pixels.shape[0]), side) for pixels in images]
        found.append([whole[index % len(whole)] for index in range(shots)])
    return _tensor(found)


def identity(root: Path, categories: Sequence[str], shots: int) -> str:
    """Return 16 hexadecimal digits that identify the files that `of_folder` reads; raise UserError as it does."""
    chosen = zip(categories, _files(root, categories, shots), strict=True)
    return content.of_keys(f"{name} {image_files.fingerprint(path)}" for name, paths in chosen for path in paths)


def _files(root: Path, categories: Sequence[str], shots: int) -> list[list[Path]]:
    """Return the first `shots` image files, by name, of each category's folder below `root`."""
    data = folders.read(root)
    found = []
    for category in categories:
        paths = [data.path(image) for image in data.images if image.cells[0].category == category]
        if not paths:
            raise UserError(f"{root / category}: no reference image of {category} found")
        found.append(paths[:shots])
    return found


def _cut(pixels: Pixels, box: Box, side: int) -> Pixels:
    """Return the box (xyxy) of `pixels`, cut at their edges and at least one pixel large, as (side, side, 3)."""
    height, width = pixels.shape[:2]
    x0, y0 = min(max(round(box[0]), 0), width - 1), min(max(round(box[1]), 0), height - 1)
    inside = pixels[y0 : max(round(box[3]), y0 + 1), x0 : max(round(box[2]), x0 + 1)]
    return np.asarray(Image.fromarray(inside).resize((side, side), Image.Resampling.BILINEAR))


def _tensor(found: Sequence[Sequence[Pixels]]) -> Tensor:
    return torch.from_numpy(np.stack([np.stack(row) for row in found])).permute(0, 1, 4, 2, 3).float() / 255
