"""`evaluate steps`: is the output of few steps within the spread of the teacher's seeds?

Every measure of few steps is given with the teacher's over several seeds. Few-step models lose diversity first, so
recall and coverage are measured; a Fréchet distance, which may fall meanwhile, is not.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from scipy.stats import t

from ..bethesda import NILM
from ..cell.edit import CellEditor
from ..cell.quality import morphology
from ..cell.quality.gate import CellClassifier
from ..cell.quality.seam import border_ratio
from ..config import pin
from ..data import image_files, sources
from ..data.image_files import Pixels
from ..errors import UserError
from ..evaluate import distance, sheet
from ..evaluate.cells import agreement, comparison, patches
from ..evaluate.cells.evaluate import chosen
from ..evaluate.cells.patches import CellPatch
from ..evaluate.cells.recipe import Editing
from ..evaluate.networks.extractor import Extractor
from ..evaluate.networks.features import cached
from ..evaluate.statistics import Estimate, estimates
from ..io import atomic, lock
from ..io.progress import meter
from ..io.report import Report
from ..normal import regions
from ..normal.generate import NormalImageGenerator
from ..provenance import png
from .steps_recipe import StepsRecipe

Better = Literal["lower", "higher", "same"]
REAL, TEACHER = "real images", "the teacher"
NEIGHBOURS, DRAWS, SHOWN = 5, 200, 6
NOTES = (
    "teacher: mean over its seeds, all its steps; spread: where another seed of it would lie with 95 % (Student's t)",
    "yes: within that spread, or better where there is a better; no: the quality does not hold at that many steps",
    "against the teacher: distances to the images of its first seed, beside those of its other seeds to the same",
    "[low, high]: of a kernel distance the middle 95 % of 100 subsets of half the images, else 95 % under resampling "
    "of whole images",
    "recall and coverage: shares of the reference inside 5-nearest-neighbour balls; few steps lose these first",
    "the classifier must not have had a part in training or choosing; synthetic cells are not for diagnosis",
)


class Measure(NamedTuple):
    """One number about one set of images: of which stage, against what, and which direction is better."""

    stage: str
    name: str
    against: str
    better: Better
    value: Estimate


@dataclass
class Models:
    """Teacher and student of each stage that is measured, and what measures.

    Attributes:
        extractor: feature network.
        normal: generator of all steps and of few; None: stage 1 is not measured.
        cell: the same of the synthesizer.
        classifier: one that had no part in the edits; None: no agreement is measured.
    """

    extractor: Extractor
    normal: tuple[NormalImageGenerator, NormalImageGenerator] | None = None
    cell: tuple[CellEditor, CellEditor] | None = None
    classifier: CellClassifier | None = None

    def digests(self) -> dict[str, str]:
        """Return the weights' hash of each."""
        pairs: dict[str, tuple[Any, Any] | None] = {"normal": self.normal, "cell": self.cell}
        return {
            f"{kind}{role}": part.digest
            for role, pair in pairs.items() if pair for kind, part in zip(("", "fast_"), pair, strict=True)
        }  # fmt: skip


@dataclass
class Found:
    """The measures of each set of images: of the teacher by seed, of few steps by their number."""

    teacher: list[list[Measure]] = field(default_factory=list)
    few: dict[int, list[Measure]] = field(default_factory=dict)


def evaluate_steps(recipe: StepsRecipe, models: Models, data_root: Path, out: Path) -> Report:
    """Generate, measure, and write `steps` and `all` (.json, .md, .csv), `normal.png` and `cell.png` into `out`.

    Images are stored there and not made again. Raises UsageError if `out` has other settings or models, UserError if
    the real images have no normal window or no cell to edit.
    """
    if models.cell:
        recipe = recipe.model_copy(update={"cell": models.cell[0].settled(recipe.cell, real=True)})
    if models.normal:
        recipe = recipe.model_copy(update={"normal": models.normal[0].settled(recipe.normal)})
    recipe = recipe.model_copy(update={"models": models.digests()})
    with lock.run(out, "steps.yaml"):
        pin(recipe, out / "steps.yaml")
        found = []
        if models.normal:
            found.append(_normal(recipe, models.normal, models.extractor, data_root, out))
        if models.cell:
            found.append(_cell(recipe, models.cell, models, data_root, out))
        apart = {"models"} if recipe.samplers else {"models", "samplers"}
        facts = {
            **recipe.model_dump(mode="json", exclude=apart), "models": recipe.models,
            "features": f"{models.extractor.name} {models.extractor.digest}",
            "classifier": getattr(models.classifier, "digest", "none"),
        }  # fmt: skip
        everything = [row for one in found for row in _rows(one)]
        _all(everything, facts).write(out, "all")
        report = _table(everything, recipe, facts)
        report.write(out, "steps")
    return report


def _sets(recipe: StepsRecipe) -> Iterator[tuple[str, int, int | None]]:
    """Yield folder, seed and few steps (None: the teacher's) of each set of images, the teacher's first seed first."""
    for number in range(recipe.seeds):
        yield f"teacher-{recipe.seed + number}", recipe.seed + number, None
    for steps in recipe.steps:
        yield f"steps-{steps}", recipe.seed + recipe.seeds, steps


def _normal(
    recipe: StepsRecipe,
    pair: tuple[NormalImageGenerator, NormalImageGenerator],
    extractor: Extractor,
    data_root: Path,
    out: Path,
) -> Found:
    samples = sources.load([recipe.real], data_root)
    real = regions.windows(samples, recipe.normal.size, recipe.windows)
    if not real:
        raise UserError(f"{recipe.real.root}: no normal window of {recipe.normal.size} pixels; lower --window")
    against: dict[str, np.ndarray] = {REAL: cached(extractor, real, out / "features")}
    found, shown = Found(), list[tuple[Pixels, str]]()
    for name, seed, steps in _sets(recipe):
        settings = recipe.normal if steps is None else recipe.normal.model_copy(update=recipe.few("normal", steps))
        images = []
        with meter(f"windows, {name}", recipe.windows) as bar:
            for index in range(recipe.windows):
                path = out / "normal" / name / f"{index:05d}.png"
                if not path.exists():
                    pixels = pair[steps is not None].field(seed, index, settings)
                    atomic.write_bytes(path, png(pixels, {"origin": "synthetic", "seed": seed, "key": index}))
                images.append(image_files.read(path))
                bar.advance()
        features = cached(extractor, images, out / "features")
        _put(found, steps, list(_distances("normal", extractor, features, against)))
        against.setdefault(TEACHER, features)
        shown += [(image, name) for image in images[:SHOWN]]
    sheet.write(out / "normal.png", shown, columns=SHOWN)
    return found


def _cell(
    recipe: StepsRecipe, pair: tuple[CellEditor, CellEditor], models: Models, data_root: Path, out: Path
) -> Found:
    real = patches.real(recipe.real, data_root)
    before = chosen([cell for cell in real if cell.category == NILM], recipe.cells, recipe.seed)
    wanted = [cell for cell in real if cell.category in recipe.categories]
    if not wanted:
        raise UserError(f"{recipe.real.root}: no cell of {', '.join(recipe.categories)} to compare with")
    extractor = models.extractor

    def features(cells: Sequence[CellPatch]) -> np.ndarray:
        return cached(extractor, [cell.about(recipe.about) for cell in cells], out / "features")

    against: dict[str, np.ndarray] = {REAL: features(wanted)}
    found, shown = Found(), list[tuple[Pixels, str]]()
    for name, seed, steps in _sets(recipe):
        settings = recipe.cell if steps is None else recipe.cell.model_copy(update=recipe.few("cell", steps))
        editing = Editing(real=recipe.real, seed=seed, cell=settings)
        after: list[CellPatch] = []
        for category in recipe.categories:
            decoded = patches.edited(pair[steps is not None], before, category, editing, out / "cell" / name)
            after += comparison.after_edit(before, decoded, category, settings)
        own = features(after)
        measures = [*_distances("cell", extractor, own, against), *_of_cells(after, models.classifier, recipe)]
        _put(found, steps, measures)
        against.setdefault(TEACHER, own)
        first = [after[number * len(before)] for number in range(len(recipe.categories))]
        shown += [(cell.pixels, f"{name}: {cell.category}") for cell in first]
    sheet.write(out / "cell.png", shown, columns=len(recipe.categories))
    return found


def _put(found: Found, steps: int | None, measures: list[Measure]) -> None:
    if steps is None:
        found.teacher.append(measures)
    else:
        found.few[steps] = measures


def _distances(
    stage: str, extractor: Extractor, features: np.ndarray, against: Mapping[str, np.ndarray]
) -> Iterator[Measure]:
    """Yield kernel distance (x 1000), recall and coverage against each reference that there is."""
    for name, reference in against.items():
        kernel = distance.kid(features, reference)
        value = Estimate(*(1000 * number for number in (kernel.mean, *kernel.interval)))
        yield Measure(stage, f"{extractor.kernel} x 1000", name, "lower", value)
        manifold = distance.prdc(features, reference, NEIGHBOURS)
        yield Measure(stage, "recall", name, "higher", Estimate(manifold.recall))
        yield Measure(stage, "coverage", name, "higher", Estimate(manifold.coverage))


def _of_cells(cells: Sequence[CellPatch], classifier: CellClassifier | None, recipe: StepsRecipe) -> Iterator[Measure]:
    """Yield the share taken for its category, the share with a nucleus, the median nucleus and the mean seam."""
    images = [cell.image for cell in cells]

    def resampled(values: Sequence[float], names: Sequence[str], median: bool = False) -> Estimate:
        numbers, middle = np.asarray(values, float), np.median if median else np.mean
        return estimates(lambda i: [float(middle(numbers[i]))], [names], DRAWS, centred=False)[0]

    if classifier:
        answers = agreement.answers(classifier, [c.pixels for c in cells], [c.box for c in cells], "cells")
        marks = [float(answer == cell.category) for answer, cell in zip(answers, cells, strict=True)]
        yield Measure("cell", "taken for its category, share", "", "higher", resampled(marks, images))
    shapes = [morphology.measure(cell.pixels, cell.box) for cell in cells]
    yield Measure("cell", "nucleus found, share", "", "higher", resampled([s is not None for s in shapes], images))
    for category in recipe.categories:
        kept = [(s.area, c.image) for s, c in zip(shapes, cells, strict=True) if s and c.category == category]
        if kept:
            areas, names = zip(*kept, strict=True)
            value = resampled(areas, names, median=True)
            yield Measure("cell", f"nucleus area of {category}, median, square px", "", "same", value)
    ratios = [border_ratio(cell.pixels, patches.region(cell, recipe.cell)) for cell in cells]
    yield Measure("cell", "border ratio of the region, mean", "", "same", resampled(ratios, images))


class Row(NamedTuple):
    """A measure of the teacher with its spread, and of few steps by their number, each with whether it holds."""

    measure: Measure
    teacher: float
    low: float
    high: float
    few: dict[int, tuple[Estimate, bool]]


def spread(values: Sequence[float]) -> tuple[float, float]:
    """Return where one more of `values` would lie with 95 %: mean ± t s sqrt(1 + 1/n)."""
    numbers = np.asarray(values, float)
    n = len(numbers)
    half = float(t.ppf(0.975, n - 1) * numbers.std(ddof=1) * np.sqrt(1 + 1 / n))
    return float(numbers.mean()) - half, float(numbers.mean()) + half


def holds(value: float, low: float, high: float, better: Better) -> bool:
    """Return whether `value` is within the spread, or better where there is a better."""
    return (better == "lower" or value >= low) and (better == "higher" or value <= high)


def _rows(found: Found) -> list[Row]:
    by_key = [{one[:4]: one.value for one in measures} for measures in found.teacher]
    few = {steps: {one[:4]: one.value for one in measures} for steps, measures in found.few.items()}
    rows = []
    for key in dict.fromkeys(key for one in by_key for key in one):
        values = [one[key].value for one in by_key if key in one]
        if len(values) < 2:
            continue
        low, high = spread(values)
        measure = Measure(*key, Estimate(float(np.mean(values))))
        kept = {
            steps: (one[key], holds(one[key].value, low, high, measure.better))
            for steps, one in few.items() if key in one
        }  # fmt: skip
        rows.append(Row(measure, measure.value.value, low, high, kept))
    return rows


def _table(rows: Sequence[Row], recipe: StepsRecipe, facts: dict[str, Any]) -> Report:
    few = [f"{steps} step{'s' if steps > 1 else ''}" for steps in recipe.steps]
    columns = ("stage", "measure", "against", "better", "teacher", "spread", *few)
    said = tuple(
        (*row.measure[:4], f"{row.teacher:.4g}", f"{row.low:.4g} to {row.high:.4g}",
         *(f"{value}, {'yes' if kept else 'no'}" for value, kept in (row.few[steps] for steps in recipe.steps)))
        for row in rows
        if all(steps in row.few for steps in recipe.steps)
    )  # fmt: skip
    return Report("Few steps compared with the teacher and its seeds", facts, columns, said, NOTES)


def _all(rows: Sequence[Row], facts: dict[str, Any]) -> Report:
    """Return the same numbers one a row, unrounded."""
    columns = ("stage", "measure", "against", "better", "steps", "value", "low", "high", "holds")
    said: list[tuple[str | int | float | None, ...]] = []
    for row in rows:
        said.append((*row.measure[:4], "teacher", row.teacher, row.low, row.high, None))
        for steps, (value, kept) in row.few.items():
            said.append((*row.measure[:4], steps, value.value, value.low, value.high, "yes" if kept else "no"))
    return Report("Few steps compared with the teacher: every value", facts, columns, tuple(said), NOTES)
