"""What several processes come to that train together is what one comes to that accumulates their samples."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from accelerate import PartialState
from safetensors.torch import load_file

from cytosynth import devices, registry
from cytosynth.training import batches
from processes import ADAPTERS, STEPS, parts

pytestmark = pytest.mark.slow
PARTS = ["autoencoder", "decoder", "text", "denoiser", "cell", "features", "cross-fitting", "distilled normal",
         "distilled cell", *ADAPTERS, *registry.DETECTORS]  # fmt: skip


@pytest.fixture(scope="module")
def together(tiny: Path, fields: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of every part by two processes."""
    out = tmp_path_factory.mktemp("together")
    script = Path(__file__).parents[1] / "processes.py"
    run = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", "29534", str(script),
         str(tiny), str(fields), str(out)],
        capture_output=True, text=True, env=os.environ | {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert run.returncode == 0, run.stderr[-4000:]
    return out


@pytest.mark.parametrize("name", PARTS)
def test_two_processes_and_one_come_to_the_same_weights(
    name: str, together: Path, tiny: Path, fields: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One process gets, in its two micro-steps, the samples and the noise that two processes get in one."""
    seeded = batches.seeded
    monkeypatch.setattr(batches, "seeded", lambda seed, rank, step, micro: seeded(seed, micro, step, rank))
    monkeypatch.setenv(devices.ACCELERATE, "cpu")
    PartialState._reset_state()
    recipe, start = parts(tiny, fields)[name]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as many as torchrun gives each process: sums in another order differ in the last digits
    try:
        start(recipe.model_copy(update={"gradient_accumulation": 2}), tmp_path)
    finally:
        torch.set_num_threads(threads)
    ends = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob(f"step-{STEPS:08d}"))
    assert len(ends) == (2 if name == "cross-fitting" else 1)
    for end in ends:
        one, two = (load_file(run / end / "weights.safetensors") for run in (tmp_path, together / name))
        before = load_file(tmp_path / end.with_name(f"step-{STEPS - 1:08d}") / "weights.safetensors")
        assert one.keys() == two.keys()
        trained = [key for key in one if "running_" not in key and "num_batches" not in key]
        moved = max(float((one[key] - before[key]).abs().max()) for key in trained)
        apart = {key: float((one[key] - two[key]).abs().max()) for key in trained}
        worst = max(apart, key=lambda key: apart[key])
        assert moved > 1e-5, "a step moves something"
        assert apart[worst] < 1e-2 * moved, f"{worst}: {apart[worst]:.2g} apart, where a step moves {moved:.2g}"
        averaged = [load_file(run / end / "ema.safetensors") for run in (tmp_path, together / name)]
        assert all(torch.allclose(averaged[0][key], averaged[1][key], atol=1e-2 * moved) for key in averaged[0])
