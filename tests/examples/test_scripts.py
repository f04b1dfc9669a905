"""Scripts beside the package: none of them names what the package no longer has."""

import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPTS = sorted([*ROOT.glob("benchmarks/*.py"), *ROOT.glob("examples/*.py")])


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_everything_that_a_script_imports_is_there(script: Path) -> None:
    """Run it as far as an import does, under another name than `__main__`."""
    found = runpy.run_path(str(script), run_name="imported")
    assert found["__doc__"], "it says what it is for"
