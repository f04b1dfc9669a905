"""Figure 7: three chosen cells of one image made into each category, and combinations of those edits."""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..annotations import Box, Cell
from ..bethesda import NILM
from ..boxes import clip, overlap
from ..cell import choose, patch
from ..cell.edit import CellEditor, PlannedEdit
from ..cell.settings import EditSettings
from ..data import image_files
from ..data.image_files import Pixels
from ..data.preview import with_boxes
from ..detection import model as detectors
from ..detection.model import Detector
from ..detection.tiles import most_certain
from ..devices import available
from ..errors import UserError
from ..evaluate import sheet
from ..foundation import load as foundations
from ..foundation.model import DTYPES
from ..foundation.names import BUNDLED
from ..foundation.precision import precision_of, prepare, resolved
from ..io import atomic
from ..io.bundled import model_folder
from ..normal.generate import NormalImageGenerator
from ..synthesis.settings import PipelineSettings

DEFAULT = PipelineSettings()
CELLS = 3
SHOWN = 256
"""Side of a tile, pixels; whole images are reduced to it."""


@dataclass(frozen=True)
class Figure7:
    """The images of the figure.

    Attributes:
        normal: (height, width, 3) image before any edit.
        boxes: xyxy of the chosen cells.
        edits: what is planned for each cell, by category.
        single: the image with one edit alone, by number of the cell and category.
        combinations: a category for each cell, and the image with all those edits.
    """

    normal: Pixels
    boxes: tuple[Box, ...]
    edits: tuple[dict[str, PlannedEdit], ...]
    single: dict[tuple[int, str], Pixels]
    combinations: tuple[tuple[tuple[str, ...], Pixels], ...]


def figure7(
    normal: Pixels, boxes: Sequence[Box], editor: CellEditor, settings: EditSettings, seed: int, out: Path
) -> Figure7:
    """Edit each of `boxes` of (height, width, 3) `normal` into each category; write `figure7.png` and `figure7.json`.

    A row for each cell: before, then each category. The last row: the whole image with the chosen cells marked, then
    random combinations of the same edits by `seed`, each category at most once if there are enough. Unset `settings`
    are as for a generated field.

    Raises UserError if a box is not in the image or too large, or where edited regions overlap.
    """
    settings = editor.settled(settings, real=False)
    names = editor.categories
    edits = planned(boxes, (normal.shape[1], normal.shape[0]), settings, seed, names)
    requests = [(number, category) for number in range(len(boxes)) for category in names]
    decoded = editor.paint([(normal, edits[number][category]) for number, category in requests], settings)
    painted = dict(zip(requests, decoded, strict=True))

    def composed(chosen: Sequence[tuple[int, str]]) -> Pixels:
        parts = [(edits[number][category].box, painted[number, category]) for number, category in chosen]
        return patch.compose(normal, parts, settings)

    single = {request: composed([request]) for request in requests}
    rng = np.random.default_rng([seed, 7])
    again = len(boxes) > len(names)
    drawn = [tuple(map(str, rng.choice(names, len(boxes), replace=again))) for _ in names]
    combinations = tuple((chosen, composed(list(enumerate(chosen)))) for chosen in drawn)
    made = Figure7(normal, tuple(boxes), edits, single, combinations)
    sheet.write(out / "figure7.png", tiles(made), columns=1 + len(names), side=SHOWN)
    atomic.write_json(
        out / "figure7.json",
        {
            "seed": seed,
            "settings": settings.model_dump(mode="json"),
            "precision": str(DTYPES[precision_of(editor.model)]).removeprefix("torch."),
            "models": {"cell": editor.digest, "foundation": editor.model.digest},
            "cells": [
                {"bbox_xyxy": list(box), "edited_xyxy": list(edits[number][names[0]].box),
                 "seeds": {category: edit.seed for category, edit in edits[number].items()}}
                for number, box in enumerate(boxes)
            ],
            "combinations": [list(chosen) for chosen, _ in combinations],
        },
    )  # fmt: skip
    return made


def from_models(
    out: Path,
    *,
    image: Path | None = None,
    boxes: Sequence[Box] = (),
    settings: PipelineSettings = DEFAULT,
    foundation: str = BUNDLED,
    normal: str = BUNDLED,
    cell: str = BUNDLED,
    detector: str = BUNDLED,
    device: str = "cpu",
) -> Figure7:
    """Make the figure with models by name.

    Args:
        out: folder.
        image: the user's normal image, resized by `settings.scale`; None: field 0 of `settings.seed` is generated.
        boxes: xyxy pixels of the chosen cells; none: three that the detector finds.
        settings: seed, threshold, scale, and settings of the two stages.
        foundation: Stable Diffusion of both stages.
        normal: LoRA of stage 1, or 'none'.
        cell: the Abnormal Cell Synthesizer.
        detector: of NILM cells.
        device: cpu, cuda ...
    """
    base = foundations.load(
        foundation, denoiser="unused" if image else "plain", prediction_type=settings.prediction_type
    )
    precision = resolved(settings.precision, device)
    editor = CellEditor.load(base, cell, device)
    edit = editor.settled(settings.cell, real=image is not None)
    if image:
        pixels = image_files.read(image, settings.scale)
    else:
        adapter = None if normal == "none" else normal
        generator = NormalImageGenerator(base, adapter, device)
        prepare(generator.model, precision, settings.compiled, settings.engine)
        pixels = generator.field(settings.seed, 0, settings.normal)
    prepare(editor.model, precision, settings.compiled, settings.engine)
    patch.check_size(pixels.shape[1], pixels.shape[0])
    if not boxes:
        finder = detectors.load(model_folder(detector, "detector"))
        finder.network.to(available(device))
        boxes = find(pixels, finder, edit, settings.threshold, settings.seed)
    return figure7(pixels, boxes, editor, edit, settings.seed, out)


def planned(
    boxes: Sequence[Box], size: tuple[int, int], settings: EditSettings, seed: int, categories: Sequence[str]
) -> tuple[dict[str, PlannedEdit], ...]:
    """Return the edit of each of `boxes` into each of `categories`; see `figure7` for what is refused."""
    width, height = size
    regions: list[Box] = []
    for box in boxes:
        said = f"box {', '.join(f'{value:g}' for value in box)}"
        if not (0 <= box[0] < box[2] <= width and 0 <= box[1] < box[3] <= height):
            raise UserError(f"{said}: not x0,y0,x1,y1 within the image of {width}x{height} pixels")
        if max(box[2] - box[0], box[3] - box[1]) > patch.MOST:
            raise UserError(f"{said}: at most {patch.MOST:g} pixels a side can be edited")
        region = patch.enlarge(box, settings.box_scale or 1.0, width, height)
        if any(overlap(region, other) for other in regions):
            raise UserError(f"{said}: its edited region overlaps another; choose cells farther apart")
        regions.append(region)
    return tuple(
        {category: PlannedEdit(region, category, _seed(seed, number, category)) for category in categories}
        for number, region in enumerate(regions)
    )


def find(normal: Pixels, detector: Detector, settings: EditSettings, threshold: float, seed: int) -> list[Box]:
    """Return the boxes of three NILM cells of `normal`, sampled from those detected whose regions do not overlap."""
    height, width = normal.shape[:2]
    found = [
        Cell(clip(cell.box, width, height), cell.category, cell.score)
        for cell in most_certain(detector.find(normal, threshold))
        if cell.category == NILM
    ]
    order = choose.ranked(found, "random", np.random.default_rng([seed, 2]))
    chosen = choose.apart(order, (width, height), settings, CELLS)
    if len(chosen) < CELLS:
        raise UserError(
            f"{len(found)} NILM cells detected, {len(chosen)} of them far enough apart; {CELLS} are needed; give --box"
        )
    return [cell.box for cell, _ in chosen]


def tiles(made: Figure7) -> list[tuple[Pixels, str]]:
    """Return the captioned tiles of the figure, row by row."""
    height, width = made.normal.shape[:2]
    shown: list[tuple[Pixels, str]] = []
    for number, box in enumerate(made.boxes):
        at = patch.corner(box, width, height)
        shown.append((patch.window(made.normal, at), f"cell {number + 1} before"))
        shown += [(patch.window(made.single[number, name], at), f"{name} (synthetic)") for name in made.edits[number]]
    shown.append((with_boxes(made.normal, [Cell(box, NILM) for box in made.boxes]), "the chosen cells"))
    for names, pixels in made.combinations:
        cells = [Cell(box, name) for box, name in zip(made.boxes, names, strict=True)]
        shown.append((with_boxes(pixels, cells), ", ".join(names)))
    return shown


def _seed(seed: int, number: int, category: str) -> int:
    return int(np.random.SeedSequence([seed, number, zlib.crc32(category.encode())]).generate_state(1)[0])
