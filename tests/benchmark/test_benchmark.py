"""The benchmark on tiny models: what it counts is right, what it writes can be read."""

import json
import shutil
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import killing
from cytosynth.benchmark import compare, flops, models, stages
from cytosynth.benchmark.benchmark import benchmark
from cytosynth.benchmark.settings import BenchmarkSettings, quick
from cytosynth.benchmark.stopwatch import Memory, Stopwatch
from cytosynth.cell.settings import EditSettings
from cytosynth.config import override
from cytosynth.errors import UsageError
from cytosynth.foundation import sd15
from cytosynth.foundation.load import load
from cytosynth.io.progress import meter
from cytosynth.normal.generate import NormalImageGenerator
from cytosynth.normal.low_frequencies import LowFrequencies
from cytosynth.normal.settings import GenerateSettings
from cytosynth.synthesis.models import NONE, Models
from cytosynth.synthesis.settings import COMMAND

FAST = ["normal.size=256", "normal.steps=2", "cell.steps=2", "cell.batch=2", "cell.box_scale=1.2"]
CPU = torch.device("cpu")


def named(tiny: Path, settings: BenchmarkSettings) -> Models:
    paths = {name: str(tiny / name) for name in ("foundation", "cell", "detector", "normal")}
    return Models(gate=NONE, generates=True, settings=settings.pipeline, **paths)


def chosen(*changes: str) -> BenchmarkSettings:
    pipeline = override(COMMAND, [*FAST, *changes])
    return BenchmarkSettings(counts=(1, 2), sides=(256,), cells=3, repeats=1, paper_steps=2, pipeline=pipeline)


def test_seconds_are_those_of_the_innermost_stage_and_of_each_thread() -> None:
    clock = Stopwatch(CPU)

    class Owner:
        def inner(self, seconds: float) -> str:
            time.sleep(seconds)
            return "done"

    owner = Owner()
    clock.watch(owner, "inner", "inner")

    def beside() -> None:
        with clock.stage("beside"):
            time.sleep(0.3)

    thread = threading.Thread(target=beside)
    begun = time.perf_counter()
    with clock.stage("outer"):
        thread.start()
        time.sleep(0.1)
        assert owner.inner(0.2) == "done"
        time.sleep(0.1)
    total = time.perf_counter() - begun
    thread.join()
    assert clock.seconds["outer"] + clock.seconds["inner"] == pytest.approx(total, abs=0.01)
    assert clock.seconds["inner"] >= 0.2
    assert clock.seconds["outer"] >= 0.2
    assert clock.seconds["beside"] >= 0.3


def test_the_peak_of_memory_is_that_of_the_block() -> None:
    with Memory(CPU) as before:
        time.sleep(0.05)
    with Memory(CPU) as memory:
        held = np.ones(64 << 20, dtype=np.uint8)
        time.sleep(0.3)
    assert memory.peak - before.peak > 32 << 20
    del held


def test_operations_are_counted_as_by_hand_and_as_on_real_tensors(tiny: Path) -> None:
    convolution = nn.Conv2d(3, 5, 3, padding=1)
    with FlopCounterMode(display=False) as counter:
        convolution(torch.zeros(1, 3, 16, 16))
    assert counter.get_total_flops() == 2 * 3 * 5 * 9 * 16 * 16, "a multiplication and an addition are two"
    model = load(str(tiny / "foundation"))
    settings = GenerateSettings(size=128, steps=3)
    side = 128 // model.factor
    with torch.no_grad(), torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        text = model.encode_text(["a", ""])
        with FlopCounterMode(display=False) as counter:
            model.unet(torch.zeros(2, model.channels, side, side), 1, text)
        assert flops.field(model, settings) == 3 * counter.get_total_flops()
        with FlopCounterMode(display=False) as counter:
            model.decode_latents(torch.zeros(1, model.channels, side, side))
        assert flops.decoding(model, 128) == counter.get_total_flops()
    unguided = settings.model_copy(update={"guidance_scale": 1.0})
    assert flops.field(model, unguided) == flops.field(model, settings) / 2
    pipeline = models.loaded(named(tiny, chosen()), 3, "fp32", random=False)
    one, four = (flops.cells(pipeline.editor.model, EditSettings(), count) for count in (1, 4))
    assert four == 4 * one > 0


def test_tables_of_tiny_models(tiny: Path, tmp_path: Path) -> None:
    tables = benchmark(tmp_path / "out", chosen(), named(tiny, chosen()))
    assert set(tables) == {"speed", "speed_count", "speed_side", "speed_diffusers"}
    written = {path.name for path in (tmp_path / "out").iterdir()}
    assert written == {f"{name}.{kind}" for name in tables for kind in ("md", "csv", "json")} | {"speed.png"}
    speed = tables["speed"]
    rows = {str(row[0]): row for row in speed.rows}
    parts = [rows[stages_name][1] for name, stages_name in _about().items() if name != stages.WRITE]
    assert sum(parts) == pytest.approx(rows["an image in all, models loaded"][1], rel=1e-6)
    assert all(part > 0 for part in parts)
    assert (speed.facts["images"], speed.facts["cells_an_image"]) == (2, 3)
    assert [row[0] for row in tables["speed_count"].rows] == [1, 2]
    assert [row[0] for row in tables["speed_side"].rows] == [256]
    compared = {str(row[0]): row for row in tables["speed_diffusers"].rows}
    (off,) = [row for name, row in compared.items() if name.startswith("its pixels differ by at most")]
    assert 0 <= off[2] <= 2, "the same field as diffusers' own pipeline draws"
    assert off[3] <= 40
    assert compared["its pixels differ in the mean by"][1] < 2
    assert compared["a field, s"][1] > 0
    json.loads((tmp_path / "out/speed_diffusers.json").read_text())


def _about() -> dict[str, str]:
    from cytosynth.benchmark.reports import ABOUT

    return ABOUT


def test_random_models_have_the_size_that_is_said(monkeypatch: pytest.MonkeyPatch, tiny: Path) -> None:
    narrow = {"block_out_channels": [32] * 4}
    for config, changes in ((sd15.UNET, narrow), (sd15.VAE, narrow), (sd15.TEXT, {"num_hidden_layers": 1})):
        for key, value in changes.items():
            monkeypatch.setitem(config, key, value)
    settings = chosen("normal.steps=1", "cell.steps=1")
    first, again = (models.loaded(named(tiny, settings), 2, "bf16", random=True) for _ in range(2))
    assert first.generator is not None
    weights = first.generator.model.unet.state_dict()
    assert all(torch.equal(value, weights[key]) for key, value in again.generator.model.unet.state_dict().items())
    assert weights["conv_in.weight"].dtype == torch.bfloat16
    run = stages.run(first, stages.watched(first), 1, first.settle(settings.pipeline), tiny / "random")
    assert (run.images, run.cells) == (1, 2)


def test_a_quick_look_and_what_cannot_be_measured(cytosynth: killing.Server, tiny: Path, tmp_path: Path) -> None:
    small = quick(BenchmarkSettings())
    assert (small.counts, small.sides, small.pipeline.normal.steps) == ((1, 2), (256, 512), 4)
    with pytest.raises(UsageError, match=r"--sides 100: multiples of 64 from 256 pixels on"):
        BenchmarkSettings(sides=(100,)).check()
    paths = [flag for name in ("foundation", "cell", "detector", "normal") for flag in (f"--{name}", str(tiny / name))]
    given = ["--quick", "--counts", "1", "--sides", "256", "--cells", "2", *paths]
    few = [flag for change in ("normal.steps=1", "cell.steps=1", "cell.box_scale=1.2") for flag in ("--set", change)]
    ended = cytosynth.run("benchmark", str(tmp_path / "out"), *given, *few, "--json")
    assert ended.code == 0, ended.err
    found = json.loads(ended.out)
    assert found["speed"]["images"] == 1
    assert found["speed_side"]["rows"][0]["side"] == 256
    wrong = cytosynth.run("benchmark", str(tmp_path / "out"), "--counts", "8;16")
    assert (wrong.code, wrong.err.count("\n")) == (2, 1)
    assert "--counts 8;16: expected whole numbers with commas between" in wrong.err


def test_diffusers_begins_with_the_same_noise(tiny: Path, tmp_path: Path) -> None:
    """A field that begins with low frequencies would be another than that of diffusers."""
    adapter = tmp_path / "normal"
    shutil.copytree(tiny / "normal", adapter)
    rng = np.random.default_rng(0)
    LowFrequencies.of([torch.from_numpy(rng.normal(size=(4, 16, 16))).float() for _ in range(8)]).save(adapter)
    full = NormalImageGenerator(str(tiny / "foundation"), str(adapter))
    ours = NormalImageGenerator(str(tiny / "foundation"), str(adapter))
    assert full.low_frequencies is not None
    settings = full.settled(GenerateSettings(size=64, steps=2))
    assert settings.low_frequencies
    with meter("fields", 8) as bar:
        _, apart = compare.fields(ours, full, settings, 1, bar)
    assert apart["as it ships"][0] <= 1
