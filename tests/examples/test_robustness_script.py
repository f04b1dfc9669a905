"""examples/robustness.sh: each command that it would run is taken by the program, with its settings."""

import json
import os
import subprocess
import sys
from pathlib import Path

from typer.main import get_command

from cytosynth.cli import app, evaluate, robustness, train  # noqa: F401
from cytosynth.config import override
from cytosynth.data.sources import Source
from cytosynth.detection import recipe as detectors
from cytosynth.robustness.controlled import ControlledRecipe
from cytosynth.robustness.recipe import RobustnessRecipe

SCRIPT = Path(__file__).parents[2] / "examples/robustness.sh"


def commands(tmp_path: Path, *detectors: str, **environment: str) -> list[tuple[str, dict[str, object]]]:
    """Return name and options of each command that the script gives, as the program understands them."""
    for name in ("cric", "real"):
        (tmp_path / name).mkdir(exist_ok=True)
    listing = tmp_path / "said.jsonl"
    listing.unlink(missing_ok=True)
    said = f"import json, sys; open({str(listing)!r}, 'a').write(json.dumps(sys.argv[3:]) + chr(10))"
    (tmp_path / "said.py").write_text(said)
    subprocess.run(
        ["bash", SCRIPT, str(tmp_path), str(tmp_path), *detectors], check=True,
        env={"PATH": os.environ["PATH"], "PYTHON": f"{sys.executable} {tmp_path / 'said.py'}", **environment},
    )  # fmt: skip
    found = []
    for line in listing.read_text().splitlines():
        command, rest = get_command(app), json.loads(line)
        names = []
        while hasattr(command, "commands"):
            names.append(rest[0])
            command, rest = command.commands[rest[0]], rest[1:]
        found.append((" ".join(names), command.make_context(names[-1], list(rest)).params))
    return found


def test_without_detectors_four_are_trained_and_then_ranked(tmp_path: Path) -> None:
    found = commands(tmp_path, STEPS="40", IMAGES="3", FIELDS="2", CONTROLLED="--set sizes=[1.0]")
    trained = [options for name, options in found if name == "train detector"]
    names = [Path(str(options["run"])).name for options in trained]
    assert names == ["faster-rcnn", "augmented", "other-seed", "short"]
    assert [options["max_steps"] for options in trained] == [40, 40, 40, 10]
    recipes = [override(detectors.preset("bundled"), options["settings"]) for options in trained]
    assert [(one.seed, one.augment is not None) for one in recipes] == [(0, False), (0, True), (1, False), (0, False)]
    rest = [(name, options) for name, options in found if name != "train detector"]
    assert [name for name, _ in rest] == ["evaluate robustness", "evaluate controlled", "evaluate centres"]
    said = [f"{name}={tmp_path / name / 'weights'}" for name in names]
    assert all([options["detector"], *options["also"]] == said for _, options in rest)
    real = override(RobustnessRecipe(data=Source(root="cric")), rest[0][1]["settings"])
    made = override(ControlledRecipe(), rest[1][1]["settings"])
    assert set(made.conditions) == set(real.conditions()), "what is compared is there on both sides"
    assert (real.limit, made.fields, made.sizes, rest[1][1]["real"]) == (3, 2, [1.0], tmp_path / "real")


def test_given_detectors_are_only_ranked(tmp_path: Path) -> None:
    found = commands(tmp_path, "a=x/weights")
    assert [name for name, _ in found] == ["evaluate robustness", "evaluate controlled", "evaluate centres"]
    assert all(options["detector"] == "a=x/weights" and not options["also"] for _, options in found)
