"""Predictions as COCO results: a list of image_id, category_id, bbox (xywh) and score."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..annotations import Cell
from ..errors import FormatProblem
from ..io import plain, wording


def known(truth: Path | None, names: Sequence[str], categories: Sequence[str]) -> tuple[dict[Any, str], dict[Any, str]]:
    """Return image names and category names by every id that results may use for them."""
    ids: dict[Any, str] = {Path(name).stem: name for name in names} | {name: name for name in names}
    numbers = {f"{number:06d}": name for number, name in enumerate(names, 1)}  # as `written` calls them
    ids = numbers | {f"{number}.png": name for number, name in numbers.items()} | ids
    if truth is None:
        return ids | dict(enumerate(names, 1)), dict(enumerate(categories, 1))
    content = plain.load(truth)
    try:
        ids |= {entry["id"]: entry["file_name"] for entry in content["images"]}
        return ids, {entry["id"]: entry["name"] for entry in content["categories"]}
    except (KeyError, TypeError):
        raise FormatProblem(f"{truth}: results need a data set with COCO annotations, for its ids") from None


def read_results(file: Path, ids: Mapping[Any, str], categories: Mapping[Any, str]) -> dict[str, list[Cell]]:
    """Return the cells of a COCO results file by image name, best first; of unknown categories none.

    Raises FormatProblem, naming the entry, for what is no result, and where no image of it is known.
    """
    try:
        entries = plain.from_json(plain.text(file, plain.MAX_BYTES))
    except (OSError, ValueError) as error:
        raise FormatProblem(f"{file}: not readable COCO results ({str(error)[:120]})") from None
    if not isinstance(entries, list):
        raise FormatProblem(f"{file}: expected a list of COCO results, found {wording.said(entries)}")
    found: dict[str, list[Cell]] = {}
    for number, entry in enumerate(entries):
        try:
            name, category = ids.get(entry["image_id"]), categories.get(entry["category_id"])
            x, y, width, height = (float(value) for value in entry["bbox"])
            score = float(entry["score"])
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise FormatProblem(f"{file}: entry {number}: not a COCO result ({str(error)[:80]})") from None
        if not all(map(math.isfinite, (x, y, width, height))) or not 0 <= score <= 1:
            raise FormatProblem(f"{file}: entry {number}: invalid box or score ({score}; expected 0 to 1)")
        if name is not None and category is not None:
            found.setdefault(name, []).append(Cell((x, y, x + width, y + height), category, score))
    if entries and not found:
        raise FormatProblem(
            f"{file}: no result has an image_id and category_id of these images ({wording.listed(list(ids)[:5])})"
        )
    return {name: sorted(cells, key=lambda cell: -(cell.score or 0)) for name, cells in found.items()}
