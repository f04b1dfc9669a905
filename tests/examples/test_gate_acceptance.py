"""The script that says what the gate keeps: it counts what the runs recorded, and goes on."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import write_fields

SCRIPT = Path(__file__).parents[2] / "examples/gate_acceptance.py"


@pytest.mark.slow
def test_what_is_kept_is_counted_and_a_run_goes_on(tiny: Path, tmp_path: Path) -> None:
    write_fields(tmp_path / "data/tct_fields", 6)  # two of them are labelled normal
    models = [word for name in ("foundation", "cell", "detector") for word in (f"--{name}", str(tiny / name))]
    settings = [word for one in ("cell.steps=1", "threshold=0.05", "cell.box_scale=1") for word in ("--set", one)]
    command = [sys.executable, str(SCRIPT), str(tmp_path / "data"), str(tmp_path / "out"), "--edits", "4",
               "--tries", "2", "--", *models, *settings, "--scale", "1"]  # fmt: skip
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert "cric: not there, left out" in run.stderr and "lbc_x40: not there" in run.stderr
    records = [json.loads(line) for line in (tmp_path / "out/tct_fields/provenance.jsonl").read_text().splitlines()]
    assert len(records) == 2, "two cells an image"
    kept = sum(len(record["cells"]) for record in records)
    cells = [cell for record in records for cell in [*record["cells"], *record.get("rejected", [])]]
    report = json.loads((tmp_path / "out/gate_acceptance.json").read_text())
    (total,) = [row for row in report["rows"] if row["category"] == "all"]
    assert (total["cells tried"], total["kept within 2"]) == (len(cells), kept)
    assert total["attempts"] == sum(len(cell["attempts"]) for cell in cells)
    assert all(len(cell["attempts"]) <= 2 for cell in cells)
    assert report["edits of each set"] == 4
    before = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert subprocess.run(command, capture_output=True).returncode == 0
    assert {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()} == before
