"""Common parts of data sets whose images are packed into larger files (WebDataset, Parquet).

Beside the files lies `about.json`, a COCO object without images; each image brings its own: its COCO entry and the
annotations on it, with the ids of the whole set.
"""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

from ...annotations import DataSet, Image
from ...errors import FormatProblem
from ...io import atomic, plain
from .. import file_names, image_files
from . import coco, coco_parts

ABOUT = "about.json"
IMAGES = 1000
"""In one file."""


class Encoder:
    """Gives the images of a data set their ids, in order, and writes each as a COCO entry."""

    def __init__(self, about: DataSet) -> None:
        """Begin the set that `about` describes."""
        self.counter = coco_parts.Counter(about)

    @property
    def count(self) -> int:
        """How many images were encoded."""
        return self.counter.images

    def encode(self, image: Image) -> dict[str, Any]:
        """Return the COCO entry of `image`, and under `annotations` those on it."""
        content = self.counter.encode([image])
        return {**content["images"][0], "annotations": content["annotations"]}


def write_about(about: DataSet, root: Path) -> None:
    """Write the description of the whole set into `root`."""
    atomic.write_json(root / ABOUT, coco.encode(replace(about, images=())))


def read_about(root: Path) -> tuple[DataSet, list[Any]]:
    """Return the description of the whole set in `root`, and its categories in COCO's form."""
    content = plain.load(root / ABOUT)
    return coco.parse(content, root / ABOUT), content["categories"]


def decode(text: bytes, categories: list[Any], where: Path) -> Image:
    """Return the image of the JSON `text` that was found at `where`; raise FormatProblem if it is none."""
    try:
        if len(text) > plain.MAX_SMALL:
            raise ValueError(f"larger than {plain.MAX_SMALL >> 20} MiB")
        entry = plain.from_json(text.decode())
    except ValueError as error:
        raise FormatProblem(f"{where}: not readable JSON ({str(error)[:120]})") from None
    if not isinstance(entry, dict):
        raise FormatProblem(f"{where}: a JSON object is expected, found {type(entry).__name__}")
    image = {key: value for key, value in entry.items() if key != "annotations"}
    content = {"images": [image], "annotations": entry.get("annotations"), "categories": categories}
    (found,) = coco.parse(content, where).images
    reason = file_names.unsafe(found.file_name)
    if reason:
        raise FormatProblem(f"{where}: file name {found.file_name[:200]!r}: {reason}")
    return found


def to_json(entry: dict[str, Any]) -> bytes:
    """Return `entry` as one line of JSON."""
    return json.dumps(entry, ensure_ascii=False, allow_nan=False).encode()


def suffix(file_name: str) -> str:
    """Return the suffix, in small letters, under which an image of this name is packed; raise FormatProblem if none."""
    found = PurePosixPath(file_name).suffix.lower()
    if found not in image_files.SUFFIXES:
        raise FormatProblem(f"{file_name[:200]}: not an image ({', '.join(sorted(image_files.SUFFIXES))})")
    return found


def numbered(root: Path, ending: str) -> Iterator[Path]:
    """Yield the files `000000.ending` ... of `root`; raise FormatProblem if one is missing between others."""
    files = sorted(path for path in root.glob(f"*.{ending}") if path.stem.isdecimal())
    for number, path in enumerate(files):
        if int(path.stem) != number:
            raise FormatProblem(f"{root}: {number:06d}.{ending} is missing, but {path.name} exists")
        yield path
