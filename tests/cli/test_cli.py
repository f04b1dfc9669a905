"""What a user sees: one line for a mistake, its exit code, and quick answers."""

import json
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import rich
import typer
from typer.testing import CliRunner

from candidate_sets import write_synthetic
from conftest import write_fields
from cytosynth import cli
from cytosynth.cli import doctor, fidelity, info, quiz, robustness, studio  # noqa: F401
from cytosynth.data import split
from cytosynth.data.read import read
from cytosynth.readiness import machine
from cytosynth.readiness.line import Line


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


def test_the_sizes_of_parts_are_said_and_empty_ones_warned_of(tmp_path: Path) -> None:
    write_fields(tmp_path / "set")
    shown = "parts: train 4, val 1, test 1"
    run = cytosynth("check", str(tmp_path / "set"))
    assert f"set: {shown}\n" in run.stdout and "warning" not in run.stdout
    for target in ("yolo", "webdataset"):
        written = cytosynth("convert", str(tmp_path / "set"), str(tmp_path / target), "--to", target).stdout
        assert f"{target}: {shown}\n" in written and "warning" not in written
    assert shown in cytosynth("check", str(tmp_path / "webdataset")).stdout
    (tmp_path / "set/split.json").write_text(json.dumps({"train": ["field_0.png"], "val": [], "test": ["gone.png"]}))
    for command in (["check"], ["convert", str(tmp_path / "again"), "--to", "coco"]):
        said = cytosynth(command[0], str(tmp_path / "set"), *command[1:]).stdout
        assert "parts: train 1, val 0, test 0" in said
        assert "warning: no image in part 'val' (trainings choose their best weights by it); move some to it in" in said
        assert "warning: no image in part 'test' (results are measured on it); move some to it in split.json" in said
    (tmp_path / "set/split.json").unlink()
    by_hash = Counter(split.assigned(split.group(image)) for image in read(tmp_path / "set").images)
    said = cytosynth("check", str(tmp_path / "set")).stdout
    counts = ", ".join(f"{name} {by_hash[name]}" for name in ("train", "val", "test"))
    assert f"parts by hash of slide or name (no split.json): {counts}" in said
    assert said.count("warning: no image in part") == sum(not by_hash[name] for name in ("val", "test"))


def test_a_synthetic_set_without_parts_is_used_whole(tmp_path: Path) -> None:
    write_synthetic(tmp_path / "made", 2, 0)
    assert cytosynth("check", str(tmp_path / "made")).stdout.count("\n") == 1


def test_doctor_and_info_break_no_path_or_command(monkeypatch: pytest.MonkeyPatch) -> None:
    long = f"pip install '{'x' * 60}[slides]' in /a folder/{'y' * 60}"
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setattr(rich, "_console", None)
    monkeypatch.setattr(machine, "examine", lambda folder: [Line("slides", "note", "missing", long)])
    assert long in CliRunner().invoke(cli.app, ["doctor"], catch_exceptions=False).output
    monkeypatch.setattr(info, "collect", lambda: {"models": {"mine": long}})
    assert long in CliRunner().invoke(cli.app, ["info"], catch_exceptions=False).output


def test_the_option_of_an_output_has_one_name() -> None:
    commands = dict(subcommands(typer.main.get_command(cli.app), "cytosynth"))
    written = [name for name, one in commands.items() if any("--output" in option.opts for option in one.params)]
    assert {"cytosynth studio", "cytosynth quiz score", "cytosynth evaluate robustness"} < set(written)
    for name, one in commands.items():
        for option in one.params:
            assert not {"--out", "--outdir", "--out-dir", "--output-dir"} & set(option.opts), name
    for line in ("studio --out x", "quiz score a b --out x", "evaluate robustness a . --out x"):
        refused = CliRunner().invoke(cli.app, line.split())
        assert refused.exit_code == 2
        said = " ".join(refused.output.split())
        assert "No such option: --out" in said and "--output" in said


def subcommands(command: Any, name: str) -> Iterator[tuple[str, Any]]:
    below = getattr(command, "commands", {})
    if not below:
        yield name, command
    for own, one in below.items():
        yield from subcommands(one, f"{name} {own}")


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
    assert "no cell of the detector's categories (NILM, ASC-US, ASC-H, LSIL, HSIL); annotated are" in run.stderr
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
        (["evaluate", "cells", ".", "out", "--judge", "x"], 2, "--judge: this option is now called --classifier"),
        (["evaluate", "cells", ".", "out", "--fast-normal", "x"], 2, "--fast-normal: no effect on the cells of real"),
        (["evaluate", "cells", ".", "out", "--fast", "--cell", "x"], 2, "fit the bundled models only, not cell x"),
        (["evaluate", "reconstruction", ".", "--sheet", "x"], 2, "--sheet: this option is now called --output"),
        (["bogus"], 2, "bogus"),
    ],
)
def test_a_mistake_is_one_clear_line(arguments: list[str], code: int, complaint: str, tmp_path: Path) -> None:
    run = subprocess.run([sys.executable, "-m", "cytosynth", *arguments], capture_output=True, text=True, cwd=tmp_path)
    assert run.returncode == code, run.stderr
    assert complaint in run.stderr
    assert "Traceback" not in run.stderr
    assert not (tmp_path / "out").exists(), "nothing half-written"
