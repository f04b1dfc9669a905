"""Precision, memory format, batches and text: what changes a pixel, and what does not to the bit."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderTiny

from cytosynth.cell.edit import CellEditor, PlannedEdit
from cytosynth.cell.settings import EditSettings
from cytosynth.errors import EnvironmentProblem, UserError
from cytosynth.foundation import precision as computing
from cytosynth.foundation import samplers, sampling, tiny_decoder
from cytosynth.foundation.load import load
from cytosynth.foundation.names import Precision
from cytosynth.foundation.pixels import to_pixels
from cytosynth.foundation.precision import prepare
from cytosynth.foundation.prompts import Prompts
from cytosynth.normal.generate import NormalImageGenerator
from cytosynth.normal.settings import GenerateSettings

PRECISIONS: list[Precision] = ["fp32", "bf16"]


def test_auto_is_what_the_machine_is_fast_at(monkeypatch: pytest.MonkeyPatch) -> None:
    for has, expected in ((True, "bf16"), (False, "fp32")):
        monkeypatch.setattr(computing, "cpu_has_bf16", lambda has=has: has)
        assert computing.resolved("auto", "cpu") == expected
    assert computing.resolved("fp16", "cpu") == "fp16"
    if not torch.cuda.is_available():
        assert computing.resolved("auto", "cuda:1") == "bf16", "of a worker elsewhere"


def test_half_precision_has_channels_last_and_fp32_stays_as_it_was(tiny: Path) -> None:
    for name in PRECISIONS:
        model = prepare(load(str(tiny / "foundation")), name)
        assert computing.precision_of(model) == name
        weights = [p for part in (model.unet, model.vae) for p in part.parameters() if p.ndim == 4 and min(p.shape) > 1]
        assert all(p.is_contiguous(memory_format=computing.memory_format(name)) for p in weights)
        assert {p.dtype for part in model.parts.values() for p in part.parameters()} == {model.unet.dtype}


def generator_of(tiny: Path, precision: Precision) -> NormalImageGenerator:
    return NormalImageGenerator(str(tiny / "foundation"), str(tiny / "normal"), "cpu", precision)


def test_a_field_in_fp32_is_that_of_the_loop_written_out(tiny: Path) -> None:
    generator, settings = generator_of(tiny, "fp32"), GenerateSettings(size=128, steps=3)
    model = generator.model
    with torch.no_grad():
        text = model.encode_text([generator.prompt, ""])
        latents = sampling.noise((1, model.channels, 128 // model.factor, 128 // model.factor), 4, 7, 1)
        scheduler = samplers.build("ddim", model.scheduler)
        scheduler.set_timesteps(3)
        for t in scheduler.timesteps:
            both = model.unet(torch.cat([latents, latents]), t, text.flip(0)).sample
            free, told = both.chunk(2)
            latents = scheduler.step(free + 5.0 * (told - free), t, latents).prev_sample
        written_out = model.decode_latents(latents)[0]
    assert np.array_equal(generator.field(4, 7, settings), written_out)


@pytest.fixture(params=(1, 2, 3), ids="{}-threads".format)
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    """Compute with so many threads: how a layer is divided among them decides how its values are rounded."""
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.mark.promise("Determinism")
@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_field_has_the_same_bits_alone_and_in_any_batch(precision: Precision, threads: int, tiny: Path) -> None:
    generator, settings = generator_of(tiny, precision), GenerateSettings(size=128, steps=2, batch=3)
    wanted = [(5, index) for index in range(5)]
    together = generator.fields(wanted, settings)
    for one, field in zip(wanted, together, strict=True):
        assert np.array_equal(generator.field(*one, settings), field)
    assert len({field.tobytes() for field in together}) == 5
    by_one = generator.fields(wanted, settings.model_copy(update={"batch": 1}))
    off = max(np.abs(a.astype(int) - b).max() for a, b in zip(by_one, together, strict=True))
    assert off <= (0 if threads > 1 else 2 if precision == "fp32" else 16)


@pytest.mark.promise("Determinism")
@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_cell_has_the_same_bits_alone_and_in_any_batch(precision: Precision, tiny: Path) -> None:
    editor = CellEditor.load(str(tiny / "foundation"), str(tiny / "cell"), "cpu", precision)
    rng = np.random.default_rng(0)
    settings = EditSettings(steps=2, batch=4, box_scale=1.0)
    requests = [(rng.integers(0, 256, (256, 256, 3), dtype=np.uint8),
                 PlannedEdit((90.0, 90.0, 140.0 + number, 150.0), ("HSIL", "LSIL", "ASC-US")[number % 3], number))
                for number in range(6)]  # fmt: skip
    together = editor.paint(requests, settings)
    for request, patch in zip(requests, together, strict=True):
        assert np.array_equal(editor.paint([request], settings)[0], patch)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_texts_are_embedded_once_to_the_bits_that_they_have_together(precision: Precision, tiny: Path) -> None:
    model = prepare(load(str(tiny / "foundation")).freeze(), precision)
    calls = []
    model.text_encoder.register_forward_pre_hook(lambda *_: calls.append(1))
    texts = ["a normal cell", "an abnormal cell", "", "a normal cell"]
    prompts = Prompts(model)
    with torch.no_grad():
        once, pooled = prompts.encode(texts), prompts.pool(texts)
        assert len(calls) == 6, "three texts, embedded and pooled"
        assert torch.equal(prompts.encode(texts), once)
        assert len(calls) == 6
        assert torch.equal(model.encode_text(texts), once)
        assert torch.equal(model.pool_text(texts), pooled)


def tiny_autoencoder(channels: int, folder: Path, halvings: int = 3) -> Path:
    torch.manual_seed(3)
    widths = (4,) * (halvings + 1)
    AutoencoderTiny(
        latent_channels=channels, encoder_block_out_channels=widths, decoder_block_out_channels=widths,
        num_encoder_blocks=(1,) * (halvings + 1), num_decoder_blocks=(1,) * (halvings + 1),
    ).save_pretrained(folder)  # fmt: skip
    return folder


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_tiny_decoder_decodes_what_the_own_one_would(precision: Precision, tiny: Path, tmp_path: Path) -> None:
    model = load(str(tiny / "foundation"))
    halvings = len(model.vae.config.block_out_channels) - 1
    folder = tiny_autoencoder(model.channels, tmp_path / "taesd", halvings)
    before = model.digest
    digest = tiny_decoder.attach(model, str(folder))
    assert len(digest) == 16
    assert model.digest == before
    prepare(model.freeze(), precision)
    theirs = AutoencoderTiny.from_pretrained(folder).to(
        model.unet.dtype, memory_format=computing.memory_format(precision)
    )
    latents = torch.randn(2, model.channels, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = to_pixels(theirs.decode(latents.to(theirs.dtype)).sample)
        assert np.array_equal(model.decode_latents(latents), expected)
    assert expected.std() > 1
    generator = NormalImageGenerator(model, None)
    assert generator.field(0, 0, GenerateSettings(size=128, steps=1)).shape == (128, 128, 3)


def test_what_is_no_tiny_decoder_for_these_latents(tiny: Path, tmp_path: Path) -> None:
    model = load(str(tiny / "foundation"))
    halvings = len(model.vae.config.block_out_channels) - 1
    other = tiny_autoencoder(model.channels + 1, tmp_path / "other", halvings)
    with pytest.raises(UserError, match=f"other: does not decode latents of {model.channels} channels"):
        tiny_decoder.attach(model, str(other))
    coarse = tiny_autoencoder(model.channels, tmp_path / "coarse", halvings - 1)
    with pytest.raises(UserError, match=r"coarse: 8x8 latents become \(3, "):
        tiny_decoder.attach(model, str(coarse))
    with pytest.raises(UserError, match="nothing-there: no such folder, and not a hub id"):
        tiny_decoder.attach(model, "nothing-there")
    with pytest.raises(EnvironmentProblem, match="madebyollin/taesd: not in the hub's cache"):
        tiny_decoder.attach(model, "madebyollin/taesd")
    assert model.tiny_decoder is None


@pytest.mark.slow
def test_compiled_networks_generate_the_same_field(tiny: Path) -> None:
    settings = GenerateSettings(size=64, steps=2)
    plain, compiled = generator_of(tiny, "fp32"), generator_of(tiny, "fp32")
    prepare(compiled.model, "fp32", compiled=True)
    assert prepare(compiled.model, "fp32", compiled=True).unet._compiled_call_impl is not None
    first, again = compiled.field(1, 0, settings), compiled.field(1, 0, settings)
    assert np.array_equal(first, again)
    assert np.abs(first.astype(int) - plain.field(1, 0, settings)).max() <= 2
