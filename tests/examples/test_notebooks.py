"""The notebooks of examples/ run from top to bottom, at tiny size; what they print is what they promise."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = {"normal.size": 320, "normal.steps": 1, "cell.steps": 1, "cell.box_scale": 1.2, "threshold": 0.1}


def execute(name: str, parameters: dict[str, Any]) -> dict[str, Any]:
    """Run the code cells of the notebook `name` with `parameters` in the place of its own; return its variables."""
    notebook = json.loads((ROOT / "examples" / name).read_text())
    assert all(not cell.get("outputs") for cell in notebook["cells"]), "outputs are not committed"
    variables: dict[str, Any] = {}
    for number, cell in enumerate(cell for cell in notebook["cells"] if cell["cell_type"] == "code"):
        source = "".join(cell["source"])
        exec(compile(source, f"{name}[{number}]", "exec"), variables)
        if "parameters" in cell["metadata"].get("tags", []):
            assert set(parameters) <= set(variables), "a parameter that the notebook does not have"
            variables |= parameters
    return variables


@pytest.mark.slow
def test_quickstart(tiny: Path, tmp_path: Path) -> None:
    models = {name: tiny / name for name in ("foundation", "normal", "cell", "detector")}
    given = {"out": str(tmp_path), "count": 1, "settings": SETTINGS, "models": models}
    found = execute("quickstart.ipynb", given)
    assert len(found["data"].images) == 1
    assert not np.array_equal(found["edited"].image, found["field"])
    assert (tmp_path / "yolo/data.yaml").is_file()


@pytest.mark.slow
def test_own_data(tiny: Path, fields: Path, tmp_path: Path) -> None:
    given = {
        "data": str(fields / "drawn"), "out": str(tmp_path), "foundation": str(tiny / "foundation"),
        "settings": SETTINGS,
        "training": {"max_steps": 1, "batch_size": 1, "validate_every": 0, "lr_schedule": "constant"},
    }  # fmt: skip
    own = {"window": 64}
    with pytest.MonkeyPatch.context() as patch:
        import cytosynth.api

        train = cytosynth.api.train

        def small(part: str, run: str, **said: Any) -> Any:
            extra = {"normal": own, "cell": {"variants": 1}, "detector": {"window": 96}}[part]
            return train(part, run, **(said | {"settings": said["settings"] | extra}))  # type: ignore[arg-type]

        patch.setattr("cytosynth.api.train", small)
        found = execute("own_data.ipynb", given)
    assert found["problems"] == []
    assert found["made"].categories == ("ASC-US", "ASC-H", "LSIL", "HSIL")
    assert "map" in found["scores"]
