"""Sharpening a decoder: its losses against values known by hand, and what the measures of sharpness say."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL
from safetensors.torch import load_file, save_file
from torch import nn
from typer.testing import CliRunner

from cytosynth.cli import app
from cytosynth.cli import evaluate as _commands  # noqa: F401
from cytosynth.data.sources import Source
from cytosynth.errors import UserError
from cytosynth.evaluate import reconstruction
from cytosynth.evaluate.networks import features
from cytosynth.foundation.load import load
from cytosynth.foundation.pixels import scaled, to_pixels
from cytosynth.foundation.scratch import sharpness
from cytosynth.foundation.scratch.discriminator import Discriminator, adaptive_weight, hinge, r1
from cytosynth.foundation.scratch.perceptual import STRIDES, Perceptual
from cytosynth.foundation.scratch.recipe import DecoderRecipe
from cytosynth.foundation.scratch.regenerated import MARGIN, RESERVED, Regenerated
from cytosynth.foundation.scratch.train import read_autoencoder, train_decoder
from cytosynth.io.tensors import weights_digest

SCRIPT = Path(__file__).parents[2] / "examples/regenerate.py"


def waves(*cycles: float) -> np.ndarray:
    """Return (128, 128, 3) bytes: waves of so many cycles a pixel, of equal height."""
    across = np.arange(128)
    image = 128 + sum(30 * np.sin(2 * np.pi * cycle * across) for cycle in cycles)
    return np.repeat(np.round(np.tile(image, (128, 1)))[..., None], 3, axis=2).astype(np.uint8)


def test_octaves_gradient_and_fine_detail_of_known_images() -> None:
    coarse, fine = waves(3 / 128), waves(40 / 128)
    assert sharpness.octaves(sharpness.brightness(coarse)).argmax() == 0, "1/64 to 1/32 of a cycle a pixel"
    assert sharpness.octaves(sharpness.brightness(fine)).argmax() == 4, "a quarter to half a cycle a pixel"
    both = waves(3 / 128, 40 / 128)
    lost = sharpness.compare(both, coarse)
    assert lost.power[0] == pytest.approx(1, abs=0.02) and lost.power[4] < 0.01
    assert lost.gradient < 0.3
    noisy = np.clip(coarse + np.random.default_rng(0).normal(0, 12, (128, 128, 1)), 0, 255).astype(np.uint8)
    added = sharpness.compare(both, noisy)
    assert added.power[4] > 0.05 and abs(added.fine) < 0.1, "noise has the power and nothing of the detail"
    kept = sharpness.compare(both, both)
    assert kept.fine == pytest.approx(1) and kept.gradient == 1 and kept.power == pytest.approx((1,) * 5)
    assert sharpness.distance([kept]) == pytest.approx(0)
    halved = kept._replace(power=(1.0, 1.0, 1.0, 0.5, 0.25))
    assert sharpness.distance([halved]) == pytest.approx(3 / 5), "octaves off, mean over bands"
    assert sharpness.compare(both, np.minimum(both, 254) + np.uint8(1)).psnr == pytest.approx(
        20 * np.log10(255), abs=0.1
    )


def test_the_discriminator_moves_images_through_fixed_weights() -> None:
    torch.manual_seed(0)
    network, images = Discriminator(4), torch.randn(2, 3, 64, 64, requires_grad=True)
    assert torch.equal(network.fixed(images), network(images))
    network.fixed(images).sum().backward()
    assert images.grad is not None and images.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in network.parameters())
    assert float(hinge(torch.tensor([2.0, 0.5]), torch.tensor([-3.0, 0.0]))) == pytest.approx(0.25 + 0.5)
    linear = Discriminator(1)
    linear.layers = nn.Sequential(nn.Conv2d(3, 1, 1, bias=False))
    weights = linear.layers[0].weight.detach().flatten()  # type: ignore[operator, union-attr]
    assert float(r1(linear, images).detach()) == pytest.approx(float(weights.square().sum()) / 64**2)


@pytest.mark.parametrize(("halvings", "seen"), [(1, 10), (2, 22), (3, 46)])
def test_the_discriminator_sees_patches_of_the_stated_size(halvings: int, seen: int) -> None:
    torch.manual_seed(0)
    network, image = Discriminator(4, halvings), torch.randn(1, 3, 128, 128, requires_grad=True)
    scores = network(image)
    assert scores.shape[-1] == 128 // 2**halvings - 1
    scores[0, 0, scores.shape[-2] // 2, scores.shape[-1] // 2].backward()
    assert image.grad is not None
    rows = image.grad.abs().sum((0, 1, 3)).nonzero().flatten()
    assert int(rows.max() - rows.min()) + 1 == seen


def test_the_adaptive_weight_balances_both_losses_up_to_its_cap() -> None:
    last = nn.Parameter(torch.tensor([1.0, -2.0]))
    pixels, adversarial = (3 * last).sum(), (6 * last).sum()
    assert float(adaptive_weight(pixels, adversarial, last, 9.0)) == pytest.approx(0.5, rel=1e-4)
    pixels, adversarial = (3 * last).sum(), (6 * last).sum()
    assert float(adaptive_weight(pixels, adversarial, last, 0.1)) == pytest.approx(0.1)
    assert not adaptive_weight((3 * last).sum(), last.sum(), last, 9.0).requires_grad


def test_the_perceptual_loss_sees_blur_and_not_itself() -> None:
    network = Perceptual().train()
    assert not any(parameter.requires_grad for parameter in network.parameters())
    torch.manual_seed(0)
    image = nn.functional.interpolate(torch.rand(1, 3, 16, 16), 64, mode="nearest") * 2 - 1
    blurred = [nn.functional.avg_pool2d(image, size, 1, size // 2, count_include_pad=False) for size in (3, 7)]
    assert float(network(image, image)) == 0
    assert 0 < float(network(blurred[0], image)) < float(network(blurred[1], image)) < 4 * len(STRIDES)
    assert [64 // maps.shape[-1] for maps in network.normalised(image)] == list(STRIDES)


def test_what_an_autoencoder_preserves_is_reported_with_real_against_real(
    tiny: Path, fields: Path, tmp_path: Path
) -> None:
    ran = CliRunner().invoke(
        app,
        ["evaluate", "reconstruction", str(fields / "drawn"), "--split", "all", "--scale", "1.5",
         "--output", str(tmp_path), "--autoencoder", str(tiny / "foundation/vae"),
         "--foundation", str(tiny / "foundation"), "--zoom", "1", "--zoom", "2"],
    )  # fmt: skip
    assert ran.exit_code == 0, ran.output
    said = json.loads((tmp_path / "autoencoder.json").read_text())
    assert [row["zoom"] for row in said["rows"]] == [1, 2, 1, 2]
    one, enlarged, other, _ = said["rows"]
    assert enlarged["PSNR, dB"] != one["PSNR, dB"]
    assert {one["autoencoder"], other["autoencoder"]} == {"foundation", "vae"}
    assert one["PSNR, dB"] == other["PSNR, dB"] and one["factor"] == 8 and one["C"] == 4
    assert (tmp_path / "reconstruction_vae.png").exists()
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (224, 224, 3), dtype=np.uint8) for _ in range(8)]
    network = features.load("efficientnet-lite0")
    made, real = reconstruction.kernel_distances(images, images, network)
    assert made == real, "an autoencoder that keeps everything is as far from other images as they are"
    worse, floor = reconstruction.kernel_distances(images, [image // 4 for image in images], network)
    assert worse > floor == real
    ran = CliRunner().invoke(app, ["evaluate", "reconstruction", str(fields / "drawn"), "--split", "test"])
    assert ran.exit_code == 1 and "needs two images and 8 windows" in str(ran.exception)


def test_only_the_decoder_is_sharpened(tiny: Path, fields: Path, tmp_path: Path) -> None:
    recipe = DecoderRecipe(
        data=[Source(root="drawn")], crops=[64], batch_size=1, max_steps=2, adversarial_start=1, r1_share=1.0,
        log_every=1, validate_every=2, preview_every=2, learning_rate=1e-3,
    )  # fmt: skip
    outcome = train_decoder(recipe, tiny / "foundation/vae", tmp_path, fields)
    before = load_file(tiny / "foundation/vae/diffusion_pytorch_model.safetensors")
    after = load_file(outcome.selected / "diffusion_pytorch_model.safetensors")
    assert before.keys() == after.keys(), "no discriminator, no network of the loss"
    for key, value in before.items():
        trained = key.startswith(("decoder.", "post_quant_conv."))
        assert torch.equal(value, after[key]) != trained or not value.any(), key
    first, second = (json.loads(line) for line in (tmp_path / "stats.jsonl").read_text().splitlines())
    assert first["adaptive weight"] == 0 < second["adaptive weight"] <= 0.5
    assert second["adversary"] > second["hinge"], "R1 is part of it"


def written(path: Path, vae: AutoencoderKL, *, without: str = "", **others: torch.Tensor) -> Path:
    """Write latents of ten images of 96 pixels at `path`: each value says where it is, and so do their pixels."""
    places, rows = torch.arange(12, dtype=torch.float16), torch.arange(96) // 8
    latents = (places[:, None] * 100 + places).expand(10, 4, 12, 12)
    pixels = torch.stack([rows[:, None].expand(-1, 96), rows.expand(96, -1), torch.zeros(96, 96)], dim=-1)
    sampled = torch.zeros(2, 4, 12, 12).half()
    found = {"latents": latents, "pixels": pixels.to(torch.uint8).expand(10, -1, -1, -1), "sampled": sampled, **others}
    found = {name: value.contiguous() for name, value in found.items() if name != without}
    save_file(found, str(path), {"encoder": weights_digest(vae.encoder, vae.quant_conv)})
    return path


def test_crops_of_regenerated_latents_show_their_image(tiny: Path, tmp_path: Path) -> None:
    vae = read_autoencoder(tiny / "foundation/vae")
    source = Regenerated(written(tmp_path / "again.safetensors", vae), vae, 64)
    source.latents[:RESERVED] = -1
    corners = set()
    for seed in range(8):
        latents, targets, sampled = source.batch(np.random.default_rng(seed), 3, 32)
        assert latents.shape == (3, 4, 8, 8) and targets.shape == (3, 3, 32, 32) and sampled.shape == (2, 4, 8, 8)
        for latent, image in zip(latents, (targets * 127.5 + 127.5).round(), strict=True):
            inner = latent[0, MARGIN:-MARGIN, MARGIN:-MARGIN]
            assert torch.equal(inner, image[0, ::8, ::8] * 100 + image[1, ::8, ::8]), "of the same place"
            assert inner.min() >= 0, "the first are reserved"
            corners.add(float(inner[0, 0]))
    assert len(corners) > 4, "at random places"
    assert source.batch(np.random.default_rng(0), 1, 64).latents.shape == (1, 4, 12, 12)
    decoded = torch.arange(64.0).expand(1, 3, 64, 64)
    assert torch.equal(source.inner(decoded), decoded[:, :, 16:48, 16:48])


def blank(*shape: int) -> torch.Tensor:
    """Return zeros."""
    return torch.zeros(shape)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("latents", blank(9, 4, 11, 11), "latents (9, 4, 11, 11): must be at least 9, and 12 a side"),
        ("latents", blank(8, 4, 12, 12), "latents (8, 4, 12, 12): must be at least 9, and 12 a side"),
        ("sampled", blank(0, 4, 12, 12), "sampled (0, 4, 12, 12): must be at least 1, and 12 a side"),
        ("sampled", blank(), "sampled () torch.float32: floats (n, 4, h, w) are expected"),
        ("latents", blank(9, 8, 12, 12), "latents (9, 8, 12, 12) torch.float32: floats (n, 4, h, w) are expected"),
        ("sampled", blank(1, 4, 9, 9).long(), "sampled (1, 4, 9, 9) torch.int64: floats (n, 4, h, w) are expected"),
        ("latents", blank(10, 4, 12, 12) / 0, "latents has values that are not finite; the file is damaged"),
        ("pixels", blank(9, 96, 96, 3).byte(), "pixels (9, 96, 96, 3) torch.uint8: bytes (10, 96, 96, 3) expected"),
        ("pixels", blank(10, 96, 96, 3), "pixels (10, 96, 96, 3) torch.float32: bytes (10, 96, 96, 3) expected"),
        ("sampled", None, "holds no tensor 'sampled'; give a file of examples/regenerate.py"),
    ],
)  # fmt: skip
def test_a_file_of_other_latents_is_refused(
    name: str, value: torch.Tensor | None, said: str, tiny: Path, tmp_path: Path
) -> None:
    vae = read_autoencoder(tiny / "foundation/vae")
    given = {"without": name} if value is None else {name: value}
    path = written(tmp_path / "again.safetensors", vae, **given)
    with pytest.raises(UserError) as refused:
        Regenerated(path, vae, 64)
    assert str(refused.value) == f"{path}: {said}"


def sharpened(tiny: Path, fields: Path, run: Path, **settings: Any) -> Path:
    """Train a decoder on regenerated latents in `run`; return the folder of its last weights."""
    defaults = {
        "data": [Source(root="drawn")], "crops": [64], "batch_size": 4, "max_steps": 2, "adversarial_start": 1,
        "r1_share": 1.0, "log_every": 1, "preview_every": 2, "learning_rate": 1e-3, "discriminator_halvings": 3,
    }  # fmt: skip
    recipe = DecoderRecipe.model_validate(defaults | settings)
    return train_decoder(recipe, tiny / "foundation/vae", run, fields).weights


def test_a_decoder_is_sharpened_on_what_its_generator_makes(tiny: Path, fields: Path, tmp_path: Path) -> None:
    path = written(tmp_path / "again.safetensors", read_autoencoder(tiny / "foundation/vae"))
    weights = sharpened(tiny, fields, tmp_path / "run", regenerated=str(path), validate_every=1)
    before = load_file(tiny / "foundation/vae/diffusion_pytorch_model.safetensors")
    after = load_file(weights / "diffusion_pytorch_model.safetensors")
    assert before.keys() == after.keys(), "the decoder as it was is not among them"
    assert not torch.equal(before["decoder.conv_out.weight"], after["decoder.conv_out.weight"])
    assert torch.equal(before["encoder.conv_in.weight"], after["encoder.conv_in.weight"])
    first, second = (json.loads(line) for line in (tmp_path / "run/stats.jsonl").read_text().splitlines())
    assert first["sampled"] == pytest.approx(0, abs=1e-6), "what is coarse is held to the decoder before"
    assert second["sampled"] > 1e-4
    assert first["regenerated"] > 0 and first["adaptive weight"] == 0 < second["adaptive weight"]
    # Weights are selected by images of the latents that are set aside, not by reconstructions.
    vae = read_autoencoder(weights)
    source = Regenerated(path, vae, 64)
    with torch.no_grad():
        images = to_pixels(vae.decode(source.latents[:RESERVED].float()).sample)
    of = [sharpness.compare(*pair) for pair in zip(source.pixels[:RESERVED].numpy(), images, strict=True)]
    scores = [json.loads(line) for line in (tmp_path / "run/validation.jsonl").read_text().splitlines()]
    assert scores[-1]["score"] == pytest.approx(sharpness.distance(of), rel=1e-3)
    # Stopped and continued, it ends at the same bytes.
    sharpened(tiny, fields, tmp_path / "again", regenerated=str(path), max_steps=1)
    continued = sharpened(tiny, fields, tmp_path / "again", regenerated=str(path), max_steps=2)
    file = "diffusion_pytorch_model.safetensors"
    assert (continued / file).read_bytes() == (weights / file).read_bytes()
    written(path, read_autoencoder(tiny / "foundation/vae"), sampled=torch.ones(2, 4, 12, 12).half())
    with pytest.raises(UserError, match="regenerated_digest"):
        sharpened(tiny, fields, tmp_path / "again", regenerated=str(path), max_steps=3)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"batch_size": 2}, "batch_size=2: with `regenerated` it must be at least 3"),
        ({"crops": [64, 60]}, "crops=[64, 60]: with `regenerated`, 60 must be a multiple of 8"),
        ({"regenerated": "nothing.safetensors"}, "nothing.safetensors: no such file"),
    ],
)
def test_settings_that_do_not_fit_are_refused_before_anything_is_written(
    settings: dict[str, Any], said: str, tiny: Path, fields: Path, tmp_path: Path
) -> None:
    path = written(tmp_path / "again.safetensors", read_autoencoder(tiny / "foundation/vae"))
    with pytest.raises(UserError) as refused:
        sharpened(tiny, fields, tmp_path / "run", **{"regenerated": str(path)} | settings)
    assert str(refused.value) == said and not (tmp_path / "run").exists()
    with pytest.raises(ValueError, match="discriminator_halvings 5: needs crops of at least 64 pixels, not 32"):
        DecoderRecipe(data=[], crops=[32], discriminator_halvings=5)


def regenerate(*words: str | Path) -> subprocess.CompletedProcess[str]:
    """Run the script."""
    command = [sys.executable, str(SCRIPT), *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("stage", "model", "fast"),
    [("normal", "normal", None), ("cell", "cell", None), ("cell", "bundled", "bundled")],
    ids=["stage 1", "stage 2 without zoom and size of the nucleus", "the bundled stage 2 in few steps"],
)
def test_latents_of_generators_are_written(
    stage: str, model: str, fast: str | None, tiny: Path, fields: Path, tmp_path: Path
) -> None:
    path = tmp_path / "again.safetensors"
    foundation = "bundled" if fast else tiny / "foundation"
    options = ["--fast", fast] if fast else []
    ran = regenerate(
        fields, path, "--stage", stage, "--model", model if fast else tiny / model, "--foundation", foundation,
        "--sets", '[{"root": "drawn"}]', "--count", "10", "--sampled", "1", *options,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    vae = load(str(foundation)).vae
    source = Regenerated(path, vae, 128)
    assert len(source.latents) == len(source.pixels) == 10 and len(source.sampled) == 1
    assert source.pixels.shape[1:] == (256, 256, 3) and source.sampled.std() > 0.1
    with torch.no_grad():
        clean = vae.encode(scaled(source.pixels)).latent_dist.mode()
    near, far = (torch.nn.functional.mse_loss(source.latents.float(), other) for other in (clean, clean.roll(1, 0)))
    assert 0 < near < far, "made anew, of the same image"


def test_the_script_says_what_is_wrong_in_a_line(fields: Path, tmp_path: Path) -> None:
    path = tmp_path / "again.safetensors"
    for words, said in {
        ("--count", "0"): "regenerate.py: error: argument --count: invalid positive value: '0'",
        ("--sets", "{}"): 'regenerate.py: --sets {}: give JSON such as [{"root": "fields", "scale": 0.5}]',
        ("--foundation", "nope"): "regenerate.py: nope: no such folder or file, and not a hub id (owner/name)",
    }.items():
        ran = regenerate(fields, path, *words)
        assert ran.returncode and ran.stderr.splitlines()[-1] == said and not path.exists()
