"""Tables set again from what is kept are the committed ones, to the byte."""

import shutil
from pathlib import Path

import pytest

from cytosynth.augmentation.efficiency import table
from cytosynth.augmentation.efficiency.recipe import EDITED, PASTED, PRESETS, REAL
from cytosynth.errors import UserError
from cytosynth.evaluate.detection.scoring import ABNORMAL_AP, MEASURES
from cytosynth.experiments import kept
from cytosynth.io import atomic

RESULTS = Path(__file__).parents[2] / "results"


def test_the_committed_tables_are_set_from_the_kept_results(tmp_path: Path) -> None:
    if not RESULTS.is_dir():
        pytest.skip("an installation without results/")
    shutil.copytree(RESULTS, tmp_path / "results")
    names = kept.tables(tmp_path / "results")
    assert {"table1", "table2", "table2_gains", "cells", "sanity"} <= set(names)
    for name in names:
        for suffix in ("md", "csv", "json"):
            file = f"{name}.{suffix}"
            assert (tmp_path / "results" / file).read_bytes() == (RESULTS / file).read_bytes(), file


@pytest.mark.parametrize("preset", ["public", "own"], ids=["one class", "four classes"])
def test_the_tables_of_a_run_come_out_of_what_it_kept(preset: str, tmp_path: Path) -> None:
    recipe = PRESETS[preset].model_copy(update={"chains": 3, "draws": 10})
    names = [ABNORMAL_AP] if recipe.one_class else [ABNORMAL_AP, *MEASURES, *recipe.categories]
    results = {
        (8 if recipe.one_class else 142, arm): {
            chain: {"scores": dict.fromkeys(names, level + 0.01 * chain), "parameters": 7, "seconds_a_step": 0.5,
                    "drawn": {name: [level + 0.01 * chain + 0.001 * d for d in range(10)] for name in names}}
            for chain in range(3)
        }
        for arm, level in ((REAL, 0.4), (EDITED, 0.5), (PASTED, 0.45))
    }  # fmt: skip
    sets = dict.fromkeys(results, (0.0, 0.0, 9.0))
    read = table.Read(recipe, "test", results, {"": 28, "abnormal": 28}, sets, {"models": {"cell": "bundled"}})
    table.write(read, tmp_path / "run", "efficiency", "gains")
    atomic.write_json(tmp_path / "out/efficiency_kept.json", table.Kept.of(read).model_dump(mode="json"))
    assert kept.tables(tmp_path / "out") == ["efficiency", "efficiency_gains"]
    for name, other in (("efficiency", "efficiency"), ("gains", "efficiency_gains")):
        assert (tmp_path / f"run/{name}.md").read_bytes() == (tmp_path / f"out/{other}.md").read_bytes()
    assert "R + R2S | R | AP.5 abnormal | 10.0" in (tmp_path / "run/gains.md").read_text()
    with pytest.raises(UserError, match="no table there"):
        kept.tables(tmp_path / "run/none")
