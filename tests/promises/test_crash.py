"""Killed, full, locked, damaged: what is written is complete or absent, and the same command ends at the same bytes."""

import fcntl
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import killing
from candidate_sets import selecting, write_candidates
from command_lines import SUBCOMMANDS, command, detect, edit, filled, no_id_twice, synthesize
from conftest import write_fields
from cytosynth.config import dump
from cytosynth.errors import UsageError, UserError
from cytosynth.experiments.recipe import PRESETS
from cytosynth.io import atomic, lock
from cytosynth.training import checkpoint


@pytest.mark.promise("Generation survives being killed")
@pytest.mark.parametrize("subcommand", SUBCOMMANDS)
@pytest.mark.slow
def test_killed_at_three_moments(subcommand: str, cytosynth: killing.Server, tiny: Path, tmp_path: Path) -> None:
    write_fields(tmp_path / "real", 4)
    out, once = tmp_path / "killed", tmp_path / "once"
    line = command(subcommand, tiny, tmp_path / "real", out, 2)
    whole = cytosynth.run(*command(subcommand, tiny, tmp_path / "real", once, 2), below=once)
    assert whole.code == 0, whole.err
    rng = np.random.default_rng(1)
    for at in sorted(rng.choice(np.arange(3, whole.changes), 3, replace=False).tolist()):
        killed = cytosynth.run(*line, at=at, below=out)
        assert killed.code in (-signal.SIGKILL, 0)
    assert cytosynth.run(*line).code == 0
    no_id_twice(out)
    assert killing.content(out) == killing.content(once)


def _write(root: Path) -> None:
    """Write everything that the program writes in its two ways: files and folders, each over an older one."""
    for number in (1, 2):
        atomic.write_json(root / "file.json", {"number": number})
        with atomic.folder(root / "folder") as part:
            for name in ("a", "b"):
                (part / name).write_text(str(number))
        state = checkpoint.Checkpoint(number, {"w": torch.full((64,), float(number))}, {}, {}, {"sums": {}})
        checkpoint.save(root / "checkpoints", state, keep=1)


def _dying(root: Path, at: int, tally: Path) -> None:
    killing._watch(root, at, tally)
    _write(root)
    os._exit(0)


@pytest.mark.promise("A checkpoint is complete or absent")
@pytest.mark.slow
def test_killed_before_every_change_of_the_disk(tmp_path: Path, record_property: Callable[[str, object], None]) -> None:
    context = multiprocessing.get_context("fork")
    killed, at = 0, 0
    while True:
        at += 1
        root = tmp_path / str(at)
        root.mkdir()
        victim = context.Process(target=_dying, args=(root, at, tmp_path / "tally"))
        victim.start()
        victim.join()
        if victim.exitcode == 0:
            break
        killed += 1
        if (root / "file.json").exists():
            assert json.loads((root / "file.json").read_text())["number"] in (1, 2)
        atomic.recover(root / "folder")
        if (root / "folder").exists():
            assert {(root / "folder" / name).read_text() for name in ("a", "b")} in ({"1"}, {"2"})
        found, complaints = checkpoint.newest(root / "checkpoints")
        assert not complaints or found, "what is damaged is one that was being removed, and the newer is whole"
        if found:
            assert torch.equal(found.weights["w"], torch.full((64,), float(found.step)))
        for place in (root, root / "checkpoints"):
            atomic.clean(place)
        _write(root)
        assert {path.name for path in root.rglob("*") if path.name.startswith(".")} == set(), "nothing is left behind"
        assert [path.name for path in checkpoint.found(root / "checkpoints")] == ["step-00000002"]
    assert killed >= 25
    record_property("cases", f"{killed} kills, one before every change")


def test_a_folder_is_not_written_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs/file").write_text("kept")
    (tmp_path / "weights").symlink_to(tmp_path / "theirs")
    with pytest.raises(UserError, match="weights: is a link"), atomic.folder(tmp_path / "weights"):
        pass
    assert (tmp_path / "theirs/file").read_text() == "kept"


@pytest.mark.promise("A checkpoint is complete or absent")
@pytest.mark.parametrize(
    "state",
    [
        {"step": 2, "sha256": {"/dev/zero": "0"}, "extra": {}},
        {"step": "two", "sha256": {}, "extra": None},
        {"step": 2, "sha256": {}, "extra": {}},
        {"step": True, "sha256": None, "extra": {}},
    ],
)
def test_a_checkpoint_that_names_other_files_or_none_is_none(state: dict[str, object], tmp_path: Path) -> None:
    saved(tmp_path, 1, 2)
    path = tmp_path / "step-00000002/state.json"
    path.write_text(json.dumps(state))
    found, complaints = checkpoint.newest(tmp_path)
    assert found
    assert found.step == 1
    assert len(complaints) == 1
    path.unlink()
    os.mkfifo(path)
    found, complaints = checkpoint.newest(tmp_path)
    assert found
    assert found.step == 1


def saved(folder: Path, *steps: int, keep: int = 2) -> None:
    for step in steps:
        state = checkpoint.Checkpoint(step, {"a": torch.full((4,), float(step))}, {}, {}, {"sums": {"loss": 0.25}})
        checkpoint.save(folder, state, keep=keep)


@pytest.mark.promise("A checkpoint is complete or absent")
def test_any_flipped_bit_and_any_cut_is_detected(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    saved(tmp_path, 1, 2)
    cases = 0
    for file in sorted((tmp_path / "step-00000002").iterdir()):
        whole = file.read_bytes()
        for at in range(len(whole)):
            bit = bytearray(whole)
            bit[at] ^= 1 << (at % 8)
            for content in (bytes(bit), whole[:at]):
                file.write_bytes(content)
                found, complaints = checkpoint.newest(tmp_path)
                cases += 1
                if file.name == "state.json" and json_equal(content, whole):
                    continue  # the bit was in white space
                assert found is not None and found.step == 1, (file.name, at)
                assert len(complaints) == 1
                assert "\n" not in complaints[0]
                assert complaints[0].endswith("using the previous one")
        file.write_bytes(whole)
    record_property("cases", f"{cases} damaged checkpoints: every byte flipped, every length")


def json_equal(first: bytes, second: bytes) -> bool:
    try:
        return bool(json.loads(first) == json.loads(second))
    except ValueError:
        return False


@pytest.mark.promise("A checkpoint is complete or absent")
def test_a_damaged_newer_checkpoint_never_outlives_a_whole_one(tmp_path: Path) -> None:
    saved(tmp_path, 1, 3, keep=1)
    (tmp_path / "step-00000003/state.json").write_text("{}")
    saved(tmp_path, 2, keep=1)
    assert [path.name for path in checkpoint.found(tmp_path)] == ["step-00000002"]
    saved(tmp_path, 4, 5, 6, 7, keep=3)
    assert len(checkpoint.found(tmp_path)) == 3, "bounded"


@pytest.mark.promise("Training resumes exactly")
def test_a_checkpoint_of_the_first_versions_is_read(tmp_path: Path) -> None:
    saved(tmp_path, 1, 2)
    path = tmp_path / "step-00000002/state.json"
    state = json.loads(path.read_text())
    assert set(state) == {"of_state", "step", "sha256", "extra"}
    del state["of_state"]
    path.write_text(json.dumps(state))
    found, complaints = checkpoint.newest(tmp_path)
    assert found is not None
    assert (found.step, complaints) == (2, [])


@pytest.mark.promise("Training resumes exactly")
def test_another_foundation_of_the_same_name_is_noticed(tiny: Path, fields: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    from cytosynth.data.sources import Source
    from cytosynth.normal.recipe import NormalRecipe
    from cytosynth.normal.train import train_normal

    shutil.copytree(tiny / "foundation", tmp_path / "other/foundation")
    file = tmp_path / "other/foundation/unet/diffusion_pytorch_model.safetensors"
    weights = load_file(file)
    weights["conv_out.bias"] += 1
    save_file(weights, file, metadata={"format": "pt"})
    recipe = NormalRecipe(foundation=str(tiny / "foundation"), data=[Source(root="drawn")], window=128, max_steps=1)
    train_normal(recipe, tmp_path / "run", fields)
    assert "foundation: foundation\n" in (tmp_path / "run/recipe.yaml").read_text(), "the path is nobody's"
    other = recipe.model_copy(update={"foundation": str(tmp_path / "other/foundation"), "max_steps": 2})
    with pytest.raises(UsageError, match="was started with other frozen weights"):
        train_normal(other, tmp_path / "run", fields)


HOLD = """
import sys, time
from pathlib import Path
from cytosynth.io import lock
with lock.only(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.mark.promise("Two runs into one folder")
def test_the_second_run_is_refused_and_a_dead_one_leaves_no_lock(tmp_path: Path) -> None:
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout and holder.stdout.readline() == "held\n"
    with pytest.raises(UserError, match="another run is writing there"), lock.only(tmp_path):
        pass
    holder.kill()
    holder.wait()
    assert (tmp_path / ".lock").exists(), "the file of the dead is there, its lock is not"
    with lock.only(tmp_path):
        pass
    assert not (tmp_path / ".lock").exists()


def _contend(root: Path, until: float) -> None:
    while time.monotonic() < until:
        try:
            with lock.only(root):
                descriptor = os.open(root / "inside", os.O_CREAT | os.O_EXCL)  # fails where another is inside
                os.close(descriptor)
                (root / "inside").unlink()
        except UserError:
            pass
    os._exit(0)


@pytest.mark.promise("Two runs into one folder")
def test_a_folder_about_to_be_made_is_held_too(fields: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with lock.new(out):
        with pytest.raises(UserError, match="another run is writing there"), lock.only(out):
            pass
        assert not out.exists()
    with (
        pytest.raises(UserError, match="another process wrote there meanwhile"),
        atomic.folder(out, fresh=True) as part,
    ):
        (part / "ours").touch()
        out.mkdir()
        (out / "theirs").touch()
    assert [path.name for path in tmp_path.rglob("*")] == ["out", "theirs"]
    with pytest.raises(UserError, match="a folder with a name"), lock.new(Path("/")):
        pass


@pytest.mark.promise("Two runs into one folder")
def test_never_two_at_once_however_they_race(tmp_path: Path) -> None:
    until = time.monotonic() + 2
    context = multiprocessing.get_context("fork")
    racers = [context.Process(target=_contend, args=(tmp_path, until)) for _ in range(6)]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join()
    assert [racer.exitcode for racer in racers] == [0] * 6


@pytest.mark.promise("Two runs into one folder")
@pytest.mark.parametrize(
    "subcommand",
    [
        "synthesize", "edit", "detect", "train", "convert", "mix", "select", "select --anyway", "fidelity",
        "memorisation", "membership", "cells", "figure3", "figure6", "figure7", "figure8", "table1", "table2",
        "table3", "sanity", "robustness --export",
    ],
)  # fmt: skip
def test_every_command_that_writes_a_folder_refuses(
    subcommand: str, cytosynth: killing.Server, tiny: Path, fields: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    commands = {
        "synthesize": synthesize(tiny, out),
        "edit": edit(tiny, fields / "drawn", out),
        "detect": detect(tiny, fields / "drawn", out),
        "train": ["train", "features", str(out), "--data-root", str(fields), "--set", "data=[{root: drawn}]"],
        "convert": ["convert", str(fields / "drawn"), str(out), "--to", "yolo"],
        "mix": ["mix", str(fields / "drawn"), str(tmp_path / "data/made"), str(out)],
        "select": selecting(out, tmp_path / "data"),
        "select --anyway": [*selecting(out, tmp_path / "data"), "--anyway", "1"],
        "membership": [
            "evaluate",
            "membership",
            *[str(fields / "drawn")] * 2,
            "--output",
            str(out),
            "--normal",
            "none",
            "--foundation",
            str(tiny / "foundation"),
        ],
        "figure3": ["experiment", "figure3", str(out), "--data", "drawn", "--data-root", str(fields)],
        "figure6": ["experiment", "figure6", str(out)],
        "figure7": ["experiment", "figure7", str(out)],
        "figure8": ["experiment", "figure8", str(fields / "drawn"), str(out)],
        "fidelity": ["evaluate", "fidelity", *[str(fields / "drawn")] * 2, "--output", str(out)],
        "memorisation": ["evaluate", "memorisation", *[str(fields / "drawn")] * 3, "--output", str(out)],
        "cells": ["evaluate", "cells", str(fields / "drawn"), str(out)],
        "robustness --export": [
            "evaluate",
            "robustness",
            "command:x",
            str(fields / "drawn"),
            "--output",
            "no",
            "--export",
            str(out),
        ],
        **{name: ["experiment", name, str(out), "--preset", "bundled"] for name in ("table1", "table2", "table3")},
        "sanity": ["experiment", "sanity", str(out)],
    }
    path = tmp_path / ".out.lock" if subcommand == "convert" else out / ".lock"
    path.parent.mkdir(exist_ok=True)
    if subcommand.startswith(("select", "mix")):
        write_candidates(fields, tmp_path / "data")
    if subcommand == "figure6":  # of a run of table1 alone
        (out / "recipe.yaml").write_text(dump(PRESETS["bundled"]))
    before = set(tmp_path.rglob("*")) | {path}
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        ended = cytosynth.run(*commands[subcommand])
    assert ended.code == 1
    assert "another run is writing there" in ended.err.splitlines()[-1]
    assert "Traceback" not in ended.err
    assert set(tmp_path.rglob("*")) == before, "refused before anything is written"


@pytest.mark.promise("Disk full")
@pytest.mark.parametrize("left", [200_000, 450_000])
@pytest.mark.slow
def test_generation_on_a_full_disk(
    left: int, cytosynth: killing.Server, tiny: Path, tmp_path: Path, small_disk: Path
) -> None:
    once = tmp_path / "once"
    assert cytosynth.run(*synthesize(tiny, once, 2)).code == 0
    ballast = filled(small_disk, left)
    out = small_disk / "out"
    ended = cytosynth.run(*synthesize(tiny, out, 2))
    assert (ended.code, ended.err.count("\n")) == (1, 1), ended.err
    assert "No space left on device; what was written is intact; free some space" in ended.err
    assert all(path.read_bytes() == (once / "images" / path.name).read_bytes() for path in out.glob("images/*"))
    assert not list(out.rglob(".*.part")), "room is not wasted on halves"
    ballast.unlink()
    assert cytosynth.run(*synthesize(tiny, out, 2)).code == 0
    assert killing.content(out) == killing.content(once)
