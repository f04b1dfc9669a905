"""The head of a Ray cluster is lost in the middle of a run: the same command on a new one continues."""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

import killing

pytestmark = pytest.mark.slow
pytest.importorskip("ray", reason="the extra 'ray' is not installed")
COUNT = 10
LONGEST = 900
"""Seconds that anything may take on a busy machine; a minute on a quiet one."""


def free_port() -> int:
    with socket.socket() as made:
        made.bind(("127.0.0.1", 0))
        return int(made.getsockname()[1])


@contextmanager
def head(port: int) -> Iterator[Callable[[], None]]:
    """Begin the head of a cluster on `port`; yield what kills all of its processes at once."""
    scratch = tempfile.mkdtemp(prefix="ray", dir="/tmp")  # a socket's path has a hundred characters at most
    environment = os.environ | {"RAY_USAGE_STATS_ENABLED": "0", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", "--port", str(port),
               "--node-ip-address", "127.0.0.1", "--num-cpus", "2", "--include-dashboard", "false",
               "--object-store-memory", str(100 << 20), "--temp-dir", scratch]  # fmt: skip
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)

    def kill() -> None:
        whole = [process.pid, *(child.pid for child in psutil.Process(process.pid).children(recursive=True))]
        for pid in whole:
            if psutil.pid_exists(pid):
                psutil.Process(pid).kill()
        process.wait()

    try:
        wait(lambda: answers(port))
        yield kill
    finally:
        if process.poll() is None:
            kill()
        shutil.rmtree(scratch, ignore_errors=True)


def answers(port: int) -> bool:
    with socket.socket() as tried:
        return tried.connect_ex(("127.0.0.1", port)) == 0


def wait(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + LONGEST
    while not condition():
        assert time.monotonic() < deadline, "took too long"
        time.sleep(0.05)


def test_the_same_command_goes_on_after_the_head_was_lost(
    cytosynth: killing.Server, tiny: Path, tmp_path: Path
) -> None:
    settings = ["normal.size=256", "normal.steps=2", "cell.steps=2", "threshold=0.1", "cell.box_scale=1.2",
                "max_cells=3"]  # fmt: skip
    given = [flag for name in ("foundation", "normal", "cell", "detector") for flag in (f"--{name}", str(tiny / name))]
    given += ["--count", str(COUNT), *(flag for setting in settings for flag in ("--set", setting))]
    alone = cytosynth.run("synthesize", str(tmp_path / "whole"), *given)
    assert alone.code == 0, alone.err
    out, port = tmp_path / "out", free_port()
    command = [sys.executable, "-m", "cytosynth", "synthesize", str(out), *given, "--ray", f"127.0.0.1:{port}"]
    environment = os.environ | {
        "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "RAY_gcs_rpc_server_reconnect_timeout_s": "5",
    }  # fmt: skip
    made = lambda: len(list(out.glob("images/*.png")))
    with head(port) as kill:
        driver = subprocess.Popen(command, stderr=subprocess.PIPE, env=environment)
        try:
            wait(lambda: made() >= 2 or driver.poll() is not None)
            assert driver.poll() is None, driver.communicate()[1].decode()
            kill()
            driver.communicate(timeout=LONGEST)
        finally:
            if driver.poll() is None:
                driver.kill()
    assert driver.returncode != 0 and 2 <= made() < COUNT
    before = {path.name: path.stat().st_mtime_ns for path in out.glob("images/*.png")}
    with head(port):
        again = subprocess.run(command, capture_output=True, env=environment, timeout=2 * LONGEST)
        assert again.returncode == 0, again.stderr.decode()
    assert killing.content(out) == killing.content(tmp_path / "whole")
    assert all((out / "images" / name).stat().st_mtime_ns == when for name, when in before.items()), "made once"
