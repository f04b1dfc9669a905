"""`dataset.json`: fields that YOLO and VOC cannot store (licences, sources, image labels, category order)."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from ...annotations import Cell, DataSet
from ...errors import FormatProblem
from ...io import atomic, plain
from . import cells, coco

FILE = "dataset.json"


def write(data: DataSet, root: Path) -> None:
    """Write the fields of `data` and of each image and cell, without boxes, to `root/dataset.json`."""
    content = {
        "info": data.info,
        "licenses": list(data.licences),
        "categories": list(data.categories),
        "images": {
            image.file_name: {"extra": image.extra, "cells": [_said(cell) for cell in image.cells]}
            for image in data.images
        },
    }
    atomic.write_json(root / FILE, content)


def restore(data: DataSet, root: Path) -> DataSet:
    """Return `data` with the further fields of `root/dataset.json`, if there is one."""
    if not (root / FILE).exists():
        return data
    content = _load(root)
    entries = content.get("images")
    said: dict[str, Any] = entries if isinstance(entries, dict) else {}
    images = []
    for image in data.images:
        entry = said.get(image.file_name)
        if isinstance(entry, dict) and isinstance(entry.get("extra"), dict):
            image = replace(image, extra=coco.beyond(entry["extra"], coco.OF_IMAGE))
            given = entry.get("cells")
            if isinstance(given, list) and len(given) == len(image.cells):
                image = replace(image, cells=tuple(map(_restored, image.cells, given)))
        images.append(image)
    info = content.get("info")
    return replace(
        data,
        images=tuple(images),
        licences=coco.licences(content, root / FILE),
        info=info if isinstance(info, dict) else {},
    )


def categories(root: Path) -> list[str]:
    """Return the order of the categories that `root/dataset.json` gives, empty where it gives none."""
    listed = _load(root).get("categories")
    try:
        return [cells.name(value) for value in listed] if isinstance(listed, list) else []
    except ValueError as error:
        raise FormatProblem(f"{root / FILE}: categories: {error}") from None


def _load(root: Path) -> dict[str, Any]:
    content = plain.load(root / FILE)
    try:
        plain.checked(content)
    except ValueError as error:
        raise FormatProblem(f"{root / FILE}: {str(error)[:120]}") from None
    return content


def _restored(cell: Cell, values: Any) -> Cell:
    """Return `cell` with its fields in the file, as far as they are valid."""
    if not isinstance(values, dict):
        return cell
    score, extra = values.get("score"), values.get("extra")
    score = float(score) if score is not None and _number(score) else None
    extra = coco.beyond(extra, coco.OF_CELL) if isinstance(extra, dict) else {}
    nucleus = extra.get("nucleus", [0, 0])
    if not (isinstance(nucleus, list) and len(nucleus) == 2 and all(map(_number, nucleus))):
        del extra["nucleus"]
    if not _number(extra.get("area", 0)):
        del extra["area"]
    return replace(cell, score=score, extra=cell.extra | extra)


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and abs(value) < cells.LARGEST


def _said(cell: Any) -> dict[str, Any]:
    return {"extra": cell.extra} | ({"score": cell.score} if cell.score is not None else {})
