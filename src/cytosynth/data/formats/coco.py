"""COCO: JSON with images, annotations (boxes xywh) and categories; here `annotations.json` next to `images/`.

Read as COCO itself, CVAT, FiftyOne, Label Studio, labelme2coco, Roboflow and supervision lay it out: one file or one
for each part.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from ...annotations import Cell, DataSet, Image
from ...boxes import from_xywh, to_xywh
from ...errors import FormatProblem
from ...io import atomic, plain
from ...io.plain import load
from ...io.wording import listed, said
from . import cells, coco_files, findings
from .cells import LARGEST, LONGEST, category, name, number, reason
from .findings import Note, Report, refuse
from .names import file_name
from .registration import Writer

__all__ = ["LARGEST", "LONGEST", "Report", "category", "encode", "file_name", "name", "number", "read", "refuse"]

FILE = "annotations.json"
PARTS = "annotations"
"""Folder of the files `000000.json` ... of a data set that is too large for one; see `coco_parts`."""
OF_IMAGE = frozenset({"id", "file_name", "width", "height"})
OF_CELL = frozenset({"id", "image_id", "category_id", "bbox", "score"})
"""The fields of an image and of an annotation that have a place of their own; all others are its extra ones."""
LISTS = ("images", "annotations", "categories")
Id = int | str


def parts(root: Path) -> list[Path]:
    """Return the files of the data set in the folder `root` that was written in parts (`coco_parts`), in order."""
    return sorted((root / PARTS).glob("[0-9]" * 6 + ".json")) if not (root / FILE).exists() else []


def parse(content: dict[str, Any], where: Path) -> DataSet:
    """Return the data set of the COCO object `content` that was found at `where`; raise FormatProblem if it is none."""
    for key in LISTS:
        if not isinstance(content.get(key), list):
            raise FormatProblem(
                f"{where}: the list '{key}' is missing; a COCO object has images, annotations and categories"
            )
    return _parse(content, where, refuse, findings.ignore)


def read(
    root: Path,
    report: Report = refuse,
    note: Note = findings.ignore,
    annotations: Path | None = None,
    images: Path | None = None,
) -> DataSet:
    """Read the data set at `root`: a folder in any layout of COCO, or a COCO file.

    `annotations` and `images` are the paths of the JSON file and of the images, if not to be detected.
    Raises FormatProblem for a file that is missing, not JSON or without its three lists; entries that
    cannot be understood go to `report`, corrections to `note`.
    """
    if root.is_dir() and not annotations and (numbered := parts(root)):
        each = [read(file, report, note, images=root / "images") for file in numbered]
        return replace(each[0], images=tuple(image for data in each for image in data.images))
    files = [annotations] if annotations else coco_files.find(root) if root.is_dir() else [root]
    found = []
    for file in files or [root / FILE]:
        content = load(file)
        for key in LISTS:
            if not isinstance(content.get(key), list):
                raise FormatProblem(
                    f"{file}: the list '{key}' is missing; a COCO file has images, annotations and categories"
                )
        found.append(_located(_parse(content, file, report, note), file, root, images))
    if len(found) > 1:
        return coco_files.merged(found, files, root)
    part = coco_files.part_of(files[0], root) if files and not annotations and root.is_dir() else None
    return replace(found[0], parts={part: tuple(image.file_name for image in found[0].images)}) if part else found[0]


def _located(data: DataSet, file: Path, root: Path, images: Path | None) -> DataSet:
    """Return `data` of `file` with the folder of its images, and their names as they are on the disk."""
    folder, names = coco_files.locate(file, root, [image.file_name for image in data.images], images)
    moved = tuple(replace(image, file_name=name) for image, name in zip(data.images, names, strict=True))
    return replace(data, folder=folder, images=moved)


def _parse(content: dict[str, Any], file: Path, report: Report, note: Note) -> DataSet:
    names = _by_id(content["categories"], "categories", file, report, lambda entry: category(entry["name"]))
    images = _by_id(content["images"], "images", file, report, _image)
    found: dict[Any, list[Cell]] = {key: [] for key in images}
    seen, there, used = set(), listed(names), set()
    for index, entry in enumerate(content["annotations"]):
        where = f"{file}: annotations[{index}]"
        try:
            if entry.get("id", index) in seen:
                note(findings.RENUMBERED, f"{where}: id {said(entry['id'])} is used twice")
            seen.add(entry.get("id", index))
            if entry["image_id"] not in found:
                report(f"{where}: no image of id {said(entry['image_id'])}")
                continue
            image = images[entry["image_id"]]
            where = f"{where} ({image.file_name[:200]})"
            if entry["category_id"] not in names:
                report(f"{where}: unknown category {said(entry['category_id'])}; expected one of {there}")
                continue
            used.add(entry["category_id"])
            found[entry["image_id"]].append(_cell(entry, names, image, where, note))
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            report(f"{where}: {reason(error)}")
    for key in _groups(content["categories"], used):
        names.pop(key, None)
    return DataSet(
        folder=file.parent,
        images=tuple(replace(image, cells=tuple(found[key])) for key, image in images.items()),
        categories=tuple(dict.fromkeys(names.values())),
        licences=licences(content, file, report),
        info=_info(content, file, report),
        category_ids={name: key for key, name in reversed(names.items()) if _is_id(key)},
    )


def _groups(categories: list[Any], used: set[Any]) -> set[Any]:
    """Return the ids of categories without a cell that only group others, such as Roboflow's first one."""
    entries = [entry for entry in categories if isinstance(entry, dict)]
    above = {entry.get("supercategory") for entry in entries if isinstance(entry.get("supercategory"), str)}
    return {
        entry["id"]
        for entry in entries
        if entry.get("supercategory") == "none" and entry.get("name") in above
        if isinstance(entry.get("id"), int | str) and entry["id"] not in used
    }


def licences(content: Mapping[str, Any], file: Path, report: Report = refuse) -> tuple[dict[str, Any], ...]:
    """Return the entries of `licenses` of the `content` of `file`; one that could not be written goes to `report`."""
    given, kept = content.get("licenses"), []
    for index, entry in enumerate(given if isinstance(given, list) else []):
        if not isinstance(entry, dict):
            continue
        try:
            key = entry.get("id")
            if isinstance(key, bool) or not isinstance(key, int | str | None):
                raise ValueError(f"id: a number or name is expected, found {said(key)}")
            kept.append(plain.checked(entry))
        except ValueError as error:
            report(f"{file}: licenses[{index}]: {reason(error)}")
    return tuple(kept)


def _info(content: Mapping[str, Any], file: Path, report: Report) -> dict[str, Any]:
    info = content.get("info")
    try:
        return dict(plain.checked(info)) if isinstance(info, dict) else {}
    except ValueError as error:
        report(f"{file}: info: {reason(error)}")
        return {}


T = TypeVar("T")


def _by_id(
    entries: list[Any], title: str, file: Path, report: Report, make: Callable[[dict[str, Any]], T]
) -> dict[Any, T]:
    result: dict[Any, T] = {}
    for index, entry in enumerate(entries):
        try:
            if entry["id"] in result:
                report(f"{file}: {title}[{index}]: id {said(entry['id'])} is used twice")
                continue
            result[entry["id"]] = make(entry)
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            report(f"{file}: {title}[{index}]: {reason(error)}")
    return result


def _is_id(value: Any) -> bool:
    """Return whether `value` is a number or name that can be written again."""
    if not isinstance(value, int | str) or isinstance(value, bool):
        return False
    try:
        plain.checked(value)
    except ValueError:
        return False
    return True


def _image(entry: dict[str, Any]) -> Image:
    return Image(
        file_name=file_name(entry["file_name"]),
        width=int(number(entry["width"])),
        height=int(number(entry["height"])),
        extra=plain.checked(beyond(entry, OF_IMAGE)),
        id=entry["id"] if _is_id(entry["id"]) else None,
    )


def _cell(entry: dict[str, Any], names: dict[Any, str], image: Image, where: str, note: Note) -> Cell:
    values = entry["bbox"]
    if not isinstance(values, list | tuple):
        raise ValueError(f"bbox: four numbers are expected, found {said(values)}")
    x, y, width, height = (number(value) for value in values)
    extra = plain.checked(beyond(entry, OF_CELL))
    score = float(entry["score"]) if entry.get("score") is not None else None
    if "nucleus" in extra:
        extra["nucleus"] = [number(value) for value in extra["nucleus"]]
        if len(extra["nucleus"]) != 2:
            raise ValueError(f"nucleus: x and y are expected, found {len(extra['nucleus'])} numbers")
    for key, right in (("area", _is_area), ("iscrowd", _is_flag), ("segmentation", _is_outline)):
        if key in extra and not right(extra[key]):
            note(findings.CORRECTED, f"{where}: {key} {said(extra[key])}")
            del extra[key]
    box = from_xywh((x, y, width, height))
    size = (image.width, image.height)
    return cells.make(box, names[entry["category_id"]], score, extra, size=size, where=where, note=note)


def _is_area(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < LARGEST**2


def _is_flag(value: Any) -> bool:
    return isinstance(value, int) and value in (0, 1)


def _is_outline(value: Any) -> bool:
    return isinstance(value, list | dict)


def beyond(values: Mapping[str, Any], own: frozenset[str]) -> dict[str, Any]:
    """Return `values` without those whose names are `own` fields: what may be written next to them."""
    return {key: value for key, value in values.items() if key not in own}


def image_ids(data: DataSet) -> list[Id]:
    """Return the id of each image of `data`: those that it came with, where all have one of their own, or from 1."""
    own = [image.id for image in data.images]
    if all(key is not None for key in own) and len({str(key) for key in own}) == len(own):
        return [key for key in own if key is not None]
    return list(range(1, len(own) + 1))


def category_ids(data: DataSet) -> dict[str, Id]:
    """Return the id of each category of `data`: those it came with, further ones above them; or from 1."""
    given = data.category_ids
    if len({str(key) for key in given.values()}) < len(given):
        given = {}
    free = max((key for key in given.values() if isinstance(key, int)), default=0)
    result: dict[str, Id] = {}
    for wanted in data.categories:
        if wanted not in given:
            free += 1
        result[wanted] = given.get(wanted, free)
    return result


def encode(data: DataSet) -> dict[str, Any]:
    """Return `data` as a COCO object; images and categories have the ids that they came with, or count from 1."""
    ids = category_ids(data)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for image_id, image in zip(image_ids(data), data.images, strict=True):
        images.append(
            {"id": image_id, "file_name": image.file_name, "width": image.width, "height": image.height}
            | beyond(image.extra, OF_IMAGE)
        )
        for cell in image.cells:
            bbox = [round(value, 4) for value in to_xywh(cell.box)]
            if not all(map(math.isfinite, bbox)):
                raise ValueError(f"{image.file_name}: box {cell.box} is not finite")
            entry: dict[str, Any] = {
                "id": len(annotations) + 1,
                "image_id": image_id,
                "category_id": ids[cell.category],
                "bbox": bbox,
                "area": round(bbox[2] * bbox[3], 4),
                "iscrowd": 0,
            }
            if cell.score is not None:
                entry["score"] = round(cell.score, 6)
            annotations.append(entry | beyond(cell.extra, OF_CELL))
    return {
        "info": data.info,
        "licenses": list(data.licences),
        "images": images,
        "annotations": annotations,
        "categories": [{"id": index, "name": name} for name, index in ids.items()],
    }


def write(data: DataSet, root: Path) -> None:
    """Write the annotations of `data` as `root/annotations.json`; the images are the caller's."""
    atomic.write_json(root / FILE, encode(data))


WRITER = Writer(write, images="images")
