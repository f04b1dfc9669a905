"""`mix`: real and synthetic images as one data set with parts, for a detector of this program or any other.

Real images keep their names, ids and parts; synthetic ones are in the part 'train' alone. Each image says in its entry
whether it is `synthetic`.
"""

import filecmp
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from .. import __version__
from ..annotations import DataSet, Image
from ..bethesda import NORMAL_LABELS
from ..config import pin
from ..data import convert, file_names, image_files, split, streaming
from ..data.formats import coco, coco_files, findings, registration
from ..data.preview import with_boxes
from ..data.read import guess, read
from ..data.sources import Source
from ..errors import UsageError, UserError
from ..io import atomic, lock, wording
from ..io.progress import console, meter
from ..provenance import MIXED, png, said, write_records
from ..synthesis.publish import contact_sheet
from . import inputs, leaks, mix_card

FILE = "mix.json"
"""The inputs of a mix; a folder without this file is not one."""
FLAG = "synthetic"
PARTS = ("train", "val", "test")
TRAIN = PARTS[0]
UNREAD = {"slides": "`cytosynth tiles` makes fields of them", "comparison-detector": "`cytosynth convert` prepares it"}
SHOWN = 6
"""Images of each kind on the contact sheet."""


def mix(
    real: Path,
    synthetic: Path,
    out: Path,
    *,
    ratio: float | None = None,
    target: str = "coco",
    keep_normal: bool = False,
) -> DataSet:
    """Write the images of `real`, in its parts, and those of `synthetic`, in 'train', to `out`; or continue there.

    Args:
        real: data set of real images; without parts of its own, it is divided as the trainers divide it.
        synthetic: data set that this program made, or that says `synthetic` of its images.
        out: folder of the new data set, in COCO also with one file for each part (`instances_train.json`).
        ratio: synthetic images for each real one in 'train', the first ones of their set; None: all.
        target: format of the annotations.
        keep_normal: boxes of normal cells stay, although most of those of synthetic images have none.

    Raises UserError if an image was made, at any level, from one that is held out, where `real` has synthetic images
    or `synthetic` real ones, or where the two have no category in common.
    """
    registration.writer(target)
    if out.resolve().is_relative_to(real.resolve()) or out.resolve().is_relative_to(synthetic.resolve()):
        raise UsageError(f"{out}: would be inside a data set that is read; give another folder")
    given, made = _real(real), _synthetic(synthetic)
    divided = {name: split.part(given, name, real) for name in PARTS if name in split.names(given, real)}
    if not divided.get(TRAIN):
        raise UserError(f"{real}: no image in part '{TRAIN}' to add synthetic ones to")
    held = [Source(root=str(real.resolve()), split=name) for name in divided if name != TRAIN]
    leaks.refuse(synthetic, held, Path())
    leaks.apart("real", [Source(root=str(real.resolve()), split=TRAIN)], held, Path())
    edited = {cell.category for image in made.images for cell in image.cells if cell.extra.get(FLAG) is True}
    whole = set(made.categories) - edited  # of a category that cells were edited into, other cells have no box
    silent = [name for name in given.categories if name in NORMAL_LABELS and name not in whole]
    with lock.run(out, FILE):
        wanted = {
            "real": inputs.annotations(real), "synthetic": inputs.annotations(synthetic), "ratio": ratio,
            "format": target, "keep_normal": keep_normal,
        }  # fmt: skip
        pin(wanted, out / FILE)
        if silent:
            console.print(mix_card.silent(silent, keep_normal), soft_wrap=True)
        chosen = made.images if ratio is None else _first(made.images, ratio, len(divided[TRAIN]), synthetic)
        kept = [image for images in divided.values() for image in images]
        if len(kept) < len(given.images):
            console.print(f"{len(given.images) - len(kept)} real images are in none of {', '.join(PARTS)}: left out")
        data, names = _joined(given, made, kept, chosen, divided, () if keep_normal else silent)
        data = _images(data, [(given.folder, i) for i in kept] + [(made.folder, i) for i in chosen], out, target)
        known = leaks.records(synthetic)
        records = [
            {**known[old], "file_name": new, "mixed": {"file_name": old}} for old, new in names.items() if old in known
        ]
        _annotations(data, out, target, records)
        note = mix_card.silent(silent, keep_normal) if silent else ""
        atomic.write_text(out / "README.md", mix_card.text(data, records, note))
        return data


def _first(images: Sequence[Image], ratio: float, real: int, synthetic: Path) -> Sequence[Image]:
    """Return the first of `images`, `ratio` for each of the `real` ones; print a line if there are fewer."""
    wanted = max(1, round(ratio * real))
    if len(images) < wanted:
        console.print(f"{synthetic}: {len(images)} images, fewer than --ratio {ratio:g} needs", soft_wrap=True)
    return images[:wanted]


def _images(data: DataSet, origin: Sequence[tuple[Path, Image]], out: Path, target: str) -> DataSet:
    """Copy the images of `data`, each of a folder and under the name of its `origin`; return where they are now."""
    convert.refuse_broken(data)
    convert.refuse_collisions(data, target, "coco")
    folder = out / registration.writer(target).images
    with meter("images", len(data.images)) as bar:
        for image, (place, old) in zip(data.images, origin, strict=True):
            _copied(file_names.inside(place, old.file_name), folder / image.file_name, image)
            bar.advance()
    return replace(data, folder=folder)


def _annotations(data: DataSet, out: Path, target: str, records: Sequence[dict[str, Any]]) -> None:
    """Write the annotations of `data`, its parts, the records of synthetic images, and the contact sheet."""
    registration.writer(target).write(data, out)
    atomic.write_json(out / split.FILE, {name: list(members) for name, members in data.parts.items()})
    if target == "coco":
        _by_part(data, out)
    write_records(out, records)
    _preview(data, out)


def _real(root: Path) -> DataSet:
    """Return the data set of real images at `root`; raise UserError for one that `mix` cannot take."""
    if streaming.kind(root) in streaming.PACKED:
        raise UserError(f"{root}: is packed; first run `cytosynth convert {root} OUT --to coco`")
    kind = guess(root)
    if kind in UNREAD:
        raise UserError(f"{root}: read as {kind}; {UNREAD[kind]}")
    data = read(root, kind)
    if strange := next((image for image in data.images if image.extra.get(FLAG) is True), None):
        raise UserError(f"{root}: {strange.file_name} is synthetic; the real data set is the first argument")
    return data


def _synthetic(root: Path) -> DataSet:
    """Return the synthetic data set at `root`; raise UserError if not all its images are marked as synthetic."""
    if streaming.kind(root) in streaming.PACKED:
        raise UserError(f"{root}: is packed; first run `cytosynth convert {root} OUT --to coco`")
    data = read(root, note=findings.ignore)
    recorded = said(root)
    for image in data.images:
        flagged = image.extra.get(FLAG, data.info.get(FLAG))
        if flagged is not True and image.file_name not in recorded:
            raise UserError(
                f"{root}: {image.file_name} is not marked as synthetic; the synthetic data set is the second argument"
            )
    if not data.images:
        raise UserError(f"{root}: contains no image")
    return data


def _joined(
    given: DataSet,
    made: DataSet,
    kept: Sequence[Image],
    added: Sequence[Image],
    divided: dict[str, tuple[Image, ...]],
    left_out: Sequence[str],
) -> tuple[DataSet, dict[str, str]]:
    """Return both as one data set, and the name in it of each of the images `added`."""
    if not set(given.categories) & set(made.categories):
        raise UserError(
            f"{given.folder} has the categories {wording.listed(given.categories)}, {made.folder} "
            f"{wording.listed(made.categories)}: none in common; rename with `cytosynth convert --rename OLD=NEW`"
        )
    licences: list[dict[str, Any]] = []
    images = coco_files.licensed(kept, given.licences, licences)
    others = coco_files.licensed(added, made.licences, licences)
    taken = {_stem(image.file_name) for image in kept}
    names = {image.file_name: _name(image.file_name, taken) for image in added}
    numbered = [image.id for image in kept]
    first = max((key for key in numbered if isinstance(key, int)), default=0) + 1
    as_given = len(set(map(str, numbered))) == len(numbered) and None not in numbered
    images = [_flagged(image, False, image.id if as_given else None) for image in images]
    images += [
        _flagged(replace(image, file_name=names[image.file_name]), True, first + number if as_given else None)
        for number, image in enumerate(others)
    ]
    wanted = [name for name in dict.fromkeys([*given.categories, *made.categories]) if name not in left_out]
    parts = {name: tuple(image.file_name for image in members) for name, members in divided.items()}
    parts[TRAIN] += tuple(names.values())
    derived = {**given.info, **_dict(made.info.get("derived_from"))}
    info = {
        "description": "Real and synthetic cervical cytology; `synthetic` of each image says which (not for diagnosis)",
        "software": f"CytoSynth {__version__}", "mixed": {"real": len(kept), "synthetic": len(added)},
    }  # fmt: skip
    return DataSet(
        given.folder,
        tuple(replace(image, cells=tuple(c for c in image.cells if c.category in wanted)) for image in images),
        tuple(wanted),
        tuple(licences),
        info | ({"derived_from": derived} if derived else {}),
        parts,
        {name: key for name, key in given.category_ids.items() if name in wanted},
    ), names


def _flagged(image: Image, synthetic: bool, number: int | str | None) -> Image:
    return replace(image, extra=image.extra | {FLAG: synthetic}, id=number)


def _name(file_name: str, taken: set[str]) -> str:
    """Return the new name of the synthetic image `file_name`, which no other image has with any suffix."""
    path = PurePosixPath(file_name)
    name = f"synthetic_{path.with_suffix('').as_posix().replace('/', '_')}"
    while name in taken:
        name = f"_{name}"
    taken.add(name)
    return name + path.suffix


def _stem(file_name: str) -> str:
    return PurePosixPath(file_name).with_suffix("").as_posix()


def _copied(source: Path, place: Path, image: Image) -> None:
    """Copy the image file `source` to `place`, unless it is there; raise ImageProblem if it is not as annotated."""
    if place.exists() and filecmp.cmp(source, place, shallow=False):
        return
    image_files.read(source)  # whole: its header says nothing of a file cut short
    image_files.same_size(source, (image.width, image.height), said="; see `cytosynth check`")
    atomic.write_bytes(place, source.read_bytes())


def _by_part(data: DataSet, out: Path) -> None:
    """Write a COCO file for each part of `data`, for detectors of other programs; ids are those of the whole set."""
    numbered = {i.file_name: replace(i, id=key) for i, key in zip(data.images, coco.image_ids(data), strict=True)}
    for name, members in data.parts.items():
        part = replace(data, images=tuple(numbered[member] for member in members), category_ids=coco.category_ids(data))
        atomic.write_json(out / f"instances_{name}.json", coco.encode(part))


def _preview(data: DataSet, out: Path) -> None:
    """Write `preview.png`: the first real and the first synthetic images with their boxes, marked as both."""
    shown = [image for image in data.images if not image.extra[FLAG]][:SHOWN]
    shown += [image for image in data.images if image.extra[FLAG]][:SHOWN]
    tiles = [with_boxes(image_files.read(data.path(image)), image.cells) for image in shown]
    sheet = {"origin": MIXED, "contact_sheet_of": [image.file_name for image in shown]}
    atomic.write_bytes(out / "preview.png", png(np.asarray(contact_sheet(tiles)), sheet))


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
