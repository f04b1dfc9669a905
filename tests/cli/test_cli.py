"""What a user sees: one line for a mistake, its exit code, and quick answers."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import write_fields


def cytosynth(*arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    run = subprocess.run([sys.executable, "-m", "cytosynth", *arguments], capture_output=True, text=True)
    assert run.returncode == code, run.stderr
    assert "Traceback" not in run.stderr or "--debug" in arguments
    return run


def test_info_as_json_without_loading_torch() -> None:
    program = "import sys; sys.argv = ['cytosynth', 'info', '--json']; from cytosynth.cli import main\ntry: main()\n"
    program += "finally: print('torch' in sys.modules, file=sys.stderr)"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert run.stderr.strip() == "False"
    facts = json.loads(run.stdout)
    assert facts["categories"] == ["NILM", "ASC-US", "ASC-H", "LSIL", "HSIL"]
    kinds = {"coco", "yolo", "voc", "cric", "comparison-detector", "riva", "folders", "slides", "images"}
    assert set(facts["formats_in"]) == kinds


def test_the_registry_names_what_there_is() -> None:
    from cytosynth import registry
    from cytosynth.data.formats import registration

    assert all(callable(registration.reader(name)) for name in registry.FORMATS_IN)
    assert {registration.writer(name).images for name in registry.FORMATS_OUT} == {"images", "JPEGImages"}


def test_check_and_convert(tmp_path: Path) -> None:
    write_fields(tmp_path / "set")
    assert "set: coco, 6 images, 30 cells, 0 problems" in cytosynth("check", str(tmp_path / "set")).stdout
    assert (
        "6 images, 30 cells" in cytosynth("convert", str(tmp_path / "set"), str(tmp_path / "y"), "--to", "yolo").stdout
    )
    (tmp_path / "set/images/field_0.png").unlink()
    run = cytosynth("check", str(tmp_path / "set"), code=1)
    assert "field_0.png: no such file" in run.stdout
    assert "1 problem" in run.stdout


def test_what_is_assumed_is_said(tmp_path: Path) -> None:
    said = cytosynth("synthesize", "--help").stdout.replace("│", " ")
    assert "Total number of images. [default: 10]" in " ".join(said.split())
    write_fields(tmp_path / "set", 1)
    (tmp_path / "flat/below").mkdir(parents=True)
    shutil.copy(tmp_path / "set/images/field_0.png", tmp_path / "flat")
    ended = cytosynth("detect", str(tmp_path / "flat"), str(tmp_path / "found"))
    assert "subfolders are not searched (below)" in ended.stderr
    run = cytosynth("evaluate", "detection", str(tmp_path / "set"), "--split", "all", "--draws", "0", code=0)
    assert "NILM" in run.stdout
    file = tmp_path / "set/annotations.json"
    file.write_text(file.read_text().replace('"NILM"', '"normal"'))
    run = cytosynth("evaluate", "detection", str(tmp_path / "set"), "--split", "all", "--draws", "0", code=1)
    assert "no cell of the detector's categories (NILM); annotated are" in run.stderr
    assert "'normal'" in run.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "complaint"),
    [
        (["check", "nowhere"], 1, "nowhere: no data set of a known format"),
        (["convert", "nowhere", "out", "--to", "yolo"], 1, "nowhere"),
        (["synthesize", "out", "--foundation", "nowhere"], 1, "nowhere: no such folder or file"),
        (["synthesize", "out", "--set", "steps=3"], 2, "--set steps: unknown setting"),
        (["synthesize", "out", "--count", "0"], 2, "count"),
        (["train", "normal", "run", "--set", "rank=x"], 2, "rank"),
        (["train", "detector", "run", "--data-root", "nowhere"], 1, "no such file"),
        (["edit", "nowhere", "out"], 1, "nowhere: no such file or folder"),
        (["bogus"], 2, "bogus"),
    ],
)
def test_a_mistake_is_one_clear_line(arguments: list[str], code: int, complaint: str, tmp_path: Path) -> None:
    run = subprocess.run([sys.executable, "-m", "cytosynth", *arguments], capture_output=True, text=True, cwd=tmp_path)
    assert run.returncode == code, run.stderr
    assert complaint in run.stderr
    assert "Traceback" not in run.stderr
    assert not (tmp_path / "out").exists(), "nothing half-written"
