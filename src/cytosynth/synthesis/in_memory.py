"""The models loaded once, for fields and edits in memory."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from PIL import Image as PILImage

from ..annotations import Box, Cell
from ..cell import patch
from ..cell.edit import CellEditor, PlannedEdit
from ..config import validated
from ..data import image_files
from ..data.image_files import Pixels
from ..detection.model import Detector
from ..errors import UsageError, UserError
from ..normal.generate import NormalImageGenerator
from . import plan as plans
from .fitting import fit
from .settings import PipelineSettings

ImageLike: TypeAlias = Any  # str | Path | Pixels | PIL.Image.Image, whose types are not checked
"""A path, a (height, width, 3) uint8 RGB array, or a PIL image."""


@dataclass(frozen=True)
class Edited:
    """An edited image in memory.

    Attributes:
        image: (height, width, 3) uint8 RGB.
        cells: the cells placed in it, with the given boxes.
    """

    image: Pixels
    cells: tuple[Cell, ...]


@dataclass
class Pipeline:
    """The models, loaded once for many calls; usable from any thread, by one at a time.

    Attributes:
        generator: generates normal fields (stage 1).
        editor: edits cells (stage 2).
        detector: finds cells.
        settings: of both stages.
    """

    generator: NormalImageGenerator
    editor: CellEditor
    detector: Detector
    settings: PipelineSettings

    def field(self, seed: int = 0, index: int = 0) -> Pixels:
        """Return the normal field `index` of `seed`: (size, size, 3) uint8 RGB."""
        return self.generator.field(seed, index, self.settings.normal)

    def detect(self, image: ImageLike, threshold: float | None = None) -> list[Cell]:
        """Return the cells found in `image` with a score of at least `threshold`, best first."""
        return self.detector.find(as_pixels(image), self.settings.threshold if threshold is None else threshold)

    def edit(
        self, image: ImageLike, boxes: Sequence[Box], category: str | Sequence[str], seed: int | Sequence[int] = 0
    ) -> Edited:
        """Return `image` with the cell in each of `boxes` turned into `category`.

        Args:
            image: at least 256 x 256 pixels, at x20 (a normal intermediate nucleus is about 15 pixels wide).
            boxes: xyxy in pixels, one per cell.
            category: for all boxes, or one per box.
            seed: of the first box (the following boxes have the following seeds), or one per box.

        Raises UsageError for numbers that do not match, UserError for a box outside the image or regions that overlap.
        """
        return edited(self.editor, as_pixels(image), boxes, category, seed, self.settings)


def as_pixels(image: ImageLike) -> Pixels:
    """Return `image` as (height, width, 3) uint8 RGB; raise UserError if it is not such an image."""
    if isinstance(image, str | Path):
        return image_files.read(Path(image))
    pixels = np.asarray(image.convert("RGB") if isinstance(image, PILImage.Image) else image)
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
        raise UserError(f"image: {pixels.dtype} {pixels.shape}; expected uint8 RGB of shape (height, width, 3)")
    return pixels


def edited(
    editor: CellEditor, pixels: Pixels, boxes: Sequence[Box], category: str | Sequence[str],
    seed: int | Sequence[int], settings: PipelineSettings,
) -> Edited:  # fmt: skip
    """Return `pixels` with the cell in each of `boxes` turned into its category; see `Pipeline.edit`."""
    height, width = pixels.shape[:2]
    names = [category] * len(boxes) if isinstance(category, str) else list(category)
    seeds = [seed + number for number in range(len(boxes))] if isinstance(seed, int) else list(seed)
    if not len(boxes) == len(names) == len(seeds):
        raise UsageError(f"{len(boxes)} boxes, {len(names)} categories, {len(seeds)} seeds; give one of each per box")
    if settings.keep_abnormal:
        raise UsageError("keep_abnormal: no effect on boxes that are given; leave it out")
    cells = [
        {"bbox_xyxy": [float(value) for value in box], "category": name, "seed": number}
        for box, name, number in zip(boxes, names, seeds, strict=True)
    ]
    image = {"file_name": "image.png", "generated": {"seed": 0, "index": 0}, "cells": cells}
    given = validated(plans.Plan, {"version": 1, "images": [image]}, "edit")
    chosen = editor.settled(settings.cell, real=True)
    scale = chosen.box_scale or 1.0
    plans.check(given, Path("edit"), editor.trained.targets)
    fit(given, Path("edit"), {"image.png": (width, height)}, scale)
    edits = [
        PlannedEdit(patch.enlarge(cell.box, scale, width, height), cell.category, cell.seed)
        for cell in given.images[0].cells
    ]
    made = editor.edit(pixels, edits, chosen)
    return Edited(
        made, tuple(Cell(cell.box, cell.category, extra={"synthetic": True}) for cell in given.images[0].cells)
    )
