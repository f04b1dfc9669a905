"""`evaluate cells`: are edited cells nearer to real cells of their category?

(Section IV-B.2) The paper gives one FID for each category. Here every measure of edited cells is given with that of the
same cells before the edit, without which a distance does not show the effect of the edit, and with that of other real
cells.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...bethesda import NILM
from ...cell.edit import CellEditor
from ...cell.quality import morphology
from ...cell.quality.gate import CellClassifier
from ...cell.quality.morphology import Morphology
from ...cell.quality.seam import border_ratio
from ...cell.settings import EditSettings
from ...config import pin
from ...data import content
from ...data.image_files import Pixels
from ...detection.model import Detector
from ...errors import UsageError, UserError
from ...io import lock
from ...io.progress import meter
from ...io.report import Report
from ...normal.generate import NormalImageGenerator
from .. import sheet
from ..networks.extractor import Extractor
from ..statistics import Estimate
from . import agreement, comparison, histograms, patches, probe
from .agreement import Classified
from .comparison import PROPERTIES, Line, Sides
from .patches import CellPatch
from .recipe import Editing, Measuring

SHOWN = 6
"""Cells of each kind and category on the sheet."""
NOTES = (
    "edited: NILM cells edited into the category; unedited: the same cells before; real: other real cells of the "
    "category, for distances the floor, below which no edit can be expected to get",
    "distances are to held-out real cells of the category, of images that none of the three comes from, at the same n "
    "on every side; blank: too few cells, or too few other images for a floor",
    "nearer: distance of unedited minus edited cells, or share of edited minus unedited; above 0 the edit works",
    "[low, high]: 95 % interval from resampling whole images; for few images the interval itself is uncertain",
    "Fréchet distances of fewer than some thousand images are too high: compare within a row, not with the paper's "
    "1.41, 1.65, 1.19 and 1.35 (ASC-US, ASC-H, LSIL, HSIL), which are of other data, features and numbers",
    "nucleus and cell are found by stain density (quality/morphology.py says how, and when it fails); the N/C ratio "
    "is of the areas of nucleus and whole cell, distances between distributions are Wasserstein's, in their own unit",
    "border ratio: gradient across the border of the edited region over that of lines near it (quality/seam.py); of "
    "real cells at the region that an edit would have; a seam shows as a ratio above that of real cells",
    "the classifier must not have been used in training or selecting the edits; synthetic cells are not for diagnosis",
)


@dataclass
class Models:
    """The models that edit and measure.

    Attributes:
        editor: the Abnormal Cell Synthesizer.
        extractors: feature networks.
        classifier: a classifier that had no part in the edits; None: no agreement is measured.
        generator: generates the fields whose cells are edited; None: cells of the real images are.
        detector: finds NILM cells in those fields.
    """

    editor: CellEditor
    extractors: Sequence[Extractor]
    classifier: CellClassifier | None = None
    generator: NormalImageGenerator | None = None
    detector: Detector | None = None

    def digests(self) -> dict[str, str]:
        """Return the weights' hash of each model that the pixels depend on."""
        parts: dict[str, Any] = {"cell": self.editor, "normal": self.generator, "detector": self.detector}
        return {role: part.digest for role, part in parts.items() if part}


def evaluate_cells(editing: Editing, how: Measuring, models: Models, data_root: Path, out: Path) -> list[Report]:
    """Edit, compare, and write the tables (.json, .md, .csv), `morphology.png` and `cells.png`.

    The tables are `cells`, `all`, `cells_probe` and, with a classifier, `confusion`; all except `all` are returned, in
    this order. Edited patches are stored in `out/edited` and not edited again. Raises UsageError if `out` has other
    settings, models or real images, UserError if there is no NILM cell to edit or no real cell of a category.
    """
    if models.classifier and set(how.categories) - set(models.classifier.classes):
        raise UsageError(
            f"the classifier knows {', '.join(models.classifier.classes)}, not all of {', '.join(how.categories)}"
        )
    cell = models.editor.settled(editing.cell, real=models.generator is None)
    normal = models.generator.settled(editing.normal) if models.generator else editing.normal
    editing = editing.model_copy(
        update={"cell": cell, "normal": normal, "models": models.digests(), "fields": models.generator is not None}
    )
    with lock.run(out, "editing.yaml"):
        pin(editing, out / "editing.yaml")
        real = patches.real(editing.real, data_root)
        content.pinned({"images": content.of_keys(map(patches.identity, real))}, out)
        lacking = [name for name in how.categories if name not in {cell.category for cell in real}]
        if lacking:
            raise UserError(f"{data_root / editing.real.root}: no {lacking[0]} cell in part '{editing.real.split}'")
        before = chosen(candidates(real, editing, how, models, out), how.count, editing.seed)
        decoded = {
            name: patches.edited(models.editor, before, name, editing, out / "edited") for name in how.categories
        }
        after = {name: comparison.after_edit(before, decoded[name], name, cell) for name in how.categories}
        found = [comparison.sides(name, before, after[name], real, editing.seed) for name in how.categories]
        real = [cell for cell in real if cell.category in (NILM, *how.categories)]
        asked = [cell for cell in real if cell.category != NILM]
        compared = [*asked, *before, *(c for cells in after.values() for c in cells)]
        shapes = _look_up(_measured, compared)
        ratios = _look_up(lambda cells: _border_ratios(cells, cell), compared)
        answers = _classified(models.classifier, real, before, after)
        lines = []
        for sides in found:
            for extractor in models.extractors:
                lines += comparison.feature_distances(sides, extractor, out / "features", how)
            if models.classifier:
                lines.append(comparison.agreement_line(sides, _of(sides, answers), how))
            lines += comparison.morphology_lines(sides, _of(sides, shapes), how)
            lines.append(comparison.seam_line(sides, _of(sides, ratios), how))
            lines += comparison.background_lines(sides.category, before, decoded[sides.category], cell)
        facts = _facts(editing, how, models, real, before)
        reports = [_table(lines, facts)]
        reports[0].write(out, "cells")
        _everything(lines, facts).write(out, "all")
        told = probe.sets(before, after, asked, models.editor, editing, out)
        reports.append(probe.table(told, models.extractors, out / "features", how, facts))
        reports[1].write(out, "cells_probe")
        if models.classifier:
            reports.append(_confusion(models.classifier, how, real, after, answers, facts))
            reports[2].write(out, "confusion")
        _histograms(found, shapes, out / "morphology.png")
        _sheet(found, how.window, out / "cells.png")
    return reports


def candidates(
    real: Sequence[CellPatch], editing: Editing, how: Measuring, models: Models, out: Path
) -> list[CellPatch]:
    """Return the NILM cells that may be edited: of generated fields if there is a generator, else real ones."""
    if models.generator is None:
        return [cell for cell in real if cell.category == NILM]
    assert models.detector is not None, "cells of generated fields are found by a detector"
    return patches.generated(models.generator, models.detector, how.fields, editing, out / "fields")


def chosen(cells: Sequence[CellPatch], count: int, seed: int) -> list[CellPatch]:
    """Return `count` of `cells` at random; a larger count adds to those of a smaller one. UserError for none."""
    if not cells:
        raise UserError("no NILM cell to edit: neither annotated in the real images nor detected in generated fields")
    order = np.random.default_rng([seed, 3]).permutation(len(cells))
    return [cells[index] for index in order[:count]]


def _measured(cells: Sequence[CellPatch]) -> list[Morphology | None]:
    found = []
    with meter("measuring nuclei", len(cells)) as bar:
        for cell in cells:
            found.append(morphology.measure(cell.pixels, cell.box))
            bar.advance()
    return found


def _border_ratios(cells: Sequence[CellPatch], settings: EditSettings) -> list[float]:
    found = []
    with meter("measuring borders", len(cells)) as bar:
        for cell in cells:
            found.append(border_ratio(cell.pixels, patches.region(cell, settings)))
            bar.advance()
    return found


def _classified(
    classifier: CellClassifier | None,
    real: Sequence[CellPatch],
    before: Sequence[CellPatch],
    after: dict[str, list[CellPatch]],
) -> dict[int, str]:
    if classifier is None:
        return {}
    everything = [*real, *before, *(cell for cells in after.values() for cell in cells)]
    return _look_up(
        lambda cells: agreement.answers(classifier, [c.pixels for c in cells], [c.box for c in cells], "cells"),
        everything,
    )


def _look_up(answer: Callable[[Sequence[CellPatch]], Sequence[Any]], cells: Sequence[CellPatch]) -> dict[int, Any]:
    """Return the result of `answer` for each of `cells`, by identity: a cell in several sets is classified once."""
    once = list({id(cell): cell for cell in cells}.values())
    return dict(zip(map(id, once), answer(once), strict=True))


def _of(sides: Sides, known: dict[int, Any]) -> dict[str, Any]:
    return {
        side: [known[id(cell)] for cell in getattr(sides, side)]
        for side in ("edited", "unedited", "reference", "other")
    }


def _facts(
    editing: Editing, how: Measuring, models: Models, real: Sequence[CellPatch], before: Sequence[CellPatch]
) -> dict[str, Any]:
    return {
        "real": editing.real.root, "part": editing.real.split, "scale": editing.real.scale, "seed": editing.seed,
        "edited_cells": len(before), "of": "generated fields" if models.generator else "the real images",
        "real_cells": {name: sum(cell.category == name for cell in real) for name in (NILM, *how.categories)},
        "window": how.window, "resamplings": how.draws, "cell": editing.cell.model_dump(),
        "models": editing.models, "extractors": {extractor.name: extractor.digest for extractor in models.extractors},
        "classifier": getattr(models.classifier, "digest", "none"),
    }  # fmt: skip


def _table(lines: Sequence[Line], facts: dict[str, Any]) -> Report:
    columns = ("category", "quantity", "n", "edited", "unedited", "real", "nearer")
    rows = tuple((line.category, line.quantity, line.n, *map(_said, line[3:])) for line in lines)
    return Report("Edited and real cells", facts, columns, rows, NOTES)


def _said(value: Estimate | None) -> str | None:
    return None if value is None else "infinite" if math.isinf(value.value) else str(value)


def _everything(lines: Sequence[Line], facts: dict[str, Any]) -> Report:
    """Return the same numbers one a row, unrounded."""
    rows = []
    for line in lines:
        for side, value in zip(Line._fields[3:], line[3:], strict=True):
            if value is not None:
                number = "infinite" if math.isinf(value.value) else value.value
                rows.append((line.category, line.quantity, line.n, side, number, value.low, value.high))
    columns = ("category", "quantity", "n", "of", "value", "low", "high")
    return Report("Edited and real cells: every value", facts, columns, tuple(rows), NOTES)


def _confusion(
    classifier: CellClassifier,
    how: Measuring,
    real: Sequence[CellPatch],
    after: dict[str, list[CellPatch]],
    answers: dict[int, str],
    facts: dict[str, Any],
) -> Report:
    sets = [("real", name, [cell for cell in real if cell.category == name]) for name in (NILM, *how.categories)]
    sets += [("edited", name, cells) for name, cells in after.items()]
    classified = [Classified(kind, name, tuple(answers[id(cell)] for cell in cells)) for kind, name, cells in sets]
    columns = ("cells", "category, or target category", "n", *(f"taken for {name}" for name in classifier.classes))
    rows = tuple(agreement.confusion(classified, classifier.classes))
    return Report("How an independent classifier classifies the cells", facts, columns, rows, NOTES[-1:])


def _histograms(found: Sequence[Sides], shapes: dict[int, Morphology | None], path: Path) -> None:
    panels = []
    for sides in found:
        sets = {"real": sides.reference + sides.other, "unedited": sides.unedited, "edited": sides.edited}
        for key, title in PROPERTIES.items():
            values = {
                name: [getattr(shapes[id(c)], key) for c in cells if shapes[id(c)]] for name, cells in sets.items()
            }
            panels.append((f"{sides.category}: {title}", values))
    histograms.write(path, panels, columns=len(PROPERTIES))


def _sheet(found: Sequence[Sides], window: int, path: Path) -> None:
    """Write for each category a row of real cells, one of cells before the edit, and one of the same after it."""
    tiles: list[tuple[Pixels, str]] = []
    times = max(1, sheet.SIDE // window)
    for sides in found:
        for cells, caption in (
            (sides.reference + sides.other, f"real {sides.category}"),
            (sides.unedited, "the NILM cell before"),
            (sides.edited, f"made into {sides.category} (synthetic)"),
        ):
            row = [
                (np.kron(cell.about(window), np.ones((times, times, 1), np.uint8)), caption) for cell in cells[:SHOWN]
            ]
            blank = np.full((sheet.SIDE, sheet.SIDE, 3), 255, np.uint8)
            tiles += row + [(blank, "")] * (SHOWN - len(row))
    sheet.write(path, tiles, columns=SHOWN)
