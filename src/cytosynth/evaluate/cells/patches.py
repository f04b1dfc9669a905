"""Patches around cells: real ones, those to be edited, and the edited ones, stored on disk."""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np

from ...annotations import Box, Cell
from ...bethesda import NILM
from ...cell import patch
from ...cell.edit import CellEditor, PlannedEdit
from ...cell.settings import EditSettings
from ...data import image_files, sources, split
from ...data.image_files import Pixels
from ...data.sources import Source
from ...detection.model import Detector
from ...detection.tiles import most_certain
from ...errors import UserError
from ...io import atomic
from ...io.progress import meter
from ...normal.generate import NormalImageGenerator
from ...provenance import png
from .recipe import Editing


@dataclass(frozen=True)
class CellPatch:
    """The patch around a cell, as the synthesizer gets it.

    Attributes:
        pixels: (256, 256, 3).
        box: xyxy of the cell in it.
        category: of the cell.
        image: slide, image or field that it is of.
        key: identifies the cell.
    """

    pixels: Pixels
    box: Box
    category: str
    image: str
    key: str

    def about(self, side: int) -> Pixels:
        """Return the (side, side, 3) part of the patch about the cell."""
        return about(self.pixels, self.box, side)


def about(pixels: Pixels, box: Box, side: int) -> Pixels:
    """Return the (side, side, 3) part of (256, 256, 3) `pixels` about `box`."""
    x, y = patch.corner(box, patch.SIZE, patch.SIZE, side)
    return pixels[y : y + side, x : x + side]


def real(source: Source, data_root: Path) -> list[CellPatch]:
    """Return a patch for each annotated cell of `source` that a patch can hold, in file order.

    Raises UserError for an image smaller than a patch.
    """
    groups = {image.file_name: split.group(image) for image in source.read(data_root).images}
    found = []
    for sample in sources.load([source], data_root):
        if min(sample.size) < patch.SIZE:
            raise UserError(f"{data_root / source.root}: {sample.name}: smaller than a patch of {patch.SIZE} pixels")
        found += cut(sample.pixels, sample.cells, groups[sample.name], sample.name)
    return found


def identity(cell: CellPatch) -> str:
    """Return the digest of all that is known of `cell`."""
    said = f"{cell.key} {cell.image} {cell.category} {tuple(map(float, cell.box))} {cell.pixels.shape}"
    return sha256(said.encode() + cell.pixels.tobytes()).hexdigest()


def generated(
    generator: NormalImageGenerator, detector: Detector, count: int, editing: Editing, folder: Path
) -> list[CellPatch]:
    """Return a patch for each NILM cell that `detector` finds in `count` generated fields, kept in `folder`."""
    found = []
    with meter("generating fields", count) as bar:
        for index in range(count):
            path = folder / f"{index:06d}.png"
            if not path.exists():
                record = {"origin": "synthetic", "seed": editing.seed, "key": index}
                atomic.write_bytes(path, png(generator.field(editing.seed, index, editing.normal), record))
            field = image_files.read(path)
            cells = most_certain(detector.find(field, editing.threshold))
            found += cut(field, cells, f"field {index}", path.name)
            bar.advance()
    return [cell for cell in found if cell.category == NILM]


def cut(pixels: Pixels, cells: Sequence[Cell], image: str, name: str) -> list[CellPatch]:
    """Return the patches of those `cells` of (height, width, 3) `pixels` that fit into one."""
    height, width = pixels.shape[:2]
    number = zlib.crc32(name.encode())
    found = []
    for index, cell in enumerate(cells):
        if max(cell.size) <= patch.MOST:
            at = patch.corner(cell.box, width, height)
            box = patch.inner(cell.box, at)
            found.append(CellPatch(patch.window(pixels, at), box, cell.category, image, f"{number:08x}-{index:04d}"))
    return found


def region(cell: CellPatch, settings: EditSettings) -> Box:
    """Return the region of the patch of `cell` that is repainted."""
    return patch.enlarge(cell.box, settings.box_scale or 1.0, patch.SIZE, patch.SIZE)


def edited(
    editor: CellEditor, cells: Sequence[CellPatch], category: str, editing: Editing, folder: Path
) -> list[Pixels]:
    """Return the decoded patch of each of `cells` edited into `category`; those stored in `folder` are not made again.

    The seed of an edit depends only on that of the run, the cell and the category.
    """
    paths = [folder / category / f"{cell.key}.png" for cell in cells]
    missing = [index for index, path in enumerate(paths) if not path.exists()]
    batch, origin = editing.cell.together, "synthetic" if editing.fields else "real-to-synthetic"
    with meter(f"editing into {category}", len(cells), len(cells) - len(missing)) as bar:
        for start in range(0, len(missing), batch):
            chosen = missing[start : start + batch]
            requests = [(cells[i].pixels, _planned(cells[i], category, editing)) for i in chosen]
            for index, pixels in zip(chosen, editor.paint(requests, editing.cell), strict=True):
                record = {"origin": origin, "category": category, "seed": editing.seed, "key": cells[index].key}
                atomic.write_bytes(paths[index], png(pixels, record))
            bar.advance(amount=len(chosen))
    return [image_files.read(path) for path in paths]


def reconstructed(editor: CellEditor, cells: Sequence[CellPatch], editing: Editing, folder: Path) -> list[Pixels]:
    """Return the patch of each of `cells` encoded and decoded without an edit, stored in `folder` as edits are."""
    paths = [folder / f"{cell.key}.png" for cell in cells]
    with meter("reconstructing real cells", len(cells), sum(path.exists() for path in paths)) as bar:
        for cell, path in zip(cells, paths, strict=True):
            if not path.exists():
                record = {"origin": "real-to-synthetic", "category": cell.category, "edited": False, "key": cell.key}
                atomic.write_bytes(
                    path, png(editor.reconstruct(cell.pixels, region(cell, editing.cell), editing.cell), record)
                )
                bar.advance()
    return [image_files.read(path) for path in paths]


def _planned(cell: CellPatch, category: str, editing: Editing) -> PlannedEdit:
    parts = [editing.seed, zlib.crc32(cell.key.encode()), zlib.crc32(category.encode())]
    seed = int(np.random.SeedSequence(parts).generate_state(1)[0])
    return PlannedEdit(region(cell, editing.cell), category, seed)


def put_back(cell: CellPatch, decoded: Pixels, settings: EditSettings) -> Pixels:
    """Return the patch of `cell` with the edit put back by `settings.paste`."""
    return patch.compose(cell.pixels, [(region(cell, settings), decoded)], settings)


def halves(cells: Sequence[CellPatch], rng: np.random.Generator) -> tuple[list[CellPatch], list[CellPatch]]:
    """Return two parts of `cells` that share no image, as equal in number as whole images allow, each shuffled.

    Images go in turn, the fullest first, to the part with fewer cells. The second part is empty where all are of one
    image.
    """
    by_image: dict[str, list[CellPatch]] = {}
    for index in rng.permutation(len(cells)):
        by_image.setdefault(cells[index].image, []).append(cells[index])
    parts: tuple[list[CellPatch], list[CellPatch]] = ([], [])
    for members in sorted(by_image.values(), key=len, reverse=True):
        min(parts, key=len).extend(members)
    return tuple([part[index] for index in rng.permutation(len(part))] for part in parts)  # type: ignore[return-value]
