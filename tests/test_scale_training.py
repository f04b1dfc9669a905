"""Every trainer in two processes comes to what it comes to in one that accumulates the samples of both."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

pytestmark = pytest.mark.slow
SCRIPT = Path(__file__).with_name("together.py")
TOGETHER = ["-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", "29541"]


def run(arguments: list[str], out: Path) -> None:
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, env=environment)
    said = [line for line in done.stderr.splitlines() if "[rank0]" in line or "cytosynth" in line or "Error" in line]
    assert done.returncode == 0, "\n".join(said[-40:]) or done.stderr[-3000:]


def test_two_processes_train_as_one_does(tiny: Path, fields: Path, tmp_path: Path) -> None:
    given = [str(SCRIPT), str(tiny), str(fields)]
    run([*TOGETHER, *given, str(tmp_path / "two")], tmp_path)
    run([*given, str(tmp_path / "one"), "alone"], tmp_path)
    names = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert len(names) >= 9
    for name in names:
        moved = 0.0
        for file in sorted((tmp_path / "one" / name / "checkpoints/step-00000002").glob("weights*.safetensors")):
            one = load_file(file)
            two = load_file(tmp_path / "two" / name / file.relative_to(tmp_path / "one" / name))
            assert one.keys() == two.keys()
            for key in one:
                if "running_" in key or "num_batches" in key:
                    continue  # batch norm counts what it sees: one process of two sees half
                assert torch.allclose(one[key].float(), two[key].float(), rtol=1e-3, atol=1e-5), f"{name}: {key}"
                moved = max(moved, float(one[key].float().abs().max()))
        assert moved > 0, name
