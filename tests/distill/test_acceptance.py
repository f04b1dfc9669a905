"""`evaluate steps`: what another seed of the teacher would give, and whether few steps keep to it."""

import json
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from conftest import save_classifier, write_fields
from cytosynth.cell.edit import CellEditor
from cytosynth.classifier.model import CellClassifier
from cytosynth.data.sources import Source
from cytosynth.distill import acceptance
from cytosynth.distill.acceptance import Models, evaluate_steps
from cytosynth.distill.steps_recipe import StepsRecipe
from cytosynth.errors import UsageError
from cytosynth.evaluate.networks import features
from cytosynth.normal.generate import NormalImageGenerator


def test_another_seed_of_the_teacher_lies_within_its_spread_with_95_percent() -> None:
    rng = np.random.default_rng(0)
    draws = rng.normal(3.0, 0.5, (4000, 4))
    inside = [low <= one <= high for *values, one in draws for low, high in [acceptance.spread(values)]]
    assert np.mean(inside) == pytest.approx(0.95, abs=0.012)
    low, high = acceptance.spread([1.0, 2.0, 4.0])
    half = stats.t.ppf(0.975, 2) * np.std([1.0, 2.0, 4.0], ddof=1) * np.sqrt(4 / 3)
    assert (low, high) == (pytest.approx(7 / 3 - half), pytest.approx(7 / 3 + half))


@pytest.mark.parametrize(
    ("better", "kept"),
    [("lower", [True, True, False]), ("higher", [False, True, True]), ("same", [False, True, False])],
)
def test_what_is_better_than_the_teacher_holds(better: str, kept: list[bool]) -> None:
    assert [acceptance.holds(value, 1.0, 2.0, better) for value in (0.5, 1.5, 2.5)] == kept  # type: ignore[arg-type]


def test_few_steps_are_compared_with_the_teacher_and_a_stopped_call_continues(tiny: Path, tmp_path: Path) -> None:
    write_fields(tmp_path / "drawn", 9)
    (tmp_path / "drawn/split.json").unlink()
    recipe = StepsRecipe.model_validate({
        "real": Source(root="drawn", split="all"), "steps": [1, 2], "windows": 12, "cells": 12,
        "categories": ["LSIL", "HSIL"], "about": 64, "normal": {"size": 64, "steps": 3, "guidance_scale": 2.0},
        "cell": {"steps": 3, "guidance_scale": 2.0},
    })  # fmt: skip
    named = str(tiny / "foundation")
    generator = NormalImageGenerator(named, str(tiny / "normal"))
    editor = CellEditor.load(named, str(tiny / "cell"))
    models = Models(features.load("efficientnet-lite0"), (generator, generator), (editor, editor))
    models.classifier = CellClassifier.load(save_classifier(tmp_path / "classifier"))
    out = tmp_path / "out"
    report = evaluate_steps(recipe, models, tmp_path, out)
    assert report.columns[-2:] == ("1 step", "2 steps")
    measures = {(row[0], row[1], row[2]) for row in report.rows}
    for stage in ("normal", "cell"):
        for name in ("recall", "coverage"):
            assert {(stage, name, "real images"), (stage, name, "the teacher")} <= measures
    said = " ".join(str(row[1]) for row in report.rows)
    for name in ("taken for its category", "nucleus found", "border ratio"):
        assert name in said
    rows = json.loads((out / "all.json").read_text())["rows"]
    own = next(row for row in rows if row["steps"] == "teacher" and row["against"] == "the teacher")
    assert own["low"] < own["value"] < own["high"]
    drawn = sorted(path.name for path in (out / "normal").iterdir())
    assert drawn == ["steps-1", "steps-2", "teacher-0", "teacher-1", "teacher-2"]
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    (out / "normal/steps-2/00003.png").unlink()
    (out / "cell/teacher-1/HSIL").rename(out / "gone")
    again = evaluate_steps(recipe, models, tmp_path, out)
    assert again.rows == report.rows
    assert all(path.read_bytes() == content for path, content in before.items())
    with pytest.raises(UsageError, match="another folder"):
        evaluate_steps(recipe.model_copy(update={"windows": 13}), models, tmp_path, out)
