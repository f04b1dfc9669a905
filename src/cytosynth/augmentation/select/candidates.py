"""The synthetic images to select from."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...annotations import DataSet, Image
from ...data import file_names
from ...data.formats import coco
from ...data.sources import Room, Sample, Source
from ...errors import UsageError, UserError
from ...io import plain
from .. import inputs, leaks
from .recipe import SelectRecipe

UNFIT = re.compile(r"[\\:]")
"""What a folder may be called and an image of a data set may not, whose name can begin with the folder's."""


@dataclass(frozen=True)
class SyntheticSet:
    """A folder of synthetic images.

    Attributes:
        label: its name, unique among the sets.
        folder: where it is.
        data: its annotations.
        records: how each image was made, by file name.
    """

    label: str
    folder: Path
    data: DataSet
    records: Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Candidate:
    """One synthetic image.

    Attributes:
        label: of its set.
        path: of its file.
        image: its annotations.
        original: file name of the real image that was edited; None for a wholly synthetic image.
    """

    label: str
    path: Path
    image: Image
    original: str | None = None

    @property
    def key(self) -> str:
        """Its name among all candidates."""
        return f"{self.label}/{self.image.file_name}"

    def sample(self, room: Room) -> Sample:
        """Return it as a training image, in memory as long as there is `room`."""
        return Sample(self.key, self.label, room.image(self.path), self.image.cells)


def gather(recipe: SelectRecipe, held: Sequence[Source], data_root: Path) -> list[SyntheticSet]:
    """Return the synthetic sets of `recipe`.

    Raises UsageError if there is none, UserError where an image was made from one of the parts `held`.
    """
    if not recipe.synthetic:
        raise UsageError("synthetic: no data set given; give one with --synthetic")
    found: list[SyntheticSet] = []
    for name in recipe.synthetic:
        folder = data_root / name
        leaks.refuse(folder, held, data_root)
        base, taken = UNFIT.sub("_", plain.last(folder.resolve())), {other.label for other in found}
        labels = [base, *(f"{base}-{number}" for number in range(2, len(recipe.synthetic) + 2))]
        label = next(label for label in labels if label not in taken)
        found.append(SyntheticSet(label, folder, coco.read(folder), leaks.records(folder)))
    return found


def candidates(sets: Sequence[SyntheticSet], categories: Sequence[str]) -> list[Candidate]:
    """Return the images of `sets` with an annotated cell of `categories`; raise UserError if there is none."""
    found = [
        Candidate(
            one.label, file_names.inside(one.data.folder, image.file_name), image,
            _original(one.records.get(image.file_name, {})),
        )
        for one in sets
        for image in one.data.images
        if any(cell.category in categories for cell in image.cells)
    ]  # fmt: skip
    if not found:
        raise UserError(
            f"{sets[0].folder}: no annotated cell of {', '.join(categories)}; there is nothing to learn from"
        )
    return found


def _original(record: Mapping[str, Any]) -> str | None:
    original = record.get("original")
    return original if isinstance(original, str) else None


def digests(recipe: SelectRecipe, sets: Sequence[SyntheticSet], data_root: Path) -> dict[str, str]:
    """Return digests of the training, candidate and validation data and of the detector, by name."""
    roots = {f"set {one.label}": one.folder for one in sets}
    roots |= {f"real set {n}": data_root / source.root for n, source in enumerate(recipe.real, 1)}
    found = inputs.of(roots | {"validation set": data_root / recipe.validation.root})
    if recipe.detector:
        found["detector"] = inputs.digest(Path(recipe.detector), ("config.json", "model.safetensors"))
    return found
