"""Findings of a reader on a data set: problems, for which an entry is refused, and corrections, which are counted."""

from collections import Counter
from collections.abc import Callable

from ...errors import FormatProblem

Report = Callable[[str], None]
"""Called for each problem: raises, or records it, and the entry is left out."""
Note = Callable[[str, str], None]
"""Called for each correction with its kind, such as 'boxes clipped to their image', and a line with its place."""

CLIPPED = "boxes clipped to their image"
RENUMBERED = "annotations renumbered"
IGNORED = "files passed over"
CORRECTED = "values left out"


def refuse(problem: str) -> None:
    """Raise FormatProblem with `problem`: the default of readers, unless a `note` is given."""
    raise FormatProblem(problem)


def ignore(_kind: str, _line: str) -> None:
    """Ignore a correction."""


class Corrections:
    """The corrections of a reader by kind: how many, and the first."""

    def __init__(self) -> None:
        """Begin with none."""
        self.counts: Counter[str] = Counter()
        self.first: dict[str, str] = {}

    def __call__(self, kind: str, line: str) -> None:
        """Record a correction."""
        self.counts[kind] += 1
        self.first.setdefault(kind, line)

    def lines(self) -> list[str]:
        """Return a line for each kind: how many there are, and which is the first."""
        return [f"{kind}: {count}, the first {self.first[kind]}" for kind, count in self.counts.items()]
