"""The built wheel works without the repository, and the repository keeps its own rules."""

import ast
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

from cytosynth.bethesda import CATEGORIES

ROOT = Path(__file__).resolve().parents[1]


def test_the_wheel_holds_models_and_works_elsewhere(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(ROOT)],
        check=True, capture_output=True,
    )  # fmt: skip
    (wheel,) = tmp_path.glob("*.whl")
    assert wheel.stat().st_size < 94_000_000
    site = tmp_path / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    program = (
        "import cytosynth, sys; assert cytosynth.__file__.startswith(sys.argv[1]); "
        "from cytosynth.foundation.load import load; from cytosynth.detection import model; "
        "from cytosynth.io.bundled import bundled; "
        "print(len(load('bundled').digest), model.load(bundled('detector')).config.categories)"
    )
    run = subprocess.run(
        [sys.executable, "-c", program, str(site)],
        capture_output=True, text=True, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(site)},
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip() == f"16 {CATEGORIES}"


EXCEPT = {"foundation/trial.py": "asks what is damaged", "io/background.py": "raises it in the thread that waits"}
"""Those that catch everything and hide nothing by it, and why they catch it."""


def test_whoever_catches_everything_raises_again() -> None:
    room, seen = ROOT / "src/cytosynth", 0
    for path in sorted(room.rglob("*.py")):
        for handler in ast.walk(ast.parse(path.read_text())):
            if not isinstance(handler, ast.ExceptHandler):
                continue
            caught = (
                {name.id for name in ast.walk(handler.type) if isinstance(name, ast.Name)} if handler.type else {""}
            )
            if caught & {"", "Exception", "BaseException"}:
                seen += 1
                again = any(isinstance(inner, ast.Raise) for inner in ast.walk(handler))
                assert again or path.relative_to(room).as_posix() in EXCEPT, f"{path}:{handler.lineno}"
    assert seen, "nothing was looked at"


def test_no_pickle_and_short_files() -> None:
    for path in sorted((ROOT / "src/cytosynth").rglob("*.py")):
        text = path.read_text()
        unpickled = re.findall(r"\bpickle\b.*load|weights_only=False|allow_pickle=True|torch\.load\(.*", text)
        if path.name == "weights.py":  # published feature networks come as .pth: read where the hash is the release's
            assert unpickled == ['torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)'], path
        elif path.name == "tensors.py":  # the command that is advised to those who have a pickle
            assert len(unpickled) == 1 and "'IN'" in unpickled[0], path
        else:
            assert not unpickled, path
        if path.name != "registry.py":  # a list, which grows by a line for each thing to choose
            assert len(text.splitlines()) <= 310, f"{path}: what second thing moved in?"


def test_no_model_says_where_it_lay() -> None:
    for path in (ROOT / "src/cytosynth/bundled").rglob("*.json"):
        assert "_name_or_path" not in path.read_text(), path


def test_every_file_that_the_paper_is_mapped_to_exists() -> None:
    text = (ROOT / "docs/method.md").read_text()
    files = set(re.findall(r"`((?:[a-z_]+/)*[a-z_]+\.py)", text))
    assert len(files) > 20
    for name in files:
        assert (ROOT / "src/cytosynth" / name).exists(), name
