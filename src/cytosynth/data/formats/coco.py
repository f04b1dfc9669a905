"""COCO: `annotations.json` (ids from 1, boxes xywh) beside `images/`."""

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from ...annotations import Cell, DataSet, Image
from ...errors import FormatProblem
from ...io import atomic, plain
from ...io.plain import load
from ...io.wording import listed, said

FILE = "annotations.json"
LARGEST = 1e9
"""Pixels; sizes and coordinates beyond it are no image's."""
LONGEST = 1000
"""Characters of a name: problems repeat it."""
OF_IMAGE = frozenset({"id", "file_name", "width", "height"})
OF_CELL = frozenset({"id", "image_id", "category_id", "bbox", "score"})
"""The fields of an image and of an annotation that have a place of their own; all others are its extra ones."""


Report = Callable[[str], None]
"""Told of each problem: it raises, or it takes note and the entry is left out."""


def refuse(problem: str) -> None:
    """Raise FormatProblem with `problem`: what readers do unless they are told to take note."""
    raise FormatProblem(problem)


def read(root: Path, report: Report = refuse) -> DataSet:
    """Read the data set at `root`: a folder with `annotations.json` and `images/`, or a COCO file.

    Raises FormatProblem for a file that is missing, not JSON or without its three lists; entries that
    cannot be understood go to `report`.
    """
    file = root / FILE if root.is_dir() else root
    content = load(file)
    for key in ("images", "annotations", "categories"):
        if not isinstance(content.get(key), list):
            raise FormatProblem(f"{file}: no list '{key}'; a COCO file has images, annotations and categories")
    return _parse(content, file, report)


def _parse(content: dict[str, Any], file: Path, report: Report) -> DataSet:
    names = _by_id(content["categories"], "categories", file, report, lambda entry: category(entry["name"]))
    images = _by_id(content["images"], "images", file, report, _image)
    cells: dict[Any, list[Cell]] = {key: [] for key in images}
    seen, there = set(), listed(names)
    for index, entry in enumerate(content["annotations"]):
        where = f"{file}: annotations[{index}]"
        try:
            if entry.get("id", index) in seen:
                report(f"{where}: id {said(entry['id'])} is used twice")
            seen.add(entry.get("id", index))
            if entry["image_id"] not in cells:
                report(f"{where}: no image of id {said(entry['image_id'])}")
                continue
            if entry["category_id"] not in names:
                report(f"{where}: unknown category {said(entry['category_id'])}; there are {there}")
                continue
            cells[entry["image_id"]].append(_cell(entry, names))
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            report(f"{where}: {_reason(error)}")
    folder = file.parent / "images"
    return DataSet(
        folder=folder if folder.is_dir() else file.parent,
        images=tuple(replace(image, cells=tuple(cells[key])) for key, image in images.items()),
        categories=tuple(dict.fromkeys(names.values())),
        licences=licences(content, file, report),
        info=_info(content, file, report),
    )


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
            report(f"{file}: licenses[{index}]: {_reason(error)}")
    return tuple(kept)


def _info(content: Mapping[str, Any], file: Path, report: Report) -> dict[str, Any]:
    info = content.get("info")
    try:
        return dict(plain.checked(info)) if isinstance(info, dict) else {}
    except ValueError as error:
        report(f"{file}: info: {_reason(error)}")
        return {}


def name(value: Any) -> str:
    """Return the name `value` of a category or image; raise ValueError where it is none."""
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str):
        raise ValueError(f"a name is expected, found {said(value)}")
    if not value or plain.CONTROL.search(value) or len(value) > LONGEST:
        raise ValueError(f"the name {said(value)} is empty, too long, or has control characters")
    return value


def category(value: Any) -> str:
    """Return the name `value` of a category; raise ValueError where it is none that every format keeps apart."""
    found = name(value)
    if found != found.strip():
        raise ValueError(f"the name {said(value)} begins or ends with a space")
    return found


def file_name(value: Any) -> str:
    """Return the file name `value` of an image; raise ValueError where it is none that a message could name."""
    if not isinstance(value, str | int):
        return name(value)
    if len(str(value)) > LONGEST:
        raise ValueError(f"the file name {said(value)} is longer than files can be called")
    return str(value)


def number(value: Any) -> float:
    """Return the number `value` of pixels, which may be NaN; raise ValueError for what no image has."""
    try:
        result = float(value)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"a number is expected, found {said(value)}") from None
    if abs(result) > LARGEST:
        raise ValueError(f"{result:g} is beyond {LARGEST:g} pixels")
    return result


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
            report(f"{file}: {title}[{index}]: {_reason(error)}")
    return result


def _image(entry: dict[str, Any]) -> Image:
    return Image(
        file_name=file_name(entry["file_name"]),
        width=int(number(entry["width"])),
        height=int(number(entry["height"])),
        extra=plain.checked(beyond(entry, OF_IMAGE)),
    )


def _cell(entry: dict[str, Any], names: dict[Any, str]) -> Cell:
    x, y, width, height = (number(value) for value in entry["bbox"])
    extra = beyond(entry, OF_CELL)
    score = float(entry["score"]) if entry.get("score") is not None else None
    if score is not None and not math.isfinite(score):
        raise ValueError(f"score {score} is not finite")
    if "nucleus" in extra:
        extra["nucleus"] = [number(value) for value in extra["nucleus"]]
        if len(extra["nucleus"]) != 2:
            raise ValueError(f"nucleus: x and y are expected, found {len(extra['nucleus'])} numbers")
    return Cell((x, y, x + width, y + height), names[entry["category_id"]], score, plain.checked(extra))


def beyond(values: Mapping[str, Any], own: frozenset[str]) -> dict[str, Any]:
    """Return `values` without those whose names are `own` fields: what may be written beside them."""
    return {key: value for key, value in values.items() if key not in own}


def _reason(error: Exception) -> str:
    return f"no {error}" if isinstance(error, KeyError) else str(error)[:160]


def encode(data: DataSet) -> dict[str, Any]:
    """Return `data` as a COCO object; image, annotation and category ids count from 1."""
    ids = {name: index for index, name in enumerate(data.categories, 1)}
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for image_id, image in enumerate(data.images, 1):
        images.append(
            {"id": image_id, "file_name": image.file_name, "width": image.width, "height": image.height}
            | beyond(image.extra, OF_IMAGE)
        )
        for cell in image.cells:
            x0, y0, x1, y1 = cell.box
            bbox = [round(value, 4) for value in (x0, y0, x1 - x0, y1 - y0)]
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
