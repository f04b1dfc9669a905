"""Runs on a Ray cluster: what is lost is made elsewhere, and the result is that of a single process."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import torch

import killing
from cytosynth.errors import EnvironmentProblem
from cytosynth.scale import trainings
from cytosynth.scale.pool import Pool

pytestmark = pytest.mark.slow
SETTINGS = ["normal.size=256", "normal.steps=2", "cell.steps=2", "threshold=0.1", "cell.box_scale=1.2", "max_cells=3"]
COUNT = 14


@pytest.fixture(scope="module")
def cluster() -> Iterator[object]:
    """Three nodes of one core each on this machine."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    room = Path(__file__).parent
    found = [str(room), str(room.parent), os.environ.get("PYTHONPATH")]  # where workers find `die_once`
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, found))
    from ray.cluster_utils import Cluster

    node = {"num_cpus": 1, "object_store_memory": 80 << 20, "include_dashboard": False}
    made = Cluster(initialize_head=True, head_node_args=node)
    for _ in range(2):
        made.add_node(num_cpus=1, object_store_memory=80 << 20)
    yield made
    made.shutdown()


def flags(tiny: Path, *changes: str) -> list[str]:
    given = [flag for name in ("foundation", "normal", "cell", "detector") for flag in (f"--{name}", str(tiny / name))]
    return [*given, *(flag for setting in [*SETTINGS, *changes] for flag in ("--set", setting))]


def begun(*arguments: str) -> subprocess.Popen[bytes]:
    """Begin `cytosynth` with one thread, as the single run has."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.Popen([sys.executable, "-m", "cytosynth", *arguments], stderr=subprocess.PIPE, env=environment)


def holders() -> list[psutil.Process]:
    """Return the processes of actors that hold models."""
    return [one for one in psutil.process_iter(["cmdline"]) if "Holder" in " ".join(one.info["cmdline"] or [])]


def wait(condition: object, seconds: float = 240) -> None:
    deadline = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline, "took too long"
        time.sleep(0.02)


def test_a_worker_a_node_and_the_driver_are_killed_and_the_bytes_are_those_of_one_process(
    cluster: object, cytosynth: killing.Server, tiny: Path, tmp_path: Path
) -> None:
    whole, out = tmp_path / "whole", tmp_path / "out"
    alone = cytosynth.run("synthesize", str(whole), "--count", str(COUNT), *flags(tiny))
    assert alone.code == 0, alone.err
    command = ["synthesize", str(out), "--count", str(COUNT), *flags(tiny), "--ray", cluster.address]  # type: ignore[attr-defined]
    chance = random.Random(0)
    made = lambda: len(list(out.glob("images/*.png")))

    driver = begun(*command)
    wait(lambda: made() >= chance.randint(1, 3) or driver.poll() is not None)
    assert driver.poll() is None, driver.stderr.read().decode()
    driver.kill()
    driver.wait()
    assert made() < COUNT

    driver = begun(*command)
    before = made()
    wait(lambda: (made() > before and len(holders()) > 0) or driver.poll() is not None)
    chance.choice(holders()).send_signal(signal.SIGKILL)
    before = made()
    wait(lambda: made() > before or driver.poll() is not None)
    cluster.remove_node(chance.choice(sorted(cluster.worker_nodes, key=lambda node: node.unique_id)))  # type: ignore[attr-defined]
    _, said = driver.communicate(timeout=400)
    assert driver.returncode == 0, said.decode()
    assert "a worker was lost; others take over its work" in said.decode()
    assert killing.content(out) == killing.content(whole)


def test_counts_are_dealt_as_by_one_process(
    cluster: object, cytosynth: killing.Server, tiny: Path, tmp_path: Path
) -> None:
    asked = ["synthesize", "--count", "4", "--counts", "HSIL=3,LSIL=2", *flags(tiny)]
    alone = cytosynth.run(*asked[:1], str(tmp_path / "whole"), *asked[1:])
    assert alone.code == 0, alone.err
    driver = begun(*asked[:1], str(tmp_path / "out"), *asked[1:], "--ray", cluster.address)  # type: ignore[attr-defined]
    _, said = driver.communicate(timeout=400)
    assert driver.returncode == 0, said.decode()
    assert killing.content(tmp_path / "out") == killing.content(tmp_path / "whole")


def test_own_images_and_detect(cluster: object, cytosynth: killing.Server, tiny: Path, tmp_path: Path) -> None:
    from conftest import write_fields

    write_fields(tmp_path / "drawn", 5)
    images = tmp_path / "drawn/images"
    (images / "field_3.png").write_bytes(b"no image")
    edit = ["--foundation", str(tiny / "foundation"), "--cell", str(tiny / "cell"), "--set", "cell.steps=2"]
    for subcommand, options in (("edit", edit), ("detect", [])):
        given = ["--detector", str(tiny / "detector"), "--threshold" if subcommand == "detect" else "--set"]
        given += ["0.1" if subcommand == "detect" else "threshold=0.1", *options]
        alone = cytosynth.run(subcommand, str(images), str(tmp_path / f"{subcommand} whole"), *given)
        driver = begun(subcommand, str(images), str(tmp_path / subcommand), *given, "--ray", cluster.address)  # type: ignore[attr-defined]
        _, said = driver.communicate(timeout=400)
        assert (driver.returncode, alone.code) == (4, 4), said.decode()
        assert killing.content(tmp_path / subcommand) == killing.content(tmp_path / f"{subcommand} whole")


def die_once(place: Path, device: str) -> None:
    """Write `done` into the folder `place`; the worker that does so first in the folder `2` is killed before."""
    assert device == "cpu"
    assert torch.get_num_threads() == 1, "as in the caller, whatever Ray set"
    if place.name == "2" and not (place / "begun").exists():
        (place / "begun").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    (place / "done").touch()


def test_a_training_whose_worker_is_lost_is_done_by_another(cluster: object, tmp_path: Path) -> None:
    places = [tmp_path / str(number) for number in range(4)]
    for place in places:
        place.mkdir()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        done = list(trainings.each(die_once, places, cluster.address, "cpu"))  # type: ignore[attr-defined]
    finally:
        torch.set_num_threads(threads)
    assert sorted(done) == places
    assert all((place / "done").exists() for place in places)
    assert (places[2] / "begun").exists()


def test_no_cluster_is_one_clear_line() -> None:
    with pytest.raises(EnvironmentProblem, match=r"--ray 127.0.0.1:1: no cluster found there"):
        Pool("127.0.0.1:1", dict, "cpu")
