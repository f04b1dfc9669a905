"""Scoring the controlled test: recall by class, place, size and condition; rank correlation with real images."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import spearmanr

from ..annotations import Cell
from ..config import pin
from ..data import image_files
from ..data.sources import Sample
from ..detection.external import Finder
from ..errors import UserError
from ..evaluate.statistics import Estimate, estimates, interval, resamples
from ..io import lock, plain
from ..io.report import Report, Value
from ..provenance import said
from ..synthesis.pipeline import Pipeline
from .controlled import KEY, ControlledRecipe, make, outcomes
from .predictions import predicted
from .recipe import RobustnessRecipe

FACTORS = ("category", "place", "size", "condition")
NOTE = (
    "this measures detectors on cells of the generator, not of patients: it shows which detector responds to a class, "
    "place or size under control, but not how many real cells it misses"
)


def controlled(
    recipe: ControlledRecipe,
    detectors: Mapping[str, Finder],
    pipeline: Callable[[], Pipeline],
    run: Path,
    real: Path | None = None,
) -> list[Report]:
    """Make the test in the folder `run`, or continue with it, and score `detectors` on it.

    Writes `controlled` and, with `real` (the folder of a run of `evaluate robustness` of the same detectors), the
    `correlation` with real images.
    """
    with lock.run(run, "recipe.yaml"):
        pin(recipe, run / "recipe.yaml")
        built = pipeline()
        records = make(recipe, built, run / "set")
        if not any("category" in record[KEY] for record in records):
            raise UserError(
                f"{run}: no normal cell was found in {recipe.fields} fields; generate more fields, or lower threshold"
            )
        rows = {name: _rows(recipe, finder, records, run, name) for name, finder in detectors.items()}
        reports = [_table(recipe, rows, built.models())]
        reports[0].write(run, "controlled")
        if real:
            reports.append(_correlation(rows, real, recipe))
            reports[1].write(run, "correlation")
    return reports


def _rows(
    recipe: ControlledRecipe, finder: Finder, records: Sequence[Mapping[str, Any]], run: Path, name: str
) -> list[dict[str, Any]]:
    """Return the outcome of every edit under every condition."""
    samples = []
    for record in records:
        path = run / "set" / "images" / record["file_name"]
        cells = tuple(Cell((c[0], c[1], c[2], c[3]), "") for c in record[KEY].get("targets", {}).values())
        samples.append(Sample(record["file_name"], "controlled", image_files.read(path), cells))
    settings = RobustnessRecipe.model_validate({"data": {"root": "set"}, "mpp": recipe.mpp, "seed": recipe.seed})
    rows: list[dict[str, Any]] = []
    for condition in recipe.conditions:
        made = predicted(finder, samples, condition, settings, run / "predictions" / name / f"{condition}.json")
        _, found = made.cells()
        by_name = dict(zip((sample.name for sample in samples), found, strict=True))
        rows += [row | {"condition": condition} for row in outcomes(records, by_name, recipe.threshold)]
    return rows


def _table(
    recipe: ControlledRecipe, rows: Mapping[str, Sequence[Mapping[str, Any]]], models: Mapping[str, str]
) -> Report:
    table: list[tuple[Value, ...]] = []
    for name, found in rows.items():
        for factor in FACTORS:
            for value in dict.fromkeys(row[factor] for row in found):
                clean = factor == "condition"
                part = [r for r in found if r[factor] == value and (clean or r["condition"] == recipe.conditions[0])]
                table.append((name, factor, str(value), len(part), *(str(e) for e in shares(part, recipe))))
    columns = ("detector", "factor", "value", "edits", "found after", "found before", "right pairs", "right class")
    notes = (
        NOTE,
        f"factors but the condition: under '{recipe.conditions[0]}' alone; found: an abnormal detection of score "
        f"{recipe.threshold:g} or more over the middle of the cell; right pair: not before, but after",
        f"95 % intervals from {recipe.draws} bootstrap resamples of whole fields",
    )
    return Report("Controlled synthetic test", {"fields": recipe.fields, "seed": recipe.seed, **models}, columns,
                  tuple(table), notes)  # fmt: skip


def shares(rows: Sequence[Mapping[str, Any]], recipe: ControlledRecipe) -> list[Estimate]:
    """Return shares of `rows` found after, found before, right in both, and of the right class, with intervals."""
    rows = sorted(rows, key=lambda row: str(row["field"]))
    values = np.array(
        [(r["after"], r["before"], r["after"] and not r["before"], r["named"]) for r in rows], dtype=np.float64
    )
    fields = [row["field"] for row in rows]
    return estimates(lambda chosen: values[chosen].mean(axis=0), [fields], recipe.draws, recipe.seed, centred=False)


def _correlation(rows: Mapping[str, Sequence[Mapping[str, Any]]], real: Path, recipe: ControlledRecipe) -> Report:
    """Return the rank correlation between right pairs and real AP over detectors and conditions."""
    content = plain.load(real / "values.json")
    points: list[tuple[str, str, float, float]] = []
    for name, found in rows.items():
        for condition in recipe.conditions:
            value = content.get(name, {}).get(condition, {}).get("AP", {}).get("value")
            if isinstance(value, int | float):
                part = [row for row in found if row["condition"] == condition]
                points.append((name, condition, shares(part, recipe)[2].value, float(value)))
    if len(points) < 3:
        raise UserError(
            f"{real}: shares {len(points)} detectors and conditions with this test; 3 are needed to correlate"
        )
    rho = rank_correlation(points, recipe.draws, recipe.seed)
    columns = ("detector", "condition", "right pairs (synthetic)", "AP (real)")
    notes = (
        f"Spearman's rank correlation {rho} over {len(points)} points of {len(rows)} detectors; interval from "
        "resamples of whole detectors, none with fewer than three",
        NOTE,
    )
    return Report("Rank correlation with real images", {"real": plain.last(real)}, columns, tuple(points), notes)


def rank_correlation(points: Sequence[tuple[str, str, float, float]], draws: int, seed: int) -> Estimate:
    """Return Spearman's correlation of the last two of `points`, with an interval clustered by the first.

    The conditions of one detector are not independent, so whole detectors are resampled.
    """

    def rho(part: Iterable[tuple[str, str, float, float]]) -> float:
        pairs = np.array([(first, second) for _, _, first, second in part])
        constant = np.ptp(pairs, axis=0).min() == 0
        return float("nan") if constant else float(spearmanr(pairs[:, 0], pairs[:, 1]).statistic)

    names = [point[0] for point in points]
    drawn = [rho(points[i] for i in chosen) for (chosen,) in resamples([names], draws, seed)]
    return interval(rho(points), drawn if len(set(names)) > 2 else [])


def refuse_trained(weights: Path, data_root: Path, models: Mapping[str, str]) -> str:
    """Return a line on the training data of the detector in `weights`, if trained by this program.

    Raises UserError if one of its images was made by one of the `models` of the test, which would favour it.
    """
    recipe = weights.parent / "recipe.yaml"
    if not recipe.is_file():
        return f"{plain.last(weights)}: its training data are unknown"
    content = plain.from_yaml(plain.text(recipe))
    own = {name.rsplit(" ", 1)[-1] for role, name in models.items() if role in ("cell", "normal")}
    for source in content.get("data") or [] if isinstance(content, dict) else []:
        folder = data_root / str(source.get("root", ""))
        if not folder.is_dir():
            return f"{plain.last(weights)}: its training data {plain.last(folder)} are not below the data root"
        for record in said(folder).values():
            used = record.get("models")
            digests = {str(name).rsplit(" ", 1)[-1] for name in used.values()} if isinstance(used, dict) else set()
            if digests & own:
                raise UserError(
                    f"{weights}: was trained on {folder}, images of the generator that makes this test; test it with "
                    "another generator"
                )
    return f"{plain.last(weights)}: not trained on images of this generator"
