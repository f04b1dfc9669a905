"""The classification of cells by an independent classifier."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from ...annotations import Box
from ...cell.quality.gate import CellClassifier
from ...data.image_files import Pixels
from ...io.progress import meter

BATCH = 32


class Classified(NamedTuple):
    """A set of cells of one kind with their classification.

    Attributes:
        kind: "real" or "edited".
        category: their category, or the intended one.
        answers: the likeliest class of each.
    """

    kind: str
    category: str
    answers: tuple[str, ...]


def answers(classifier: CellClassifier, windows: Sequence[Pixels], boxes: Sequence[Box], title: str) -> tuple[str, ...]:
    """Return the likeliest class of the cell in each of `boxes` (xyxy) of as many `windows`."""
    found: list[str] = []
    with meter(f"judging {title}", len(windows)) as bar:
        for start in range(0, len(windows), BATCH):
            chosen = slice(start, start + BATCH)
            likely = classifier.probabilities(windows[chosen], boxes[chosen]).argmax(axis=1)
            found += [classifier.classes[int(index)] for index in likely]
            bar.advance(amount=len(likely))
    return tuple(found)


def confusion(classified: Sequence[Classified], classes: Sequence[str]) -> list[tuple[str | int, ...]]:
    """Return a row for each set: kind, category, number, and how many were classified as each of `classes`."""
    rows: list[tuple[str | int, ...]] = []
    for kind, category, given in classified:
        counts: Mapping[str, int] = Counter(given)
        rows.append((kind, category, len(given), *(counts[name] for name in classes)))
    return rows
