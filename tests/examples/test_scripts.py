"""Scripts beside the package: none of them names what the package no longer has."""

import runpy
from dataclasses import replace
from pathlib import Path

import pytest

from cytosynth.augmentation.efficiency import table

ROOT = Path(__file__).parents[2]
SCRIPTS = sorted([*ROOT.glob("benchmarks/*.py"), *ROOT.glob("examples/*.py")])


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_everything_that_a_script_imports_is_there(script: Path) -> None:
    """Run it as far as an import does, under another name than `__main__`."""
    found = runpy.run_path(str(script), run_name="imported")
    assert found["__doc__"], "it says what it is for"


def test_the_gains_of_two_runs_together_are_those_that_the_readme_states() -> None:
    script = runpy.run_path(str(ROOT / "benchmarks/pooled_gains.py"), run_name="imported")
    kept = [ROOT / f"results/efficiency_falling{name}_kept.json" for name in ("", "_again")]
    runs = [script["read"](path) for path in kept]
    found = script["gains"](runs)
    said = [table.said(found["R + R2S", other][0]) for other in ("R", "R + copy-paste")]
    assert [found["R + R2S", other][1] for other in ("R", "R + copy-paste")] == [10, 12]
    readme = (ROOT / "README.md").read_text().replace("\u2212", "-")
    assert f"{said[0]} over these alone" in readme and f"{said[1]} over pasted cells" in readme
    with pytest.raises(SystemExit, match="share chains"):
        script["pooled"]([runs[0], runs[0]])
    other = replace(runs[1], recipe=runs[1].recipe.model_copy(update={"steps": 7}))
    with pytest.raises(SystemExit, match="differ in more than their chains"):
        script["pooled"]([runs[0], other])
