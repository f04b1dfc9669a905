"""`dataset.json`: what YOLO and VOC have no place for (licences, sources, image labels, category order)."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from ..field import DataSet
from . import atomic, coco

FILE = "dataset.json"


def write(data: DataSet, root: Path) -> None:
    """Write what is said of `data` and of each picture and cell, without boxes, to `root/dataset.json`."""
    content = {
        "info": data.info,
        "licenses": list(data.licences),
        "categories": list(data.categories),
        "images": {
            picture.file_name: {"extra": picture.extra, "cells": [_said(cell) for cell in picture.cells]}
            for picture in data.pictures
        },
    }
    atomic.write_json(root / FILE, content)


def restore(data: DataSet, root: Path) -> DataSet:
    """Return `data` with what `root/dataset.json` says, where there is one."""
    if not (root / FILE).exists():
        return data
    content = coco.load(root / FILE)
    entries = content.get("images")
    said: dict[str, Any] = entries if isinstance(entries, dict) else {}
    pictures = []
    for picture in data.pictures:
        entry = said.get(picture.file_name)
        if isinstance(entry, dict) and isinstance(entry.get("extra"), dict):
            picture = replace(picture, extra=entry["extra"])
            cells = entry.get("cells")
            if isinstance(cells, list) and len(cells) == len(picture.cells):
                new = tuple(
                    replace(cell, score=values.get("score"), extra=dict(values.get("extra") or {}))
                    for cell, values in zip(picture.cells, cells, strict=True)
                    if isinstance(values, dict)
                )
                picture = replace(picture, cells=new) if len(new) == len(picture.cells) else picture
        pictures.append(picture)
    licences, info = content.get("licenses"), content.get("info")
    return replace(
        data,
        pictures=tuple(pictures),
        licences=tuple(licences) if isinstance(licences, list) else (),
        info=info if isinstance(info, dict) else {},
    )


def _said(cell: Any) -> dict[str, Any]:
    return {"extra": cell.extra} | ({"score": cell.score} if cell.score is not None else {})
