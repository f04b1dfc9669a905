"""Distances, neighbours and the sets they are taken over, against closed forms and other implementations."""

import copy
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import UNet2DConditionModel
from PIL import Image
from safetensors.torch import load_file, save_file
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
from torch_fidelity.metric_kid import kid_features_to_metric
from torch_fidelity.metric_prc import prc_features_to_metric
from transformers import BitImageProcessor, Dinov2Config, Dinov2ForImageClassification

from conftest import drawn
from cytosynth import cli
from cytosynth.adapters import adapter, load
from cytosynth.bethesda import NORMAL_PROMPT
from cytosynth.data import augment
from cytosynth.errors import EnvironmentProblem, UsageError, UserError
from cytosynth.evaluate import align, distance, fidelity, image_set, membership, memorisation
from cytosynth.evaluate.image_set import ImageSet
from cytosynth.evaluate.networks import features, inception_v3, resize
from cytosynth.evaluate.networks.extractor import Extractor, filled
from cytosynth.foundation import load as foundations
from cytosynth.foundation import noise, sampling
from cytosynth.imagenet import weights
from cytosynth.normal.recipe import NormalRecipe


def pair(n: int = 120, m: int = 90, d: int = 12) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    mix = rng.normal(size=(d, d))
    return rng.normal(size=(n, d)) @ mix, 0.4 + 1.3 * rng.normal(size=(m, d))


def test_frechet_of_gaussians_in_closed_form() -> None:
    rng = np.random.default_rng(0)
    plain = rng.normal(size=(400, 3))
    plain = (plain - plain.mean(0)) @ np.linalg.inv(np.linalg.cholesky(np.cov(plain.T)).T)  # covariance is exactly 1
    wide = plain * [1, 2, 3] + [1, 0, -2]
    assert distance.frechet(plain, wide) == pytest.approx(1 + 4 + 0 + 1 + 4, rel=1e-9)  # |mean|² + Σ(1 - s)²
    assert distance.frechet(plain, plain) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize(("n", "d"), [(300, 16), (20, 64)])
def test_frechet_equals_torch_fidelitys_also_with_fewer_pictures_than_dimensions(n: int, d: int) -> None:
    a, b = pair(n, n, d)
    theirs = fid_statistics_to_metric(
        fid_features_to_statistics(torch.tensor(a)), fid_features_to_statistics(torch.tensor(b)), False
    )
    assert distance.frechet(a, b) == pytest.approx(theirs["frechet_inception_distance"], rel=1e-3, abs=1e-3)


@pytest.mark.parametrize("threads", [1, 2])
def test_features_do_not_depend_on_what_was_known_before(threads: int, tmp_path: Path) -> None:
    images = [drawn(seed)[0] for seed in range(20)]
    extractor, before = features.load("efficientnet-lite0"), torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        straight = features.cached(extractor, images, tmp_path / "straight")
        for some in ([3], [19, 0, 7], range(4, 13)):  # what other commands asked for
            features.cached(extractor, [images[index] for index in some], tmp_path / "history")
        later = features.cached(extractor, images[::-1], tmp_path / "history")[::-1]
    finally:
        torch.set_num_threads(before)
    assert np.array_equal(straight, later)


def test_a_batch_is_filled_up_with_its_last_image() -> None:
    images = [torch.full((2,), float(value)) for value in range(5)]
    batches = [(batch[:, 0].tolist(), count) for batch, count in filled(images, 3)]
    assert batches == [([0, 1, 2], 3), ([3, 4, 4], 2)]
    assert [(batch.shape, count) for batch, count in filled(images[:1], 1)] == [((1, 2), 1)]


def test_kid_equals_torch_fidelitys() -> None:
    a, b = pair()
    theirs = kid_features_to_metric(
        torch.tensor(a), torch.tensor(b), kid_subsets=30, kid_subset_size=40, kid_degree=3, kid_gamma=None, kid_coef0=1,
        rng_seed=7, verbose=False,
    )  # fmt: skip
    ours = distance.kid(a, b, subsets=30, subset_size=40, seed=7)
    assert ours.mean == pytest.approx(theirs["kernel_inception_distance_mean"], abs=1e-3)
    assert ours.std == pytest.approx(theirs["kernel_inception_distance_std"], abs=1e-3)
    assert ours.interval.low < ours.mean < ours.interval.high
    same = distance.kid(a[:60], a[60:], subsets=200, subset_size=30)
    assert same.interval.low < 0 < same.interval.high, "unbiased: of two samples of one distribution it is around zero"


def test_precision_recall_density_coverage_against_the_definitions() -> None:
    generated, real = pair(50, 70, 3)
    k = 4
    between = np.linalg.norm(real[:, None] - generated[None], axis=2)
    radius_real = np.sort(np.linalg.norm(real[:, None] - real[None], axis=2), axis=1)[:, k]
    radius_generated = np.sort(np.linalg.norm(generated[:, None] - generated[None], axis=2), axis=1)[:, k]
    inside = between <= radius_real[:, None]
    found = distance.prdc(generated, real, k)
    assert found.precision == pytest.approx(inside.any(axis=0).mean())
    assert found.recall == pytest.approx((between <= radius_generated[None]).any(axis=1).mean())
    assert found.density == pytest.approx(inside.sum(axis=0).mean() / k)
    assert found.coverage == pytest.approx(inside.any(axis=1).mean())
    assert 0 < found.precision < 1
    theirs = prc_features_to_metric(
        torch.tensor(generated), torch.tensor(real), prc_neighborhood=k, prc_batch_size=1000, save_cpu_ram=False,
        verbose=False,
    )  # fmt: skip
    assert found.precision == pytest.approx(theirs["precision"], abs=1e-6)
    assert found.recall == pytest.approx(theirs["recall"], abs=1e-6)
    itself = distance.prdc(real, real, k)
    assert (itself.precision, itself.recall, itself.coverage) == (1, 1, 1)


def test_area_under_the_curve_and_true_positive_rate_of_known_cases() -> None:
    assert distance.auc(np.array([3.0, 4.0]), np.array([1.0, 2.0])) == 1
    assert distance.auc(np.array([1.0, 2.0]), np.array([1.0, 2.0])) == 0.5
    others = np.arange(200.0)
    assert membership.true_positive_rate(np.array([150.0, 197.5, 199.5, 300.0]), others, 0.01) == 0.75


def small_extractor() -> Extractor:
    """The mean of each channel in the four quarters of an image."""
    network = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(2), torch.nn.Flatten())

    def prepare(pixels: np.ndarray) -> torch.Tensor:
        return torch.tensor(np.array(pixels)).permute(2, 0, 1).float() / 255

    return Extractor("quarters", "D (quarters)", 12, "0" * 16, network, prepare, torch.device("cpu"))


@pytest.fixture
def two_sets(tmp_path: Path) -> tuple[Path, Path]:
    for name, first in (("made", 100), ("real", 200)):
        (tmp_path / name).mkdir()
        for index in range(8):
            Image.fromarray(drawn(first + index)[0]).save(tmp_path / name / f"{index}.png")
    return tmp_path / "made", tmp_path / "real"


def test_fidelity_has_every_measure_with_its_floor_and_warnings(two_sets: tuple[Path, Path], tmp_path: Path) -> None:
    made, real = (image_set.gather(path, window=96) for path in two_sets)
    assert len(made) == 8 * 9
    report = fidelity.compare(made, real, [small_extractor()], tmp_path / "cache", draws=20)
    rows = [dict(zip(report.columns, row, strict=True)) for row in report.rows]
    assert [row["measure"] for row in rows] == [
        "FD (quarters)", "KD (quarters)", "precision", "recall", "density", "coverage"
    ]  # fmt: skip
    assert {row["n"] for row in rows} == {36}, "the floor takes half of the real windows, so does all else"
    first = rows[0]
    assert 0 < first["floor"] < first["generated"] * 10
    assert first["generated low"] <= first["generated"] <= first["generated high"]
    assert any("fewer than 2,048" in note for note in report.notes)
    assert not any("JPEG" in note for note in report.notes)
    again = fidelity.compare(made, real, [small_extractor()], tmp_path / "cache", draws=20)
    assert again == report
    with pytest.raises(UserError, match="at least 10 are needed"):
        fidelity.compare(made, real, [small_extractor()], tmp_path / "cache", count=5)


def test_lossy_input_is_said(two_sets: tuple[Path, Path], tmp_path: Path) -> None:
    made, real = two_sets
    for path in real.iterdir():
        with Image.open(path) as image:
            image.save(path.with_suffix(".jpg"))
        path.unlink()
    report = fidelity.compare(
        image_set.gather(made, window=96), image_set.gather(real, window=96), [small_extractor()], tmp_path, draws=0
    )
    assert any("8 of 8 files are JPEG" in note for note in report.notes)


def test_halves_share_no_image(two_sets: tuple[Path, Path]) -> None:
    found = image_set.gather(two_sets[1], window=96)
    first, second = found.halves(np.random.default_rng(0))
    assert not set(first.groups) & set(second.groups)
    assert len(first) == len(second) == len(found) // 2


def test_features_are_computed_once_for_each_content(two_sets: tuple[Path, Path], tmp_path: Path) -> None:
    extractor = small_extractor()
    calls = []

    def counting(pixels: np.ndarray) -> torch.Tensor:
        calls.append(1)
        return extractor.prepare(pixels)

    counted = Extractor(**{**vars(extractor), "prepare": counting})
    found = image_set.gather(two_sets[0])
    first = features.cached(counted, found, tmp_path / "cache")
    assert len(calls) == 8
    again = features.cached(counted, found, tmp_path / "cache")
    assert len(calls) == 8
    assert np.array_equal(first, again)
    changed = np.array(found[3])
    changed[0, 0, 0] ^= 1
    Image.fromarray(changed).save(two_sets[0] / "3.png")
    features.cached(counted, image_set.gather(two_sets[0]), tmp_path / "cache")
    assert len(calls) == 9
    other = Extractor(**{**vars(counted), "digest": "1" * 16})
    features.cached(other, found, tmp_path / "cache")
    assert len(calls) == 17, "another network has its own"


CORNER = (51, 37)
"""Of the copied window in its field: off the grid of windows."""


def textured(seed: int) -> np.ndarray:
    """Return a field whose every place is different."""
    noise = np.random.default_rng(seed).integers(0, 256, (36, 40, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(noise).resize((320, 288), Image.Resampling.BICUBIC))


def shifted_copy(seed: int, turn: int) -> np.ndarray:
    """Return a window of `textured(seed)`, turned, and a little brighter."""
    x, y = CORNER
    window = augment.d4(textured(seed)[y : y + 96, x : x + 96], turn)
    return np.clip(window.astype(float) * 0.9 + 12, 0, 255).astype(np.uint8)


def test_a_turned_shifted_brightened_copy_is_found(tmp_path: Path) -> None:
    for name, first, count in (("train", 0, 4), ("held", 50, 4), ("made", 0, 2)):
        (tmp_path / name).mkdir()
        for index in range(count):
            pixels = textured(first + index)
            if name == "made":
                pixels = shifted_copy(2, 5) if index == 0 else textured(99)[40:136, 40:136]
            Image.fromarray(np.ascontiguousarray(pixels)).save(tmp_path / name / f"{index}.png")
    made, train, held = (image_set.gather(tmp_path / name, window=96) for name in ("made", "train", "held"))
    places = align.search(made, train.whole(), torch.device("cpu"))
    assert places[0].similarity > 0.97
    assert places[0].field == 2
    turned = augment.d4(shifted_copy(2, 5), places[0].turn).astype(float)
    x, y = CORNER
    there = textured(2)[y : y + 96, x : x + 96].astype(float) * 0.9 + 12
    assert np.abs(turned - there).max() <= 1, "the turn brings it into the field's orientation"
    assert places[0].corner == pytest.approx((x + 12, y + 12), abs=3), "the middle three quarters of it"
    assert places[1].similarity < 0.95
    report = memorisation.measure(made, train, held, small_extractor(), tmp_path / "cache", draws=20, out=tmp_path)
    row = dict(zip(report.columns, report.rows[1], strict=True))
    assert row["measure"] == "pixels"
    assert (row["copies"], row["share"]) == (1, 0.5)
    assert row["held-out share"] <= 0.01
    for name in ("worst_features.png", "worst_pixels.png", "distances_pixels.png", "nearest.csv"):
        assert (tmp_path / name).exists(), name
    with pytest.raises(UserError, match="held out, and the same as a training image"):
        memorisation.measure(made, train, train, small_extractor(), tmp_path / "cache")


def test_membership_is_detected_where_a_model_has_memorised_its_images(tiny: Path, tmp_path: Path) -> None:
    model = foundations.load(str(tiny / "foundation")).freeze()
    (tmp_path / "a").mkdir()
    for index in range(3):
        Image.fromarray(drawn(index)[0][80:208, 80:144]).save(tmp_path / "a" / f"{index}.png")
    found = image_set.gather(tmp_path / "a", window=64)
    report = membership.measure(model, found, found, "A cell", timesteps=2, draws=10)
    assert [row[1] for row in report.rows] == [0.5, 0.0], "the same images on both sides cannot be told apart"
    first = membership.losses(model, found, "A cell", 2, 0)
    assert np.array_equal(first, membership.losses(model, found, "A cell", 2, 0))
    assert first.std() > 0
    text, latents = model.encode_text(["A cell"])[0], model.encode_pixels(found[0][None])[0]
    by_hand = []
    for number, level in enumerate((250, 750)):
        kept = float(np.prod(1 - np.linspace(0.00085**0.5, 0.012**0.5, 1000)[: level + 1] ** 2))
        drawn_noise = sampling.noise((1, *latents.shape), 0, number)
        noisy = kept**0.5 * latents + (1 - kept) ** 0.5 * drawn_noise
        with torch.no_grad():
            by_hand.append(float((model.unet(noisy, level, text[None]).sample - drawn_noise).square().mean()))
    assert first[0] == pytest.approx(np.mean(by_hand), rel=1e-4)


def mosaics(folder: Path, seed: int, count: int = 6) -> ImageSet:
    folder.mkdir()
    for index in range(count):
        tiles = np.random.default_rng([seed, index]).integers(0, 256, (8, 8, 3), np.uint8)
        Image.fromarray(np.kron(tiles, np.ones((8, 8, 1), np.uint8))).save(folder / f"{index}.png")
    return image_set.gather(folder)


def test_membership_is_found_out_of_a_model_that_has_learnt_its_images_by_heart(tiny: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = foundations.load(str(tiny / "foundation")).freeze()
    model.vae.register_to_config(scaling_factor=5.0)
    model.unet = UNet2DConditionModel(
        sample_size=8, block_out_channels=(32,), down_block_types=("DownBlock2D",), up_block_types=("UpBlock2D",),
        layers_per_block=1, cross_attention_dim=16, norm_num_groups=4, attention_head_dim=4,
    )  # fmt: skip
    members, others = mosaics(tmp_path / "a", 0), mosaics(tmp_path / "b", 1)

    def auc() -> float:
        report = membership.measure(model, members, others, "A cell", timesteps=4, draws=10)
        return float(report.rows[0][1])

    assert auc() < 0.9, "nothing is learnt yet"
    latents, text = model.encode_pixels(np.stack(list(members))), model.encode_text(["A cell"]).expand(16, -1, -1)
    optimizer = torch.optim.Adam(model.unet.parameters(), 3e-3)
    for _ in range(50):
        noisy, target, timesteps = noise.add_noise(model.scheduler, latents[torch.randint(6, (16,))])
        noise.loss(model.scheduler, model.unet(noisy, timesteps, text).sample, target, timesteps).backward()
        optimizer.step()
        optimizer.zero_grad()
    model.unet.requires_grad_(False)
    assert auc() > 0.9


@pytest.mark.parametrize("kind", ["textual-inversion", "custom-diffusion"])
def test_membership_attacks_the_adapter_with_the_words_it_has_learnt(
    kind: str, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = foundations.load(str(tiny / "foundation"))
    before, digest = copy.deepcopy(model), model.digest
    learnt, prompt = load.attach(model, NormalRecipe(adapter=kind, token="<x>", prompt="A <x> cell"))  # type: ignore[arg-type]
    torch.manual_seed(1)
    with torch.no_grad():
        for part in model.parts.values():
            for parameter in part.parameters():
                if parameter.requires_grad:
                    parameter += 0.5 * torch.randn_like(parameter)
    (tmp_path / "adapter").mkdir()
    adapter.save(learnt, prompt, tmp_path / "adapter")
    members, _ = mosaics(tmp_path / "a", 0, 2), mosaics(tmp_path / "b", 1, 2)
    arguments = [tmp_path / "a", tmp_path / "b", "--foundation", tiny / "foundation", "--normal", tmp_path / "adapter",
                 "--output", tmp_path / "out"]  # fmt: skip
    monkeypatch.setattr(sys, "argv", ["cytosynth", "evaluate", "membership", *map(str, arguments)])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert not end.value.code
    found = json.loads((tmp_path / "out/membership.json").read_text())
    expected = membership.losses(model.freeze(), members, prompt, membership.TIMESTEPS, 0).mean()
    assert found["prompt"] == prompt == "A <x> cell"
    assert found["mean_loss_of_members"] == pytest.approx(expected, rel=1e-5)
    assert abs(expected - membership.losses(before.freeze(), members, NORMAL_PROMPT, 10, 0).mean()) > 1e-4 * expected
    assert (found["adapter"], len(found["weights"])) == ("own:adapter", len(digest))
    assert found["weights"] != digest, "of the weights with the adapter in them"


def test_extractors_of_the_registry(tmp_path: Path) -> None:
    lite = features.load("efficientnet-lite0")
    image = drawn(0)[0]
    assert lite([image, image[:100, :90]]).shape == (2, 1280)
    assert (lite.frechet, lite.kernel) == ("FD (EfficientNet-Lite0)", "KD (EfficientNet-Lite0)")
    with pytest.raises(UsageError, match="choose one of inception-v3"):
        features.load("vgg")
    for name in ("cytology-resnet50", "dinov2"):
        with pytest.raises(EnvironmentProblem, match="--weights"):
            features.load(name)
    evil = tmp_path / "evil.pth"
    torch.save({"a": torch.zeros(1)}, evil)
    with pytest.raises(UserError, match="a pickle can run code"):
        features.load("inception-v3", evil)
    other = tmp_path / "other.safetensors"
    save_file({"a": torch.zeros(1)}, other)
    with pytest.raises(UserError, match="not weights of this network"):
        features.load("efficientnet-lite0", other)
    with pytest.raises(UserError, match="no such file"):
        weights.read(tmp_path / "none.safetensors", "")


@pytest.mark.promise("Hostile or broken input")
def test_dinov2_gives_what_transformers_gives_and_needs_all_its_weights(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = Dinov2ForImageClassification(Dinov2Config(hidden_size=8, num_attention_heads=1, num_hidden_layers=1))
    network.eval().save_pretrained(tmp_path)
    processor = BitImageProcessor(size={"shortest_edge": 64}, crop_size={"height": 56, "width": 56})
    processor.save_pretrained(tmp_path)
    image = drawn(0)[0]
    with torch.no_grad():
        prepared = processor(images=np.array(image), return_tensors="pt")["pixel_values"]
        wanted = network.dinov2(prepared).last_hidden_state[:, 0].numpy()
    found = features.load("dinov2", tmp_path)
    assert np.allclose(found([image]), wanted, atol=1e-5)
    (tmp_path / "preprocessor_config.json").unlink()
    assert features.load("dinov2", tmp_path)([image]).shape == (1, 8), "the whole image, without a processor"
    file = tmp_path / "model.safetensors"
    whole = load_file(file)
    whole.pop("dinov2.encoder.layer.0.norm1.weight")
    save_file(whole, file, metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"norm1.weight is missing: the weights do not fit"):
        features.load("dinov2", tmp_path)


def test_inception_is_torch_fidelitys_network(tmp_path: Path) -> None:
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    torch.manual_seed(0)
    path = tmp_path / "inception.safetensors"
    torch.save({}, tmp_path / "nothing.pth")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FeatureExtractorInceptionV3, "load_state_dict", lambda self, state: None)
        reference = FeatureExtractorInceptionV3(
            "inception-v3", ["2048"], feature_extractor_weights_path=str(tmp_path / "nothing.pth")
        )
    torch.nn.init.normal_(reference.fc.weight)
    for module in reference.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 2)
    save_file({k: v.contiguous() for k, v in reference.state_dict().items()}, path)
    ours = features.load("inception-v3", path)
    pixels = np.random.default_rng(0).integers(0, 256, (1, 299, 299, 3), dtype=np.uint8)
    reference.eval()
    theirs = reference(torch.from_numpy(pixels).permute(0, 3, 1, 2))[0].detach().numpy()
    assert np.abs(ours(pixels) - theirs).max() < 1e-3 * np.abs(theirs).max()
    assert inception_v3.SIDE == 299
    assert ours.frechet == "FID"


def test_clean_resizing_is_pils_on_floats() -> None:
    pixels = drawn(3)[0][:200, :150]
    expected = np.stack(
        [
            np.asarray(
                Image.fromarray(pixels[..., c].astype(np.float32), "F").resize((64, 64), Image.Resampling.BICUBIC)
            )
            for c in range(3)
        ]
    ).clip(0, 255)
    assert np.abs(resize.clean(pixels, 64).numpy() - expected).max() < 1e-3


def test_commands_write_their_tables_and_refuse_in_one_line(
    two_sets: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    made, real = two_sets
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))

    def call(*arguments: object) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["cytosynth", "evaluate", *map(str, arguments)])
        try:
            cli.main()
        except SystemExit as end:
            return int(end.code or 0), capsys.readouterr().err
        return 0, capsys.readouterr().err

    assert call("fidelity", made, real, "--window", 96, "--count", 12, "--output", tmp_path / "out")[0] == 0
    found = json.loads((tmp_path / "out/fidelity.json").read_text())
    assert found["images_a_side"] == 12
    assert {row["features"] for row in found["rows"]} == {"efficientnet-lite0"}
    assert (tmp_path / "out/least_real.png").exists()
    for arguments, code, text in (
        (("fidelity", tmp_path / "none", real), 1, "no such file or folder"),
        (("fidelity", made, real, "--features", "vgg"), 2, "choose one of inception-v3"),
        (("fidelity", made, real, "--weights", "vgg=x"), 2, "expected NAME=PATH"),
        (("fidelity", made, real, "--window", 1024), 1, "smaller than a window of 1024"),
        (("fidelity", made, real), 1, "at least 10 are needed; cut each image into several with --window"),
        (("memorisation", made, real, real, "--window", 96), 1, "the same as a training image"),
    ):
        assert (code, text) == (call(*arguments)[0], text)
        error = call(*arguments)[1].strip().splitlines()
        assert text in error[-1]
        assert error[-1].startswith("cytosynth: ")


def test_windows_hold_what_lies_in_them(two_sets: tuple[Path, Path]) -> None:
    window = image_set.gather(two_sets[0], window=96).windows[4]
    x, y = window.corner
    assert window.holds((x + 10.0, y + 95.0))
    assert not window.holds((x - 1.0, y + 5.0))
    assert isinstance(image_set.gather(two_sets[0])[:3], ImageSet)
