"""The scripts in `examples/`: what they would run, they say; and the program takes it."""

import os
import shlex
import subprocess
from pathlib import Path

import pytest
from typer.main import get_command

from cytosynth.cli import app
from cytosynth.cli import merge as _merge  # noqa: F401
from cytosynth.cli import synthesize as _synthesize  # noqa: F401
from cytosynth.cli import train as _train  # noqa: F401

EXAMPLES = Path(__file__).parents[2] / "examples"


def said(script: str, *arguments: str, **environment: str) -> list[str]:
    done = subprocess.run(
        ["bash", EXAMPLES / script, *arguments], capture_output=True, text=True, check=True,
        env={"PATH": os.environ["PATH"], "DRY_RUN": "1", **environment},
    )  # fmt: skip
    return shlex.split(done.stdout)


def parsed(words: list[str]) -> dict[str, object]:
    """Return the options that the command of `words` gets; it ends the test where there are no such."""
    command, rest = get_command(app), words
    while hasattr(command, "commands"):
        command, rest = command.commands[rest[0]], rest[1:]
    return command.make_context(words[0], list(rest)).params


def test_a_job_array_makes_every_shard_once_and_then_merges(tmp_path: Path) -> None:
    out = str(tmp_path / "my set")
    given = {"OUT": out, "COUNT": "10", "SHARDS": "3", "SLURM_CPUS_PER_TASK": "2", "GATE": "nucleus"}
    made = []
    for number in ("1", "2", "3"):
        threads, program, *command = said("slurm_shards.sh", SLURM_ARRAY_TASK_ID=number, **given)
        assert (threads, program) == ("OMP_NUM_THREADS=2", "cytosynth")
        options = parsed(command)
        assert (options["count"], options["gate"], options["shard"]) == (10, "nucleus", f"{number}/3")
        made.append(options["out"])
        made[-1].mkdir(parents=True)
    _, program, *command = said("slurm_shards.sh", **given)
    options = parsed(command)
    assert (options["out"], options["shards"]) == (Path(out), made)


def test_what_is_missing_is_said() -> None:
    with pytest.raises(subprocess.CalledProcessError) as caught:
        said("slurm_shards.sh", OUT="x", SHARDS="2")
    assert "COUNT: images in all" in caught.value.stderr


def test_a_training_on_several_nodes(tmp_path: Path) -> None:
    words = said("slurm_training.sh", "run", str(tmp_path), SLURM_NNODES="2", SLURM_GPUS_ON_NODE="4")
    assert words[:5] == ["torchrun", "--nnodes", "2", "--nproc-per-node", "4"]
    options = parsed(words[words.index("cytosynth") + 1 :])
    assert options["settings"] == ["data=[{root: normal_fields, split: train}]", "mixed_precision=bf16"]
    assert options["data_root"] == tmp_path
