"""The places of COCO's files in the layouts of the tools that write them: JSON files, images, parts."""

import os
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from ...annotations import DataSet, Image
from ...errors import UserError
from ...io import plain
from .. import gather
from . import names

OURS = ("split.json", "plan.json", "mix.json")
LISTS = ("images", "annotations", "categories")
LOOKED_AT = 200
"""Images by whose names the folder of a file's images is found."""


def find(root: Path) -> list[Path]:
    """Return the COCO files of the data set in the folder `root`: its `annotations.json`, or one for each part."""
    if (root / "annotations.json").exists():
        return [root / "annotations.json"]
    found = [path for path in gather.files(root, depth=1) if path.suffix.lower() == ".json" and path.name not in OURS]
    for usual in ("_annotations.coco.json", "instances_"):
        if some := [path for path in found if path.name.lower().startswith(usual)]:
            return some
    return [path for path in found if holds(path)]


def holds(file: Path) -> bool:
    """Return whether the JSON `file` has the three lists of COCO."""
    try:
        state = file.stat()
    except OSError:
        return False
    return _holds(file, state.st_mtime_ns, state.st_size)


@lru_cache(maxsize=1000)
def _holds(file: Path, _changed: int, _size: int) -> bool:
    try:
        content = plain.load(file)
    except UserError:
        return False
    return all(isinstance(content.get(key), list) for key in LISTS)


def locate(file: Path, root: Path, found: Sequence[str], given: Path | None) -> tuple[Path, list[str]]:
    """Return the folder in which most images called `found` by the COCO `file` lie, and their names on the disk.

    Args:
        file: of the data set at `root`.
        root: folder of the data set, or the file itself.
        found: names of images as the file has them.
        given: the folder of the images, where the user says so.
    """
    if given:
        places = [given]
    else:
        top = root if root.is_dir() else file.parent
        if top == file.parent and top.name.lower() in ("annotations", "labels"):
            top = top.parent
        stem = file.stem.rpartition("instances_")[2]
        part = names.part(file.stem) or names.part(file.parent.name) or stem
        below = ("images", "data", stem, part, f"images/{stem}", f"images/{part}", "JPEGImages")
        places = [*(file.parent / name for name in below[:2]), file.parent, *(top / name for name in below), top]
        places = [place for place in dict.fromkeys(places) if place.is_dir()] or [file.parent]
    sample = [name for name in found[:LOOKED_AT] if not os.path.isabs(name) and ".." not in name.split("/")]  # noqa: PTH117
    folders = {place: names.Folder(place) for place in places}
    hits = {place: sum(_there(place, name) for name in sample) for place in places}
    if not any(hits.values()) and len(places) > 1:
        hits = {place: sum(_there(place, folders[place].find(name)) for name in sample) for place in places}
    best = max(places, key=lambda place: hits[place])
    return best, [folders[best].find(name) for name in found]


def _there(folder: Path, name: str) -> bool:
    return os.path.lexists(folder / name)


def part_of(file: Path, root: Path) -> str | None:
    """Return the part that the COCO `file` of the data set in the folder `root` is of, by its name or its folder's."""
    return names.part(file.stem) or (names.part(file.parent.name) if file.parent != root else None)


def merged(sets: Sequence[DataSet], files: Sequence[Path], root: Path) -> DataSet:
    """Return the `sets` that were read from `files` as one below `root`, a part for each file or folder that names one.

    Images are called by their path below `root`; ids stay where no two images, or two categories, share one.
    """
    images: list[Image] = []
    parts: dict[str, list[str]] = {}
    licences: list[dict[str, Any]] = []
    for data, file in zip(sets, files, strict=True):
        own = [replace(image, file_name=_below(data.path(image), root)) for image in data.images]
        part = part_of(file, root)
        if part:
            parts.setdefault(part, []).extend(image.file_name for image in own)
        images += licensed(own, data.licences, licences)
    first: dict[str, int | str] = {}
    for data in sets:
        for name in data.categories:
            if name in data.category_ids:
                first.setdefault(name, data.category_ids[name])
    return DataSet(
        folder=root,
        images=tuple(images),
        categories=tuple(dict.fromkeys(name for data in sets for name in data.categories)),
        licences=tuple(licences),
        info=next((data.info for data in sets if data.info), {}),
        parts={name: tuple(members) for name, members in parts.items()},
        category_ids=first if all(first.get(n, k) == k for d in sets for n, k in d.category_ids.items()) else {},
    )


def _below(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else path.as_posix()


def licensed(images: Sequence[Image], given: Sequence[dict[str, Any]], licences: list[dict[str, Any]]) -> list[Image]:
    """Return `images` with the numbers that their `given` licences have among `licences`; new ones are added there."""
    numbers: dict[str, Any] = {}
    for entry in given:
        said = {key: value for key, value in entry.items() if key != "id"}
        same = [old for old in licences if {key: value for key, value in old.items() if key != "id"} == said]
        if not same:
            same = [{"id": len(licences) + 1, **said}]
            licences += same
        numbers[str(entry.get("id"))] = same[0]["id"]
    return [
        replace(image, extra=image.extra | {"license": numbers[str(image.extra["license"])]})
        if "license" in image.extra and str(image.extra["license"]) in numbers
        else image
        for image in images
    ]
