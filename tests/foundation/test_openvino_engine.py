"""OpenVINO as the engine: the same images within rounding, the same bits again, one line where it cannot compute."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from diffusers import AutoencoderTiny

from cytosynth.cell.edit import CellEditor, PlannedEdit
from cytosynth.cell.settings import EditSettings
from cytosynth.config import override
from cytosynth.data.shard import Shard
from cytosynth.errors import EnvironmentProblem, UsageError, UserError
from cytosynth.foundation import openvino_engine, tiny_decoder
from cytosynth.foundation.load import load
from cytosynth.foundation.names import Precision
from cytosynth.foundation.precision import engine_of, precision_of, prepare
from cytosynth.normal.generate import NormalImageGenerator
from cytosynth.normal.settings import GenerateSettings
from cytosynth.scale.merge import merge
from cytosynth.slides import commands
from cytosynth.slides.pooled import pooled
from cytosynth.slides.settings import SlideSettings
from cytosynth.synthesis import models as loading
from cytosynth.synthesis import plan, synthesize
from cytosynth.synthesis.computing import decided
from cytosynth.synthesis.settings import COMMAND, PipelineSettings

needed = pytest.mark.skipif(
    openvino_engine.find_spec("openvino") is None, reason="needs the extra: pip install 'cytosynth[openvino]'"
)
FAST = ["normal.size=256", "normal.steps=2", "cell.steps=2", "threshold=0.1", "cell.box_scale=1.2", "max_cells=2"]


def chosen(*changes: str) -> PipelineSettings:
    return override(COMMAND.model_copy(update={"seed": 5}), [*FAST, "precision=fp32", *changes])


def models(tiny: Path) -> dict[str, str]:
    return {name: str(tiny / name) for name in ("foundation", "normal", "cell", "detector")}


def content(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


def off(a: np.ndarray, b: np.ndarray) -> int:
    return int(np.abs(a.astype(int) - b).max())


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Compute whole batches; on several threads images go one by one (`precision.at_a_time`)."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("changes", "device", "line"),
    [
        (["precision=fp16"], "cpu", "computes in fp32 or bf16, not in fp16"),
        (["compiled=true"], "cpu", r"torch.compile \(--compile\) has no effect on it"),
        ([], "cuda:1", "computes on CPUs only, not on cuda"),
    ],
)
def test_what_it_cannot_do_is_refused_before_anything_is_loaded(
    changes: list[str], device: str, line: str, tmp_path: Path
) -> None:
    settings = chosen("engine=openvino", *changes)
    with pytest.raises(UsageError, match=f"^engine=openvino: {line}"):
        synthesize.synthesize(tmp_path / "out", count=1, settings=settings, foundation="never-read", device=device)
    with pytest.raises(UsageError, match=f"^engine=openvino: {line}"):
        commands.slide(
            tmp_path / "out",
            SlideSettings(width=256, height=256, pipeline=settings),
            foundation="never-read",
            device=device,
        )
    assert not (tmp_path / "out").exists()


def test_without_the_package_a_line_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tiny: Path, tmp_path: Path
) -> None:
    monkeypatch.setattr(openvino_engine, "find_spec", lambda name: None)
    with pytest.raises(
        EnvironmentProblem, match=r"engine=openvino needs the extra: pip install 'cytosynth\[openvino\]'"
    ):
        synthesize.synthesize(tmp_path / "out", count=1, settings=chosen("engine=openvino"), foundation="never-read")
    model = load(str(tiny / "foundation")).freeze()
    with pytest.raises(EnvironmentProblem, match="needs the extra"):
        prepare(model, "fp32", engine="openvino")
    assert engine_of(prepare(model, "fp32", engine="torch")) == engine_of(prepare(model, "fp32")) == "torch"


@needed
def test_a_cpu_without_bf16_is_told_to_take_fp32(monkeypatch: pytest.MonkeyPatch) -> None:
    class Old:
        def get_property(self, *_: str) -> list[str]:
            return ["FP32", "INT8"]

    monkeypatch.setattr(openvino_engine, "_core", Old)
    with pytest.raises(EnvironmentProblem, match="this CPU has no bf16 for OpenVINO; use precision=fp32"):
        openvino_engine.check("bf16", False, "cpu")
    openvino_engine.check("fp32", False, "cpu")


def test_what_is_left_open_is_what_is_written_or_torch() -> None:
    assert PipelineSettings().engine == "torch", "of settings that were written before there was an engine"
    assert decided(chosen(), None, "cpu").engine == "torch"
    first = PipelineSettings(precision="fp32", engine="openvino", cell=EditSettings(batch=4))
    if openvino_engine.find_spec("openvino"):
        assert decided(chosen(), first, "cpu").engine == "openvino"
    assert decided(chosen("engine=torch"), first, "cpu").engine == "torch"


@needed
@pytest.mark.parametrize("distilled", [None, "bundled"], ids=["guided", "few-step"])
def test_bundled_models_make_the_same_images_in_fp32(distilled: str | None, one_thread: None) -> None:
    generator, editor = NormalImageGenerator(distilled=distilled), CellEditor.load(distilled=distilled)
    steps = {"steps": 4, "sampler": "tcd", "guidance_scale": 1.0} if distilled else {"steps": 3}
    field = GenerateSettings(size=256, **steps)
    cell = editor.settled(EditSettings(batch=2, **steps), real=False)
    boxes = [(100.0, 100.0, 150.0, 150.0), (20.0, 20.0, 60.0, 70.0), (150.0, 30.0, 200.0, 70.0)]
    edits = [PlannedEdit(box, name, 3) for box, name in zip(boxes, editor.categories, strict=False)]
    ours = generator.field(1, 0, field)
    painted = editor.paint([(ours, one) for one in edits], cell)
    for model in (generator.model, editor.model):
        prepare(model, "fp32", engine="openvino")
        assert (engine_of(model), precision_of(model)) == ("openvino", "fp32")
    theirs = generator.field(1, 0, field)
    assert off(theirs, ours) <= 2
    assert theirs.std() > 5
    for one, other in zip(editor.paint([(ours, one) for one in edits], cell), painted, strict=True):
        assert off(one, other) <= 2
    for network in (generator.model.unet, editor.model.unet, editor.model.vae.encoder, editor.model.vae.decoder):
        converted = openvino_engine.of(network)
        assert converted is not None and converted._requests, "it was OpenVINO that computed"


@needed
@pytest.mark.promise("Determinism")
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_fields_and_cells_have_the_same_bits_alone_and_in_any_batch(
    precision: Precision, tiny: Path, one_thread: None
) -> None:
    if precision == "bf16" and "BF16" not in openvino_engine._core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        pytest.skip("this CPU has no bf16 for OpenVINO")
    generator = NormalImageGenerator(str(tiny / "foundation"), str(tiny / "normal"))
    editor = CellEditor.load(str(tiny / "foundation"), str(tiny / "cell"))
    for model in (generator.model, editor.model):
        prepare(model, precision, engine="openvino")
    settings = GenerateSettings(size=128, steps=2, batch=3)
    together = generator.fields([(5, index) for index in range(5)], settings)
    for index, field in enumerate(together):
        assert np.array_equal(generator.field(5, index, settings), field)
    assert len({field.tobytes() for field in together}) == 5
    rng = np.random.default_rng(0)
    cells = EditSettings(steps=2, batch=4, box_scale=1.0)
    requests = [(rng.integers(0, 256, (256, 256, 3), dtype=np.uint8),
                 PlannedEdit((90.0, 90.0, 140.0 + number, 150.0), ("HSIL", "LSIL", "ASC-US")[number % 3], number))
                for number in range(6)]  # fmt: skip
    for request, patch in zip(requests, editor.paint(requests, cells), strict=True):
        assert np.array_equal(editor.paint([request], cells)[0], patch)


@needed
@pytest.mark.promise("Generation survives being killed")
def test_a_run_continues_with_its_engine_and_refuses_another(tiny: Path, tmp_path: Path) -> None:
    whole, out = tmp_path / "whole", tmp_path / "out"
    synthesize.synthesize(whole, count=2, settings=chosen("engine=openvino"), **models(tiny))
    assert yaml.safe_load((whole / "settings.yaml").read_text())["settings"]["engine"] == "openvino"
    assert plan.read(whole / "plan.json").base().engine == "openvino"
    synthesize.synthesize(out, count=1, start=1, settings=chosen("engine=openvino"), **models(tiny))
    assert (out / "images/000001.png").read_bytes() == (whole / "images/000001.png").read_bytes()
    seen: list[Any] = []

    def load(given: loading.Models) -> Any:
        seen.append(loading.load(given))
        return seen[0]

    synthesize.synthesize(out, count=2, settings=chosen(), load=load, **models(tiny))
    assert engine_of(seen[0].editor.model) == engine_of(seen[0].generator.model) == "openvino"
    assert content(out) == content(whole)
    with pytest.raises(UsageError, match=r"this run was started with another engine \(openvino, not torch\)"):
        synthesize.synthesize(out, count=2, settings=chosen("engine=torch"), **models(tiny))


def test_a_shard_of_another_engine_is_named(tiny: Path, tmp_path: Path) -> None:
    for number in (1, 2):
        synthesize.synthesize(
            tmp_path / str(number), count=2, settings=chosen(), shard=Shard(number, 2), **models(tiny)
        )
    file = tmp_path / "2/settings.yaml"
    file.write_text(file.read_text().replace("engine: torch", "engine: openvino"))
    with pytest.raises(UserError, match=r"2: made with another engine \(openvino, not torch\) than .*1 "):
        merge(tmp_path / "never", [tmp_path / "1", tmp_path / "2"])


@needed
def test_a_pooled_decoder_is_converted_with_its_statistics(tiny: Path) -> None:
    model = load(str(tiny / "foundation")).freeze()
    places = torch.randn(2, 4, 16, 16, generator=torch.Generator().manual_seed(1))
    latents = torch.randn(1, 4, 24, 24, generator=torch.Generator().manual_seed(2))
    expected = pooled(model, places).decode_latents(latents)
    prepare(model, "fp32", engine="openvino")
    fixed = pooled(model, places)
    assert off(fixed.decode_latents(latents), expected) <= 1
    assert openvino_engine.of(fixed.vae.decoder)
    assert off(model.decode_latents(latents), expected) > 1, "statistics of its own"


@needed
def test_a_tiny_decoder_is_converted_too(tiny: Path, tmp_path: Path) -> None:
    model = load(str(tiny / "foundation"))
    widths = (4,) * len(model.vae.config.block_out_channels)
    torch.manual_seed(0)
    AutoencoderTiny(
        latent_channels=model.channels, encoder_block_out_channels=widths, decoder_block_out_channels=widths,
        num_encoder_blocks=(1,) * len(widths), num_decoder_blocks=(1,) * len(widths),
    ).save_pretrained(tmp_path / "taesd")  # fmt: skip
    tiny_decoder.attach(model, str(tmp_path / "taesd"))
    latents = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = model.freeze().decode_latents(latents)
        prepare(model, "fp32", engine="openvino")
        assert off(model.decode_latents(latents), expected) <= 1
    assert model.tiny_decoder is not None and expected.std() > 1
    converted = openvino_engine.of(model.tiny_decoder.decoder)
    assert converted is not None and converted._requests
