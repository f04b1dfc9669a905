"""Detectors of other programs: predictions as a COCO results file, or a command that makes one.

    results:FILE.json           COCO results: [{"image_id", "category_id", "bbox": [x, y, width, height], "score"}, ...]
    command:PROGRAM {images} {annotations} {results}

An image_id is the image's id or its file name, with or without suffix; a category_id is COCO's. A command gets a folder
of PNG images, a COCO file that names them and the categories, without cells, and where to write its results. Words in
braces are replaced; no shell is involved. `{train}` is, where a detector is to be trained, a COCO data set to train on,
and `{seed}` the seed of that training.
"""

import hashlib
import shlex
import subprocess
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ..annotations import Cell, DataSet, Image
from ..data.formats import coco
from ..data.image_files import Pixels
from ..data.preview import save_png
from ..data.sources import Sample
from ..devices import available
from ..errors import UsageError, UserError
from ..io import plain
from ..io.bundled import model_folder
from ..io.progress import meter
from . import model
from .results import known, read_results

RESULTS, COMMAND = "results:", "command:"
TRAINS = ("train", "images", "results")
"""Placeholders that a training command must contain."""
Named = tuple[str, Pixels]
"""An image's name in its set, and its pixels."""


class Finder(Protocol):
    """Anything that finds cells.

    Attributes: digest: identifies it. categories: those it finds; none: those of the data.
    """

    @property
    def digest(self) -> str: ...  # noqa: D102

    @property
    def categories(self) -> tuple[str, ...]: ...  # noqa: D102

    def find_all(self, images: Iterable[Named], count: int, threshold: float, condition: str) -> list[list[Cell]]:
        """Return the cells in each of `count` `images`, of score `threshold` or more.

        `condition` names what was done to the images: 'clean', or a variation and its strength.
        """
        ...


class OwnDetector:
    """A detector of this program."""

    def __init__(self, detector: model.Detector) -> None:
        """Use `detector` where it is."""
        self.detector, self.digest, self.categories = detector, detector.digest, detector.config.categories

    @classmethod
    def load(cls, folder: Path, device: str = "cpu") -> "OwnDetector":
        """Load the detector in `folder`."""
        detector = model.load(folder)
        detector.network.to(available(device))
        return cls(detector)

    def find_all(self, images: Iterable[Named], count: int, threshold: float, condition: str) -> list[list[Cell]]:
        """Return the cells in each image."""
        found = []
        with meter(f"detecting ({condition})", count) as bar:
            for _, pixels in images:
                found.append(self.detector.find(pixels, threshold))
                bar.advance()
        return found


@dataclass(frozen=True)
class ResultsFile:
    """Predictions that were made before.

    Attributes:
        path: a COCO results file of the images as they are; or a folder with one file a condition, `defocus-3.json`.
        truth: the COCO annotations whose ids the results use; None: ids count the images from 1.
        scale: factor between the images of `truth` and those that are asked for.
        categories: of the results.
    """

    path: Path
    truth: Path | None
    scale: float
    categories: tuple[str, ...]

    @property
    def digest(self) -> str:
        """Of the file, or of the names and contents of the folder's files."""
        if not self.path.is_dir():
            return hashlib.sha256(self.path.read_bytes()).hexdigest()[:16]
        found = hashlib.sha256()
        for file in sorted(self.path.glob("*.json")):
            found.update(f"{file.name} {hashlib.sha256(file.read_bytes()).hexdigest()} ".encode())
        return found.hexdigest()[:16]

    def find_all(self, images: Iterable[Named], count: int, threshold: float, condition: str) -> list[list[Cell]]:
        """Return what the file of `condition` holds for each image; raise UserError if there is none for it."""
        file = self.path / f"{condition}.json" if self.path.is_dir() else self.path
        if not self.path.is_dir() and condition != "clean":
            raise UserError(
                f"{self.path}: predictions for clean images only; for '{condition}' give a folder of results"
            )
        names = [name for name, _ in images]
        ids, categories = known(self.truth, names, self.categories)
        found = read_results(file, ids, categories)
        return [[c.scaled(self.scale) for c in found.get(name, []) if (c.score or 0) >= threshold] for name in names]


@dataclass(frozen=True)
class ExternalCommand:
    """A command that predicts.

    Attributes:
        words: program and arguments.
        categories: given to it.
    """

    words: tuple[str, ...]
    categories: tuple[str, ...]

    @property
    def digest(self) -> str:
        """Of the words; the files that they name are not read."""
        return hashlib.sha256("\0".join(self.words).encode()).hexdigest()[:16]

    def find_all(self, images: Iterable[Named], count: int, threshold: float, condition: str) -> list[list[Cell]]:
        """Run the command on the images; raise UserError if it fails or leaves no results."""
        with tempfile.TemporaryDirectory() as folder:
            data = written(images, count, self.categories, Path(folder) / "data")
            found = run(self.words, data, Path(folder), self.categories)
        return [[cell for cell in cells if (cell.score or 0) >= threshold] for cells in found]


@dataclass(frozen=True)
class TrainedCommand:
    """A command that trains a detector and predicts with it.

    Attributes:
        words: program and arguments, with `{train}`, `{images}` and `{results}`.
        train: images to train on, with their cells.
        categories: that are detected.
        seed: of the training.
        steps: optimiser steps that our detectors would take.
    """

    words: tuple[str, ...]
    train: Sequence[Sample]
    categories: tuple[str, ...]
    seed: int
    steps: int

    @property
    def digest(self) -> str:
        """Of the words and the seed."""
        return hashlib.sha256("\0".join((*self.words, str(self.seed))).encode()).hexdigest()[:16]

    def find_all(self, images: Iterable[Named], count: int, threshold: float, condition: str) -> list[list[Cell]]:
        """Train, then return what is found in each image; raise UserError if the command fails."""
        with tempfile.TemporaryDirectory() as folder:
            work = Path(folder)
            named = ((sample.name, sample.pixels) for sample in self.train)
            cells = [sample.cells for sample in self.train]
            train = written(named, len(self.train), self.categories, work / "train", cells)
            data = written(images, count, self.categories, work / "data")
            more = {"train": str(train.folder.parent), "seed": str(self.seed), "steps": str(self.steps)}
            found = run(self.words, data, work, self.categories, more)
        return [[cell for cell in cells if (cell.score or 0) >= threshold] for cells in found]


def load(
    said: str, categories: Sequence[str], device: str = "cpu", truth: Path | None = None, scale: float = 1.0
) -> Finder:
    """Return the detector given as `said`: 'bundled', a folder of ours, `results:FILE` or `command:...`.

    Args:
        said: what the user gave.
        categories: of the data, given to an external detector.
        device: for ours.
        truth: the COCO annotations whose ids a results file uses.
        scale: factor that brings the images of `truth` to those that are asked for.
    """
    if said.startswith(RESULTS):
        path = Path(said.removeprefix(RESULTS))
        if not path.exists():
            raise UserError(f"{path}: no such file or folder of COCO results")
        return ResultsFile(path, truth, scale, tuple(categories))
    if said.startswith(COMMAND):
        return ExternalCommand(words(said, ("images", "results")), tuple(categories))
    return OwnDetector.load(model_folder(said, "detector"), device)


def words(said: str, needed: Sequence[str]) -> tuple[str, ...]:
    """Return the words of `command:...`; raise UsageError if it does not name what it needs in braces."""
    try:
        found = tuple(shlex.split(said.removeprefix(COMMAND)))
    except ValueError as error:
        raise UsageError(f"{said[:80]}: {error}") from None
    missing = [name for name in needed if not any(f"{{{name}}}" in word for word in found)]
    if not found or missing:
        raise UsageError(f"{said[:80]}: the command must name {{{missing[0] if missing else needed[0]}}}")
    return found


def written(
    images: Iterable[Named],
    count: int,
    categories: Sequence[str],
    folder: Path,
    cells: Sequence[Sequence[Cell]] | None = None,
) -> DataSet:
    """Write `images` as PNG with a COCO file of their `cells` into `folder`; ids count from 1 in their order."""
    entries = []
    with meter("writing images", count) as bar:
        for number, (_, pixels) in enumerate(images, 1):
            name = f"{number:06d}.png"
            save_png(pixels, folder / "images" / name)
            own = () if cells is None else tuple(c for c in cells[number - 1] if c.category in categories)
            entries.append(Image(name, pixels.shape[1], pixels.shape[0], own))
            bar.advance()
    data = DataSet(folder / "images", tuple(entries), tuple(categories))
    coco.write(data, folder)
    return data


def run(
    command: Sequence[str], data: DataSet, work: Path, categories: Sequence[str], more: Mapping[str, str] | None = None
) -> list[list[Cell]]:
    """Run the `command` on the images of `data`, with `more` words to replace; return the cells of each.

    Raises UserError if it fails, with the last line that it said, or where its results cannot be read.
    """
    results = work / "results.json"
    values = {
        "images": str(data.folder), "annotations": str(data.folder.parent / coco.FILE), "results": str(results),
        **(more or {}),
    }  # fmt: skip
    filled = [_filled(word, values) for word in command]
    try:
        done = subprocess.run(filled, capture_output=True, text=True, errors="replace", check=False)
    except OSError as error:
        raise UserError(f"{command[0]}: cannot be started ({error.strerror})") from None
    if done.returncode:
        last = (done.stderr.strip() or done.stdout.strip() or "it said nothing").splitlines()[-1]
        raise UserError(f"{command[0]}: failed with exit code {done.returncode}: {plain.one_line(last)[:200]}")
    if not results.exists():
        raise UserError(f"{command[0]}: wrote no results to {{results}}")
    names = [image.file_name for image in data.images]
    found = read_results(results, *known(None, names, categories))
    return [found.get(name, []) for name in names]


def _filled(word: str, values: Mapping[str, str]) -> str:
    for name, value in values.items():
        word = word.replace(f"{{{name}}}", value)
    return word
