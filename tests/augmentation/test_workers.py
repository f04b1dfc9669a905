"""Several workers end together: none goes on, or begins anything, when one fails or all are interrupted."""

import os
import signal
import sys
import time
import warnings
from collections.abc import Iterator
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from multiprocessing import get_context, parent_process
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from typer.testing import CliRunner

from cytosynth import devices
from cytosynth.augmentation import workers
from cytosynth.cli import app, experiment, select  # noqa: F401
from cytosynth.errors import UsageError, UserError
from cytosynth.io.progress import console


def job(name: str, device: str, folder: Path) -> None:
    """Do what `name` says once the long job has begun, and leave word."""
    (folder / name).write_text(device)
    if name.startswith("long"):
        try:
            time.sleep(600)
        except KeyboardInterrupt:
            (folder / name).write_text("stopped")
            raise
    while not (folder / "long").exists():
        time.sleep(0.01)
    if name == "failing":
        raise UserError("the loss is nan")
    if name == "killed":
        os._exit(1)
    if name == "interrupted":  # as Ctrl-C does, which all processes of a terminal get
        parent = parent_process()
        assert parent is not None and parent.pid
        os.kill(parent.pid, signal.SIGINT)
        raise KeyboardInterrupt


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers that do not import everything anew."""
    context = get_context("forkserver")
    context.set_forkserver_preload(["cytosynth.augmentation.workers"])
    monkeypatch.setattr(workers, "get_context", lambda _method: context)


@pytest.mark.promise("Errors")
@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    ("first", "raised"), [("failing", UserError), ("killed", BrokenProcessPool), ("interrupted", KeyboardInterrupt)]
)
@pytest.mark.slow
def test_all_stop_when_one_fails_or_all_are_interrupted(
    first: str, raised: type[BaseException], tmp_path: Path
) -> None:
    todo = [first, "long", "later 1", "later 2", "later 3"]
    started = time.monotonic()
    with pytest.raises(raised):
        list(workers.each(partial(job, folder=tmp_path), todo, tmp_path / "logs", ["cpu"], 2))
    assert (tmp_path / "long").read_text() == "stopped"
    assert {path.name for path in tmp_path.iterdir()} == {first, "long", "logs"}
    assert time.monotonic() - started < 500


@pytest.mark.usefixtures("quick")
def test_all_is_done_on_devices_in_turn(tmp_path: Path) -> None:
    (tmp_path / "long").touch()
    todo = ["a", "b", "c", "d", "e"]
    assert sorted(workers.each(partial(job, folder=tmp_path), todo, tmp_path / "logs", ["cpu"], 2)) == todo
    assert {(tmp_path / name).read_text() for name in todo} == {"cpu"}


def speak(text: str, _device: str) -> None:
    """Say `text` in all ways in which a training says something."""
    print(text, file=sys.stderr, flush=True)
    console.print(text, soft_wrap=True)
    warnings.warn(text, stacklevel=1)


@pytest.mark.promise("Nothing leaks")
@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("{0}/run/step-1: weights do not match", "step-1: weights do not match"),
        ("reading '{0}/a b/c:d/x.png': 3/10, 0:01 left", "reading 'x.png': 3/10, 0:01 left"),
        ("{0}/a, then {0}/b", "b"),
        ("mAP 1/2 of a/b, see https://example.org/a/b and ../c/d", ""),
    ],
)
def test_no_log_says_where_it_was_made(given: str, expected: str, tmp_path: Path) -> None:
    base = tmp_path / "somebody's place"
    text = given.format(base)
    assert list(workers.each(speak, [text], base / "logs", ["cpu"], 2)) == [text]
    said = "".join(path.read_text() for path in (base / "logs").iterdir()).splitlines()
    assert said[:2] == [expected or given] * 2
    assert said[2].endswith(f"UserWarning: {expected or given}")
    assert not any(str(folder) in line for folder in (tmp_path, Path(__file__).parent) for line in said)


@pytest.mark.parametrize(("given", "expected"), [([], 2), (["--workers", "1"], 1), (["--workers", "3"], 3)])
def test_without_a_number_there_is_a_worker_for_each_device(
    given: list[str], expected: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[list[str], int]] = []
    monkeypatch.setattr("cytosynth.augmentation.experiment.table", lambda *a: asked.append(a[3:]) or [])
    chosen = SimpleNamespace(report=None, verdict="", folder=None)
    monkeypatch.setattr("cytosynth.augmentation.select.select.select", lambda *a: asked.append(a[3:]) or chosen)
    for subcommand in (["experiment", "table2"], ["select"]):
        said = CliRunner().invoke(app, [*subcommand, str(tmp_path), "--device", "cuda:0,cuda:1", *given])
        assert said.exit_code == 0, said.output
        assert asked.pop()[:2] == (["cuda:0", "cuda:1"], expected)


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """A machine that seems to have two GPUs; which of them were chosen."""
    chosen: list[int] = []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    monkeypatch.setenv(devices.ACCELERATE, "cpu")
    monkeypatch.setenv(devices.VISIBLE, "")
    monkeypatch.delenv(devices.VISIBLE)
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    yield chosen
    devices.PartialState._reset_state()


@pytest.mark.parametrize(
    ("visible", "seen"), [(None, ["0", "1"]), ("2,3", ["2", "3"]), ("MIG-a, MIG-b", ["MIG-a", "MIG-b"])]
)
def test_a_worker_sees_the_gpu_of_its_number_among_the_visible(
    visible: str | None, seen: list[str], gpus: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(2):
        if visible:
            monkeypatch.setenv(devices.VISIBLE, visible)
        else:
            monkeypatch.delenv(devices.VISIBLE, raising=False)
        assert devices.only(f"cuda:{number}") == "cuda:0"
        assert os.environ[devices.VISIBLE] == seen[number]
    assert devices.only("cpu") == "cpu"


def test_training_is_where_it_was_asked_to_be(gpus: list[int], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    done = []
    for device, number in (("cuda:1", 1), ("cpu", None), ("cuda", 0)):
        devices.PartialState()._shared_state["device"] = "that of an earlier training"
        list(workers.each(lambda one, on: done.append((one, on)), ["a"], tmp_path, [device], 1))
        assert done.pop() == ("a", device)
        assert os.environ[devices.ACCELERATE] == device
        assert str(devices.PartialState().device) == device
        assert gpus == ([] if number is None else [number])
        gpus.clear()
    monkeypatch.setenv("LOCAL_RANK", "1")
    devices.use("cuda:1")
    assert os.environ[devices.ACCELERATE] == "cuda"


@pytest.mark.parametrize("device", ["cuda:2", "cuda:one"])
def test_a_gpu_that_is_not_here_is_refused_before_any_work(device: str, gpus: list[int], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=f"--device {device}: "):
        list(workers.each(lambda *_: pytest.fail("no work"), ["a"], tmp_path, ["cuda:0", device], 2))
