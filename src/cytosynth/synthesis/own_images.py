"""The user's images, to be edited: of a plain folder, or of a data set in any format."""

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
from .jobs import Kept, Own


@dataclass(frozen=True)
class OwnImages:
    """The user's images.

    Attributes:
        images: name, path and further fields of each. refused: a line for each that cannot be used. licences: COCO's
        entries. info: COCO's info of the whole set. kept: the annotated abnormal cells of each that has any, by name;
        None for a plain folder, which has no annotations.
    """

    images: list[Own]
    refused: list[str]
    licences: tuple[dict[str, Any], ...] = ()
    info: dict[str, Any] = field(default_factory=dict)
    kept: Kept = None

    def under(self, pseudonyms: Pseudonyms | None) -> "OwnImages":
        """Return them under the names from `pseudonyms`, if given."""
        if pseudonyms is None:
            return self
        images = [(pseudonyms.name(name), path, pseudonyms.extra(said)) for name, path, said in self.images]
        kept = self.kept and {pseudonyms.name(name): cells for name, cells in self.kept.items()}
        return OwnImages(images, list(map(pseudonyms.line, self.refused)), self.licences, kept=kept)


def gather(source: Path, label: str | None, part: str, place: Place, keep_abnormal: bool = False) -> OwnImages:
    """Return the normal images of a `part` of the data set at `source`, or all images of a plain folder.

    With a `label`, those of that image-level label; `place` gives the paths of annotations and images; with
    `keep_abnormal`, also the images with abnormal cells, which are `kept`. Raises UserError if there is none.
    """
    if place.annotations or annotated(source):
        return _of_set(source, label, part, place, keep_abnormal)
    given = {"--label": label, "--split": None if part == "all" else part, "--keep-abnormal": keep_abnormal or None}
    for option, value in given.items():
        if value is not None:
            raise UserError(f"{source}: {option} needs a data set with annotations")
    if not source.is_dir():
        raise UserError(f"{source}: {'is a file' if source.exists() else 'no such folder'}; give a folder of images")
    chosen, refused = beside(source, place.recursive)
    return OwnImages([(name, path, {}) for name, path in chosen], refused)


def _of_set(source: Path, label: str | None, part: str, place: Place, keep_abnormal: bool) -> OwnImages:
    data = read(source, place=place)
    wanted = [p for p in split.part(data, part, source) if label is None or p.extra.get(LABEL) == label]
    if not wanted:
        raise UserError(f"{source}: no image of image-level label {label!r} in part '{part}'")
    kept = {p.file_name: cells for p in wanted if (cells := tuple(c for c in p.cells if c.category != NILM))}
    normal = [p for p in wanted if keep_abnormal or p.file_name not in kept]
    if len(normal) < len(wanted):
        other = wording.listed({cell.category for p in wanted for cell in p.cells} - {NILM})
        left = f"{wording.amount(len(wanted) - len(normal), 'image')} with cells that are not {NILM} ({other})"
        if not normal:
            raise UserError(
                f"{source}: all {left}; normal ones are needed (rename categories with "
                "`convert --rename`, or keep these cells with --keep-abnormal)"
            )
        console.print(f"left out: {left}", soft_wrap=True)
    extra = {p.file_name: p.extra for p in normal}
    chosen, refused = file_names.usable([(p.file_name, data.folder / p.file_name) for p in normal], data.folder)
    images = [(name, path, extra[name]) for name, path in chosen]
    kept = {name: kept[name] for name, _ in chosen if name in kept} if keep_abnormal else {}
    return OwnImages(images, refused, data.licences, data.info, kept)
