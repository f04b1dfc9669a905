"""Finds the cells of one image after another: a detector in this process, or several in others."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

from ..annotations import Cell
from ..data.image_files import Pixels
from .model import Detector


@dataclass(frozen=True)
class Search:
    """An image whose cells are to be found.

    Attributes:
        index: its place among the files.
        name: of its file.
        digest: SHA-256 of that.
        pixels: (height, width, 3) as it is.
        seen: (height, width, 3) at the detector's scale.
    """

    index: int
    name: str
    digest: str
    pixels: Pixels
    seen: Pixels


class Finder(Protocol):
    """Finds cells: a detector in this process, or several in others."""

    @property
    def digest(self) -> str:
        """Of the detector's weights."""
        ...

    @property
    def categories(self) -> tuple[str, ...]:
        """What it finds."""
        ...

    def each(self, searches: Iterable[Search], threshold: float) -> Iterator[tuple[Search, list[Cell]]]:
        """Yield each of `searches` with its cells of at least `threshold`, in any order."""
        ...


@dataclass(frozen=True)
class Here:
    """A detector in this process."""

    detector: Detector

    @property
    def digest(self) -> str:
        """Of the detector's weights."""
        return self.detector.digest

    @property
    def categories(self) -> tuple[str, ...]:
        """What it finds."""
        return self.detector.config.categories

    def each(self, searches: Iterable[Search], threshold: float) -> Iterator[tuple[Search, list[Cell]]]:
        """Yield each of `searches` with its cells of at least `threshold`, in order."""
        for search in searches:
            yield search, self.detector.find(search.seen, threshold)
