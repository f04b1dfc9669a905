"""The user's normal images, to be edited: of a plain folder, or of a data set in any format."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..bethesda import NILM
from ..data import file_names, split
from ..data.gather import beside
from ..data.pseudonyms import Pseudonyms
from ..data.read import Place, annotated, read
from ..data.rename import LABEL
from ..errors import UserError
from ..io import wording
from ..io.progress import console
from .jobs import Own


@dataclass(frozen=True)
class OwnImages:
    """The user's images.

    Attributes:
        images: name, path and further fields of each. refused: a line for each that cannot be used. licences: COCO's
        entries. info: COCO's info of the whole set.
    """

    images: list[Own]
    refused: list[str]
    licences: tuple[dict[str, Any], ...] = ()
    info: dict[str, Any] = field(default_factory=dict)

    def under(self, pseudonyms: Pseudonyms | None) -> "OwnImages":
        """Return them under the names from `pseudonyms`, if given."""
        if pseudonyms is None:
            return self
        images = [(pseudonyms.name(name), path, pseudonyms.extra(said)) for name, path, said in self.images]
        return OwnImages(images, list(map(pseudonyms.line, self.refused)), self.licences)


def gather(source: Path, label: str | None, part: str, place: Place) -> OwnImages:
    """Return the normal images of a `part` of the data set at `source`, or all images of a plain folder.

    With a `label`, those of that image-level label; `place` gives the paths of annotations and images. Raises UserError
    if there is none.
    """
    if place.annotations or annotated(source):
        return _normal(source, label, part, place)
    for option, value in (("--label", label), ("--split", None if part == "all" else part)):
        if value is not None:
            raise UserError(f"{source}: {option} needs a data set with annotations")
    if not source.is_dir():
        raise UserError(f"{source}: {'is a file' if source.exists() else 'no such folder'}; give a folder of images")
    chosen, refused = beside(source, place.recursive)
    return OwnImages([(name, path, {}) for name, path in chosen], refused)


def _normal(source: Path, label: str | None, part: str, place: Place) -> OwnImages:
    data = read(source, place=place)
    wanted = [p for p in split.part(data, part, source) if label is None or p.extra.get(LABEL) == label]
    if not wanted:
        raise UserError(f"{source}: no image of image-level label {label!r} in part '{part}'")
    normal = [p for p in wanted if all(cell.category == NILM for cell in p.cells)]
    if len(normal) < len(wanted):
        other = wording.listed({cell.category for p in wanted for cell in p.cells} - {NILM})
        left = f"{wording.amount(len(wanted) - len(normal), 'image')} with cells that are not {NILM} ({other})"
        if not normal:
            raise UserError(f"{source}: all {left}; normal ones are needed (rename categories with `convert --rename`)")
        console.print(f"left out: {left}", soft_wrap=True)
    extra = {p.file_name: p.extra for p in normal}
    chosen, refused = file_names.usable([(p.file_name, data.folder / p.file_name) for p in normal], data.folder)
    return OwnImages([(name, path, extra[name]) for name, path in chosen], refused, data.licences, data.info)
