"""Finding an image inside real fields: over all eight orientations and all shifts, independent of brightness."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from scipy.fft import next_fast_len
from torch import Tensor
from torch.nn.functional import pad

from ..data import augment
from ..data.image_files import Pixels
from ..errors import UserError
from ..io.progress import meter
from .image_set import ImageSet

SIDE = 64
"""Side to which the shorter side of an image is reduced before it is searched for."""
PART = 48
"""Side of the middle of the reduced image that is searched for, so that a shifted copy of the same size is found."""
FLAT = 2.0
"""Standard deviation, grey levels, below which a region counts as blank background and is never a match."""
BATCH = 32
"""Images searched for at a time."""


@dataclass(frozen=True)
class Place:
    """The place where the centre of an image was found.

    Attributes:
        similarity: correlation with the field at this place, -1..1; 1 is a copy up to brightness and contrast.
        field: index of the field.
        turn: D4 turn (`augment.d4`) that brings the image into the field's orientation.
        corner: x and y of the square in the field, pixels.
        side: of the square, pixels.
    """

    similarity: float
    field: int
    turn: int
    corner: tuple[int, int]
    side: int


@torch.no_grad()
def search(images: ImageSet, fields: ImageSet, device: torch.device) -> list[Place]:
    """Return the place in `fields` (whole images) that is most similar to each of `images` (all of one size).

    The likeness is the zero-mean normalised cross-correlation over the three channels together, of the square in the
    middle of the image (three quarters of its shorter side), both reduced to 64 pixels an image; at every shift.

    Raises UserError when images differ in size, or a field is smaller than the square.
    """
    if len(images.sizes) != 1:
        raise UserError(
            f"{images.source}: images of {len(images.sizes)} different sizes; cut all to N x N with --window N"
        )
    factor = SIDE / min(images.windows[0].size)
    reduced = [_reduced(field, factor) for field in fields]
    for small, window in zip(reduced, fields.windows, strict=True):
        if min(small.shape[:2]) < PART:
            raise UserError(f"{window.path}: smaller than the part of an image that is searched for in it")
    places: list[Place] = []
    with meter("searching pixels", len(images) * len(fields)) as bar:
        for start in range(0, len(images), BATCH):
            batch = images[start : start + BATCH]
            templates = _templates([_reduced(image, factor) for image in batch]).to(device)
            best = [Place(-2.0, 0, 0, (0, 0), 0)] * len(batch)
            spectra: dict[torch.Size, Tensor] = {}
            for number, small in enumerate(reduced):
                for row, found in enumerate(_best(templates, small, number, factor, spectra)):
                    best[row] = max(best[row], found, key=lambda place: place.similarity)
                bar.advance(amount=len(batch))
            places += best
    return places


def _best(
    templates: Tensor, image: Pixels, number: int, factor: float, spectra: dict[torch.Size, Tensor]
) -> list[Place]:
    """Return the best place of each template in the reduced field `image`, which is field `number`."""
    scores = correlation(templates, torch.tensor(image, device=templates.device).permute(2, 0, 1).float(), spectra)
    highest, flat = scores.flatten(1).max(dim=1)
    turns, rows, columns = np.unravel_index(flat.cpu().numpy(), scores.shape[1:])
    side = round(PART / factor)
    height, width = round(image.shape[0] / factor), round(image.shape[1] / factor)
    return [
        Place(
            float(similarity), number, int(turn),
            (min(round(x / factor), width - side), min(round(y / factor), height - side)), side,
        )
        for similarity, turn, y, x in zip(highest.cpu(), turns, rows, columns, strict=True)
    ]  # fmt: skip


def correlation(templates: Tensor, field: Tensor, spectra: dict[torch.Size, Tensor]) -> Tensor:
    """Return the normalised cross-correlation of `templates` with `field` at every shift inside it.

    Args:
        templates: (n, 8, 3, PART, PART), zero mean in each channel, unit norm over all.
        field: (3, height, width), grey levels.
        spectra: of the templates by size of the field; filled here.

    Returns (n, 8, height - PART + 1, width - PART + 1), -1..1.
    """
    height, width = field.shape[1:]
    size = (next_fast_len(height, real=True), next_fast_len(width, real=True))
    if field.shape not in spectra:
        spectra[field.shape] = torch.fft.rfft2(templates, s=size).conj()
    centred = field - field.mean(dim=(1, 2), keepdim=True)
    product = (torch.fft.rfft2(centred, s=size) * spectra[field.shape]).sum(dim=2)
    shifts = torch.fft.irfft2(product, s=size)[..., : height - PART + 1, : width - PART + 1]
    energy = (_sums(centred**2) - _sums(centred) ** 2 / PART**2).sum(dim=0)
    return torch.as_tensor(shifts / energy.clamp(min=3 * (PART * FLAT) ** 2).sqrt())


def _sums(planes: Tensor) -> Tensor:
    """Return the sums of (3, height, width) `planes` over every PART x PART square, by an integral image."""
    table = pad(planes.double(), (1, 0, 1, 0)).cumsum(1).cumsum(2)
    below, right = table[:, PART:], slice(PART, None)
    squares = below[..., right] - below[..., :-PART] - table[:, :-PART, right] + table[:, :-PART, :-PART]
    return squares.float()


def _templates(images: Sequence[Pixels]) -> Tensor:
    """Return the middles of reduced `images` in their eight turns, (n, 8, 3, PART, PART), as `correlation` asks."""
    turned = [[augment.d4(centre(image), turn) for turn in range(8)] for image in images]
    values = torch.tensor(np.array(turned)).permute(0, 1, 4, 2, 3).float()
    values = values - values.mean(dim=(3, 4), keepdim=True)
    norms = values.square().sum(dim=(2, 3, 4), keepdim=True)
    return torch.as_tensor(values / norms.clamp(min=3 * (PART * FLAT) ** 2).sqrt())


def centre(pixels: Pixels) -> Pixels:
    """Return the square in the middle of (height, width, 3) `pixels` that is searched for."""
    height, width = pixels.shape[:2]
    side = round(min(height, width) * PART / SIDE)
    top, left = (height - side) // 2, (width - side) // 2
    return pixels[top : top + side, left : left + side]


def _reduced(pixels: Pixels, factor: float) -> Pixels:
    height, width = pixels.shape[:2]
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    return np.asarray(Image.fromarray(np.ascontiguousarray(pixels)).resize(size, Image.Resampling.LANCZOS))
