"""The commands of robustness from end to end at a small size: style, controlled test, rank correlation, cards."""

import json
import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage
from scipy.stats import spearmanr
from typer.testing import CliRunner

from conftest import drawn, write_fields
from cytosynth.annotations import Cell
from cytosynth.cli import app, evaluate, robustness  # noqa: F401
from cytosynth.config import override
from cytosynth.data.preview import save_png
from cytosynth.data.sources import Source
from cytosynth.errors import UserError
from cytosynth.io.report import Report
from cytosynth.robustness import ranking, style
from cytosynth.robustness.benchmark import benchmark
from cytosynth.robustness.controlled import ControlledRecipe
from cytosynth.robustness.recipe import RobustnessRecipe
from cytosynth.robustness.style import Group
from cytosynth.synthesis.models import for_fields
from cytosynth.synthesis.settings import PipelineSettings
from cytosynth.variation.light import coded, linear


def call(*words: object) -> str:
    done = CliRunner().invoke(app, [str(word) for word in words])
    assert done.exit_code == 0, done.output
    return done.output


def test_a_style_closes_the_gap_to_a_centre_that_differs_by_its_stain(tmp_path: Path) -> None:
    """The centre's fields are drawn like ours, with two and a half times the dyes and a yellower lamp."""
    for seed in range(8):
        save_png(drawn(seed)[0], tmp_path / "ours" / f"{seed}.png")
    for seed in range(20, 36):
        light = linear(drawn(seed)[0]).astype(np.float64) ** 2.5 * (1.0, 0.9, 0.6)
        save_png(coded(light), tmp_path / "centre" / f"{seed}.png")
    call("evaluate", "style", tmp_path / "ours", tmp_path / "centre", tmp_path / "centre", "--window", 144,
         "--draws", 10, "--output", tmp_path / "out")  # fmt: skip
    rows = {row["measure"]: row["value"] for row in json.loads((tmp_path / "out/style.json").read_text())["rows"]}
    share = float(str(rows["share of the gap closed"]).split()[0])
    assert share > 0.5, rows
    distance = {name.split(", ")[1]: float(str(value).split()[0]) for name, value in rows.items() if ", " in name
                and name.startswith("K")}  # fmt: skip
    assert distance["after"] < 0.5 * distance["before"]
    facts = json.loads((tmp_path / "out/style.json").read_text())
    assert (facts["groups of the style"], facts["groups of the reference"]) == (8, 8)


def test_halves_share_no_slide() -> None:
    images = [np.full((2, 2, 3), value, np.uint8) for value in range(5)]
    first, second = style.halves(Group(images, ["b", "a", "c", "a", "b"]))
    assert (list(first.groups), list(second.groups)) == (["a", "c", "a"], ["b", "b"])
    assert [int(image[0, 0, 0]) for image in first.images] == [1, 2, 3]
    with pytest.raises(UserError, match="one slide or image; two are needed"):
        style.halves(Group(images[:2], ["a", "a"]))


class Blobs:
    """Finds what is darker than `dark` as HSIL."""

    categories = ("HSIL", "LSIL")

    def __init__(self, dark: float) -> None:
        self.dark, self.digest, self.calls = dark, str(dark), 0

    def find_all(
        self, images: Iterable[tuple[str, np.ndarray]], count: int, threshold: float, condition: str
    ) -> list[list[Cell]]:
        self.calls += 1
        return [self._of(pixels.mean(axis=2)) for _, pixels in images]

    def _of(self, grey: np.ndarray) -> list[Cell]:
        labels, _ = ndimage.label(ndimage.gaussian_filter(grey, 2) < self.dark)
        places = ndimage.find_objects(labels)[:200]
        scores = [float(np.clip(1 - grey[place].mean() / 255, 0.31, 1)) for place in places]
        corners = [(x.start, y.start, x.stop, y.stop) for y, x in places]
        return [Cell(tuple(map(float, box)), "HSIL", score) for box, score in zip(corners, scores, strict=True)]


def test_controlled_test_and_correlation_run_to_the_end_and_continue(tiny: Path, tmp_path: Path) -> None:
    """Three detectors that see what is darker than 80, 120 and 160."""
    detectors = {"strict": Blobs(80), "middle": Blobs(120), "lax": Blobs(160)}
    conditions = ["clean", "stain-2", "stain-4"]
    write_fields(tmp_path / "data/real", 4)
    real = RobustnessRecipe(data=Source(root="real", split="all"), variations=["stain"], strengths=[2, 4], draws=10)
    benchmark(real, {name: [one] for name, one in detectors.items()}, tmp_path / "data", tmp_path / "real")
    recipe = ControlledRecipe(
        fields=2, sizes=[1.0], categories=["HSIL", "LSIL"], conditions=conditions, draws=20,
        models={name: str(tiny / name) for name in ("foundation", "normal", "cell", "detector")},
        making=override(PipelineSettings(), ["normal.size=256", "normal.steps=2", "cell.steps=2", "threshold=0.05"]),
    )  # fmt: skip

    def run() -> list[Report]:
        build = lambda: for_fields(recipe.models, recipe.making, "cpu")
        return ranking.controlled(recipe, detectors, build, tmp_path / "run", tmp_path / "real")

    table, correlation = run()
    assert [row[:2] for row in correlation.rows] == [(name, one) for name in detectors for one in conditions]
    pairs = np.array([row[2:] for row in correlation.rows], dtype=float)
    values = json.loads((tmp_path / "real/values.json").read_text())
    assert np.allclose(pairs[:, 1], [values[name][one]["AP"]["value"] for name in detectors for one in conditions])
    whole = {(row[0], row[2]): row[6] for row in table.rows if row[1] == "condition"}
    said = [float(str(whole[str(row[0]), str(row[1])]).split()[0]) for row in correlation.rows]
    assert np.allclose(pairs[:, 0], said, atol=1e-4), "right pairs of the table"
    expected = spearmanr(pairs[:, 0], pairs[:, 1]).statistic if np.ptp(pairs, axis=0).min() else float("nan")
    found = re.search(r"rank correlation (\S+)", correlation.notes[0])
    assert found and float(found[1]) == pytest.approx(expected, abs=1e-3, nan_ok=True)
    edits = [row for row in table.rows if row[:2] == ("strict", "category")]
    assert {row[2] for row in edits} == {"HSIL", "LSIL"} and len({row[3] for row in edits}) == 1, (
        "each cell, each class"
    )
    files = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    calls = [one.calls for one in detectors.values()]
    run()
    assert [one.calls for one in detectors.values()] == calls == [6, 6, 6], "nothing is predicted again"
    assert all(path.read_bytes() == content for path, content in files.items())
