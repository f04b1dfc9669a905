"""A successful run ends with a line that says what was written; which device computes is said in a line."""

import shutil
from pathlib import Path

import pytest
import typer
from PIL import Image, ImageOps
from typer.testing import CliRunner

from cytosynth import devices
from cytosynth.cli import app, data, doctor, evaluate, experiment, quiz, robustness, select, train  # noqa: F401
from cytosynth.io.progress import console
from cytosynth.registry import PRESETS


@pytest.mark.parametrize(
    ("line", "last"),
    [
        ("convert DATA OUT --to yolo", "OUT: 6 images, 30 cells, yolo"),
        ("convert DATA OUT --to webdataset", "OUT: 6 images, 30 cells, webdataset"),
        ("quiz make OUT --real DATA --categories LSIL,HSIL --per-class 1 --blocks 1 --seed 1",
         "OUT/pages: 2 cells, 1 page for the readers"),
        ("evaluate detection DATA --detector DETECTOR --split all --draws 0 --output OUT", "OUT"),
        ("evaluate centres DETECTOR --centre A={root: drawn, split: all} --data-root ROOT --output OUT",
         "OUT/centres.md"),
        ("evaluate style DATA/images DATA/images MORE --window 64 --draws 10 --output OUT", "OUT/style.md"),
        ("evaluate reconstruction DATA --autoencoder RUN --scale 2 --split all --output OUT", "OUT/autoencoder.md"),
    ],
)  # fmt: skip
def test_a_run_ends_with_what_was_written(line: str, last: str, tiny: Path, fields: Path, tmp_path: Path) -> None:
    places = {
        "DATA": fields / "drawn", "ROOT": fields, "OUT": tmp_path / "out", "DETECTOR": tiny / "detector",
        "RUN": tmp_path / "run", "MORE": tmp_path / "more",
    }  # fmt: skip
    places["MORE"].mkdir()
    for path in (fields / "drawn/images").iterdir():
        ImageOps.mirror(Image.open(path)).save(places["MORE"] / f"other {path.name}")
    shutil.copytree(tiny / "foundation/vae", tmp_path / "run/weights")
    (tmp_path / "run/recipe.yaml").write_text("kind: autoencoder\n")
    line = line.replace("{root: drawn, split: all}", "{root:\0drawn,split:\0all}")
    for name, path in places.items():
        line, last = line.replace(name, str(path)), last.replace(name, str(path))
    ended = CliRunner().invoke(app, [word.replace("\0", " ") for word in line.split()], catch_exceptions=False)
    assert ended.exit_code == 0, ended.output
    assert ended.stdout.splitlines()[-1] == last


@pytest.mark.parametrize("terminal", [True, False])
def test_which_device_computes_is_said_once_and_of_a_cpu_on_a_terminal_alone(
    terminal: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In a script, an error is one line."""
    monkeypatch.setattr(devices, "_said", set())
    monkeypatch.setattr(type(console), "is_terminal", terminal)
    chosen = devices.resolved("auto")
    assert devices.resolved("auto") == chosen
    assert capsys.readouterr().err.count(f"device: {chosen} (") == int(terminal or chosen != "cpu")
    assert devices.resolved("cpu") == "cpu" and capsys.readouterr().err == ""


def test_one_preset_is_the_default_of_all_commands() -> None:
    found = {}
    commands = [("", typer.main.get_command(app))]
    while commands:
        name, command = commands.pop()
        commands += [(f"{name} {own}", one) for own, one in getattr(command, "commands", {}).items()]
        found |= {(name, option.name): option.default for option in command.params if option.name == "preset"}
    assert {" doctor", " train normal", " select", " experiment table1"} <= {name for name, _ in found}
    assert {value for value in found.values() if value in PRESETS} == {"bundled"}
