"""The one place where cells of data sets of any format are created and their boxes checked."""

import math
from collections.abc import Mapping
from typing import Any

from ... import boxes
from ...annotations import Box, Cell
from ...io import plain
from ...io.wording import said
from . import findings
from .findings import Note

LARGEST = 1e9
"""Maximum size or coordinate of an image, pixels."""
LONGEST = 1000
"""Maximum length of a name, which messages repeat."""


def make(
    box: Box,
    category: str,
    score: float | None = None,
    extra: Mapping[str, Any] | None = None,
    *,
    size: tuple[int, int],
    where: str,
    note: Note = findings.ignore,
) -> Cell:
    """Return a cell whose box is finite, has an area, and lies inside its image of `size` (width, height).

    A box that passes the border with less than half of its area is clipped, and `note` receives `where`.
    Raises ValueError saying why for any other, and for a score that is not finite.
    """
    if score is not None and not math.isfinite(score):
        raise ValueError(f"score {score} is not finite")
    inside, clipped = boxes.fitted(box, *size)
    extra = dict(extra or {})
    if clipped:
        note(findings.CLIPPED, f"{where}: {boxes.quoted(box)} in {size[0]}x{size[1]}")
        extra.pop("area", None)
    return Cell(inside, category, score, extra)


def number(value: Any) -> float:
    """Return the number `value` of pixels, which may be NaN; raise ValueError for what no image has."""
    try:
        result = float(value)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"a number is expected, found {said(value)}") from None
    if abs(result) > LARGEST:
        raise ValueError(f"{result:g} is beyond {LARGEST:g} pixels")
    return result


def name(value: Any) -> str:
    """Return the name `value` of a category or image; raise ValueError if it is none."""
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str):
        raise ValueError(f"a name is expected, found {said(value)}")
    if not value or plain.CONTROL.search(value) or len(value) > LONGEST:
        raise ValueError(f"the name {said(value)} is empty, too long, or has control characters")
    return value


def category(value: Any) -> str:
    """Return the name `value` of a category; raise ValueError if it is none that every format keeps apart."""
    found = name(value)
    if found != found.strip():
        raise ValueError(f"the name {said(value)} begins or ends with a space")
    return found


def reason(error: Exception) -> str:
    """Return in a few words the problem of an entry that raised `error`."""
    return f"no {error}" if isinstance(error, KeyError) else str(error)[:160]
