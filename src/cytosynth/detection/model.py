"""A trained detector in its folder: safetensors weights and `config.json`; reading it and finding cells."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Final

import numpy as np
import torch
from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from safetensors.torch import save_file
from torch import Tensor, nn

from ..annotations import Cell
from ..config import validated
from ..data.image_files import Pixels
from ..errors import UserError
from ..io import plain, tensors
from ..io.tensors import refuse_pickles, weights_digest
from ..registry import BACKBONES, DETECTORS
from . import architecture, tiles
from .fold import faster

WEIGHTS = "model.safetensors"
TILE: Final = 1024
"""Side of the tiles that large images are read in."""


class DetectorConfig(BaseModel):
    """What rebuilds a detector: architecture and categories.

    Attributes:
        architecture: a name of `registry.DETECTORS`.
        backbone: a name of `registry.BACKBONES`.
        categories: what it finds, in the order of its labels.
        pretrained: whether the backbone began from ImageNet weights, which fixes its norm and how images are read.
        tile: side of the tiles that larger images are read in.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    architecture: str = "faster-rcnn"
    backbone: Annotated[str, AfterValidator(BACKBONES.known)] = "resnet50"
    categories: tuple[str, ...]
    pretrained: bool = False
    tile: int = Field(
        default=TILE, ge=64, le=8192, description="side of the tiles in which images are processed, pixels"
    )


@dataclass
class Detector:
    """A detector and the names of what it finds."""

    network: nn.Module
    config: DetectorConfig
    digest: str = ""

    def find(self, pixels: Pixels, threshold: float = 0.5, overlap: int = 128) -> list[Cell]:
        """Return the cells in (height, width, 3) `pixels` of score at least `threshold`, best first.

        Larger images are read in tiles that overlap, and non-maximum suppression keeps one box of a cell that is in
        several tiles. A cell that every tile cuts, because it is wider than the overlap, is kept once too, by the box
        that shows most of it. Suppression is also applied to a single tile: the authors of DINO do without, but after
        few steps it returns a cell several times (`docs/augmentation.md` has figures); the results of the other
        detectors do not change.
        """
        height, width = pixels.shape[:2]
        side = self.config.tile
        seen = []
        for x, y in self.corners(width, height, overlap):
            found = self.look(pixels[y : y + side, x : x + side], threshold)
            placed = found.boxes + torch.tensor([x, y, x, y])
            seen.append(replace(found, boxes=placed, tile=(x, y, x + side, y + side)))
        boxes, labels, scores = tiles.joined(seen, width, height)
        return [
            Cell(
                tuple(round(float(value), 2) for value in box),  # type: ignore[arg-type]
                self.config.categories[int(label) - 1],
                round(float(score), 6),
            )
            for box, label, score in zip(boxes, labels, scores, strict=True)
        ]

    @torch.no_grad()
    def look(self, pixels: Pixels, threshold: float) -> tiles.Seen:
        """Return the cells in one tile, (height, width, 3) `pixels`: all of score at least `threshold`."""
        self.network.eval()
        device = next(self.network.parameters()).device
        window = np.ascontiguousarray(pixels)
        found = {key: value.cpu() for key, value in self.network([as_input(window).to(device)])[0].items()}
        kept = found["scores"] >= threshold
        height, width = pixels.shape[:2]
        return tiles.Seen(found["boxes"][kept], found["labels"][kept], found["scores"][kept], (0, 0, width, height))

    def corners(self, width: int, height: int, overlap: int) -> list[tuple[int, int]]:
        """Return the corners (x, y) of the tiles in which an image of that size is read."""
        side = self.config.tile
        return list(_corners(width, height, side, min(overlap, side // 2)))


def build(config: DetectorConfig) -> nn.Module:
    """Return the untrained network of `config`."""
    if config.architecture not in DETECTORS:
        raise UserError(f"unknown detector architecture {config.architecture!r}; choose one of {', '.join(DETECTORS)}")
    return architecture.load(config.architecture).build(config.backbone, len(config.categories), config.pretrained)


def save(network: nn.Module, config: DetectorConfig, folder: Path) -> None:
    """Write the weights (half precision) and configuration of a detector into `folder`."""
    state = {k: v.detach().cpu().half() if v.is_floating_point() else v.cpu() for k, v in network.state_dict().items()}
    save_file({k: v.contiguous() for k, v in state.items()}, folder / WEIGHTS, metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config.model_dump(mode="json"), indent=1) + "\n")


def configuration(folder: Path) -> DetectorConfig:
    """Read what the detector in `folder` is; raise UserError if there is none."""
    try:
        values = plain.from_json(plain.text(folder / "config.json"))
    except (OSError, ValueError):
        refuse_pickles(folder)
        raise UserError(f"{folder}: no detector found; config.json and {WEIGHTS} are expected") from None
    return validated(DetectorConfig, values, str(folder / "config.json"))


def load(folder: Path) -> Detector:
    """Read the detector in `folder` to find cells; raise UserError naming what is missing or does not fit.

    Its network is faster than the saved one and returns the same but for rounding (see `fold.py`); it can be neither
    trained nor saved. The digest is of the weights as saved.
    """
    detector = as_saved(folder)
    return replace(detector, network=faster(detector.network))


def as_saved(folder: Path) -> Detector:
    """Read the detector in `folder`, its tensors as in the file; raise UserError as `load` does."""
    config = configuration(folder)
    network = build(config)
    read = tensors.read(folder / WEIGHTS)
    try:
        network.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in read.items()})
    except RuntimeError as error:
        raise UserError(f"{folder / WEIGHTS}: {str(error).splitlines()[0][:200]}") from None
    return Detector(network.eval(), config, weights_digest(network, beside=config.model_dump()))


def as_input(pixels: Pixels) -> Tensor:
    """Return (3, height, width) floats in 0..1, as torchvision's detectors take them."""
    return torch.from_numpy(np.array(pixels)).permute(2, 0, 1).float() / 255


def targets(cells: Sequence[Cell], categories: Sequence[str]) -> dict[str, Tensor]:
    """Return torchvision's target of `cells`; crowds and categories that are not detected are left out."""
    wanted = [cell for cell in cells if cell.category in categories and not cell.crowd]
    return {
        "boxes": torch.tensor([cell.box for cell in wanted], dtype=torch.float32).reshape(-1, 4),
        "labels": torch.tensor([categories.index(cell.category) + 1 for cell in wanted], dtype=torch.int64),
    }


def _corners(width: int, height: int, tile: int, overlap: int) -> Iterator[tuple[int, int]]:
    step = tile - overlap
    for y in range(0, max(height - overlap, 1), step):
        for x in range(0, max(width - overlap, 1), step):
            yield min(x, max(width - tile, 0)), min(y, max(height - tile, 0))
