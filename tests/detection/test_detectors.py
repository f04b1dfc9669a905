"""Every architecture learns, comes back from disk as it was, and tells the pipeline and `detect` what it finds."""

import json
import os
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.error import URLError

import numpy as np
import pytest
import torch
from PIL import Image as PILImage
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from safetensors.torch import load_file, save_file
from torchvision.models import ResNet50_Weights, resnet50
from torchvision.ops import FrozenBatchNorm2d
from typer.testing import CliRunner

from conftest import drawn, same_on_gpu, write_fields
from cytosynth import registry
from cytosynth.annotations import Box, Cell, Image
from cytosynth.cli import app
from cytosynth.cli import detect as _detect  # noqa: F401
from cytosynth.cli import evaluate as _evaluate  # noqa: F401
from cytosynth.config import override
from cytosynth.data import image_files, sources
from cytosynth.data.formats import coco
from cytosynth.data.sources import Sample, Source
from cytosynth.detection import architecture, folder, model, references
from cytosynth.detection.backbones import resnet
from cytosynth.detection.comparison_detector import ComparisonDetector, _distances
from cytosynth.detection.recipe import DetectorRecipe, compared, preset
from cytosynth.detection.train import DetectorTask, steps, train_detector
from cytosynth.errors import EnvironmentProblem, Incomplete, UsageError, UserError
from cytosynth.evaluate.detection.average_precision import Scores, evaluate
from cytosynth.evaluate.detection.failures import failures
from cytosynth.evaluate.detection.scoring import validation
from cytosynth.io import atomic
from cytosynth.io.bundled import bundled
from cytosynth.synthesis import synthesize
from cytosynth.synthesis.jobs import identified, own_images
from cytosynth.synthesis.settings import PipelineSettings
from cytosynth.training.loop import Outcome

OURS = ("faster-rcnn", "retinanet", "dino", "comparison-detector")
CATEGORIES = ("NILM", "LSIL")
NO_SCORES = Scores(0.0, 0.0, 0.0, 0.0, {})


def sample(seed: int = 0) -> Sample:
    pixels, cells = drawn(seed, 160, 128)
    return Sample(f"{seed}.png", "drawn", pixels, tuple(cells))


@pytest.fixture(scope="module")
def learnt() -> dict[str, tuple[list[float], model.Detector]]:
    """The losses of each architecture on one image, and what it became."""
    found = {}
    for name in OURS:
        torch.manual_seed(0)
        recipe = DetectorRecipe(architecture=name, backbone="small", categories=list(CATEGORIES))
        task = DetectorTask(recipe, [sample()], []).train()
        optimizer = torch.optim.AdamW(task.parameters(), lr=1e-3)
        losses = []
        for step in range(40):
            values = task(task.batch(np.random.default_rng(step), 1))
            optimizer.zero_grad()
            values["loss"].backward()
            torch.nn.utils.clip_grad_norm_(task.parameters(), 5.0)
            optimizer.step()
            losses.append(float(values["loss"].detach()))
            assert values["loss"].detach() == pytest.approx(
                sum(float(value.detach()) for key, value in values.items() if key != "loss"), rel=1e-5
            )
        task.eval()
        found[name] = (losses, model.Detector(task.network, task.config))
    return found


@pytest.mark.parametrize("name", OURS)
def test_it_learns_one_picture(name: str, learnt: Any) -> None:
    losses, detector = learnt[name]
    assert np.mean(losses[-5:]) < 0.5 * np.mean(losses[:5])
    image = sample()
    scores = evaluate([image.cells], [detector.find(image.pixels, 0.05)], CATEGORIES, most=300)
    assert scores.map_50 > 0.5


@pytest.mark.parametrize("name", OURS)
def test_saved_it_works_alone_and_finds_the_same(name: str, learnt: Any, tmp_path: Path) -> None:
    _, detector = learnt[name]
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    model.save(detector.network, detector.config, tmp_path / "a")
    first = model.as_saved(tmp_path / "a")
    model.save(first.network, first.config, tmp_path / "b")
    pixels = sample().pixels
    found = model.load(tmp_path / "a").find(pixels, 0.3)
    assert found
    assert found == model.load(tmp_path / "b").find(pixels, 0.3)
    here = detector.find(pixels, 0.29)
    for cell in found:  # half precision on disk moves boxes by little
        assert min(np.abs(np.subtract(cell.box, other.box)).max() for other in here) < 0.5
    assert {file.name for file in (tmp_path / "a").iterdir()} == {"config.json", "model.safetensors"}


def test_duplicates_are_removed_in_a_tile_and_between_tiles() -> None:
    """Of DINO's too, which its authors leave."""

    class Twice(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.place = torch.nn.Parameter(torch.tensor([[70.0, 70.0, 80.0, 80.0], [70.0, 70.0, 81.0, 80.0]]))

        def forward(self, images: list[torch.Tensor]) -> list[dict[str, torch.Tensor]]:
            at = {"boxes": self.place.detach(), "labels": torch.tensor([1, 1]), "scores": torch.tensor([0.6, 0.9])}
            return [at for _ in images]

    config = model.DetectorConfig(architecture="dino", backbone="small", categories=CATEGORIES, tile=96)
    detector = model.Detector(Twice(), config)
    assert [cell.score for cell in detector.find(np.zeros((96, 96, 3), np.uint8))] == [0.9]
    two = [cell.box[0] for cell in detector.find(np.zeros((96, 130, 3), np.uint8))]
    assert two == [70.0, 104.0], "one of each pair, at its place in each tile"


def test_labels_count_from_one() -> None:
    """RetinaNet's classes are the categories alone: the first is label 1, and none can be 0."""
    config = model.DetectorConfig(architecture="retinanet", backbone="small", categories=CATEGORIES)
    network = model.build(config).eval()
    torch.nn.init.constant_(network.head.classification_head.cls_logits.bias, 0.0)
    with torch.no_grad():
        labels = network([torch.rand(3, 96, 96)])[0]["labels"]
    assert set(labels.tolist()) == {1, 2}


def test_the_registry_names_what_there_is() -> None:
    for name in registry.DETECTORS:
        assert isinstance(architecture.load(name), architecture.Architecture)
        assert all(preset(each, name).architecture == name for each in ("paper", "bundled"))


def test_the_papers_settings() -> None:
    """Section IV-C: SGD 2e-4 and 1e-3, batch 2, 20 epochs."""
    faster, retina = preset("paper", "faster-rcnn"), preset("paper", "retinanet")
    for recipe, rate in ((faster, 2e-4), (retina, 1e-3)):
        assert (recipe.optimizer, recipe.learning_rate, recipe.batch_size, recipe.epochs) == ("sgd", rate, 2, 20)
        assert recipe.backbone == "resnet50"
        assert recipe.max_grad_norm >= 1e6, "torchvision's training does not cut gradients"
        assert steps(recipe, 3000) == 30_000
        assert steps(recipe.model_copy(update={"max_steps": 7}), 3000) == 7
    assert steps(faster, 3001) == 30_010
    assert preset("paper", "dino").max_grad_norm == 0.1
    with pytest.raises(UsageError, match=r"architecture: .*choose one of faster-rcnn, retinanet"):
        override(faster, ["architecture=yolo"])


def test_the_bundled_preset_makes_the_bundled_detector_and_compared_trainings_stay_short() -> None:
    recipe, there = preset("bundled"), model.configuration(bundled("detector"))
    assert (recipe.architecture, recipe.backbone) == (there.architecture, there.backbone)
    assert tuple(recipe.categories) == there.categories == ("NILM", "ASC-US", "ASC-H", "LSIL", "HSIL")
    assert (recipe.max_steps, recipe.ema_decay, recipe.validate_every, recipe.seed) == (6000, 0.998, 600, 0)
    assert preset("paper").categories == ["NILM"]
    for name in OURS:
        short = compared("bundled", name, {}, categories=["LSIL"], data=recipe.data, seed=0, steps=5)
        assert (short.architecture, short.ema_decay, short.max_steps, short.validate_every) == (name, 0.99, 5, 0)


def test_without_held_out_images_the_best_weights_cannot_be_selected(fields: Path, tmp_path: Path) -> None:
    recipe = DetectorRecipe(
        data=[Source(root="drawn", split="all")], backbone="small", window=64, batch_size=1, max_steps=4,
        validate_every=2,
    )  # fmt: skip
    with pytest.raises(UsageError, match=r"validate_every=2: there are no held-out images \(part 'val'\)"):
        train_detector(recipe, tmp_path / "run", fields, measure=validation)
    assert not (tmp_path / "run").exists(), "said before the training"
    train_detector(recipe.model_copy(update={"max_steps": 1}), tmp_path / "run", fields, measure=validation)


@pytest.mark.parametrize("name", ["retinanet", "dino", "comparison-detector"])
def test_stopped_and_continued_equals_never_stopped(name: str, fields: Path, tmp_path: Path) -> None:
    same_on_gpu(name)
    recipe = DetectorRecipe(
        architecture=name, backbone="small", data=[Source(root="drawn")], window=96, batch_size=1, max_steps=4,
        categories=list(CATEGORIES), checkpoint_every=2, preview_every=2, log_every=2, validate_every=2,
    )  # fmt: skip
    train_detector(recipe, tmp_path / "once", fields, measure=validation)
    train_detector(recipe.model_copy(update={"max_steps": 2}), tmp_path / "twice", fields, measure=validation)
    outcome = train_detector(recipe, tmp_path / "twice", fields, measure=validation)
    assert outcome.finished
    assert outcome.best is not None
    for part in ("weights/model.safetensors", "checkpoints/step-00000004/optimizer.safetensors"):
        a, b = load_file(tmp_path / "once" / part), load_file(tmp_path / "twice" / part)
        assert a.keys() == b.keys()
        assert all(torch.equal(a[key], b[key]) for key in a)
    said = json.loads((tmp_path / "once/validation.json").read_text())
    best = json.loads((tmp_path / "once/best/best.json").read_text())
    assert said["map"] == pytest.approx(1 - best["score"], abs=1e-3)


def test_images_beyond_the_memory_bound_are_read_at_each_use_and_are_the_same(
    fields: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = Source(root="drawn", scale=0.5)
    kept = sources.load([source], fields)
    shutil.copytree(fields / "drawn", tmp_path / "drawn")
    monkeypatch.setattr(sources, "KEPT", 2 * kept[0].pixels.nbytes)
    some = sources.load([source], tmp_path)
    assert [isinstance(one.image, sources.Stored) for one in some] == [False, False, *[True] * (len(kept) - 2)]
    for one, other in zip(kept, some, strict=True):
        assert (one.name, one.cells, one.label, one.size) == (other.name, other.cells, other.label, other.size)
        assert np.array_equal(one.pixels, other.pixels)
        assert one.size == one.pixels.shape[1::-1]
    monkeypatch.setattr(image_files, "read", lambda *_: pytest.fail("sizes need no pixels"))
    assert all(min(one.size) > 0 for one in some)
    monkeypatch.undo()
    last = some[-1]
    PILImage.new("RGB", (10, 10)).save(last.image.path)  # type: ignore[union-attr]
    with pytest.raises(UserError, match=r"\.png: has changed since it was first read"):
        _ = last.pixels


def test_a_detector_trains_the_same_with_images_in_memory_or_read_anew(
    fields: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    same_on_gpu("faster-rcnn")
    recipe = DetectorRecipe(
        data=[Source(root="drawn")], backbone="small", batch_size=2, max_steps=2, window=128, turns=True,
        categories=list(CATEGORIES), checkpoint_every=2, preview_every=2,
    )  # fmt: skip
    train_detector(recipe, tmp_path / "kept", fields)
    monkeypatch.setattr(sources, "KEPT", 0)
    train_detector(recipe, tmp_path / "read", fields)
    kept, read = (load_file(tmp_path / name / "weights/model.safetensors") for name in ("kept", "read"))
    assert all(torch.equal(kept[key], read[key]) for key in kept)


def referred(seed: int = 0) -> ComparisonDetector:
    torch.manual_seed(seed)
    network = model.build(
        model.DetectorConfig(architecture="comparison-detector", backbone="small", categories=("NILM", "LSIL", "HSIL"))
    )
    assert isinstance(network, ComparisonDetector)
    torch.nn.init.normal_(network.head.metric)
    network.refer(torch.rand(3, 2, 3, 64, 64))
    return network


def test_a_prototype_is_the_mean_of_its_references_features_from_the_same_backbone() -> None:
    network = referred()
    prototypes = network.measure()
    assert prototypes.shape == (3, 64, 7, 7)
    body = network.backbone
    expected = torch.zeros(64, 7, 7)
    for image in network.references[1]:
        levels = body(((image - 0.8) / 0.2)[None])
        for level in levels.values():
            expected += torch.nn.functional.interpolate(level, (7, 7), mode="bilinear")[0] / (2 * len(levels))
    assert torch.allclose(prototypes[1], expected, atol=1e-5)
    prototypes.square().sum().backward()
    gradient = network.backbone.body.conv1.weight.grad
    assert gradient is not None
    assert gradient.abs().max() > 0, "references teach the backbone"


def test_logits_fall_with_the_weighted_squared_distance() -> None:
    torch.manual_seed(1)
    features, prototypes, weights = torch.randn(5, 30), torch.randn(4, 30), torch.rand(30)
    direct = (weights * (features[:, None] - prototypes[None]) ** 2).sum(dim=2)
    ours = _distances(features, prototypes, weights)
    assert torch.allclose(30 * (ours - ours[:, :1]), direct - direct[:, :1], atol=1e-4)
    network = referred().eval()
    with torch.no_grad():
        prototypes = network.measure()
        logits = network.head.logits(prototypes, prototypes)[:, 1:]
        assert torch.equal(logits.argmax(dim=1), torch.arange(3)), "nearest to itself"


def test_a_classs_reference_changes_its_own_logit_and_the_learnt_background_alone() -> None:
    network = referred().eval()
    features = torch.randn(6, 64, 7, 7)
    with torch.no_grad():
        before = network.head.logits(features, network.measure())
        network.references[1] = torch.rand(2, 3, 64, 64)
        prototypes = network.measure()
        after = network.head.logits(features, prototypes)
    changed = (before - after).abs().amax(dim=0) > 1e-6
    assert changed.tolist() == [True, False, True, False], "background, NILM, LSIL, HSIL"
    network.zero_grad()
    network.head.logits(features, prototypes)[:, 0].sum().backward()
    assert network.head.background.weight.grad.abs().max() > 0, "the background is learnt"


def test_prototypes_are_made_anew_in_training_and_kept_for_use() -> None:
    network = referred()
    images, targets = (
        [torch.rand(3, 96, 96)],
        [{"boxes": torch.tensor([[20.0, 20, 60, 60]]), "labels": torch.ones(1).long()}],
    )
    losses = network(images, targets)
    sum(losses.values()).backward()
    assert network.backbone.body.conv1.weight.grad is not None
    assert network.head.prototypes.abs().max() == 0, "nothing kept while training"
    network.eval()
    with torch.no_grad():
        network.backbone.body.conv1.weight.mul_(1.5)
        kept = network.head.prototypes.clone()
        assert not torch.equal(kept, network.measure())
        network.train().eval()
        assert torch.equal(network.head.prototypes, network.measure())
    unreferred = model.build(
        model.DetectorConfig(architecture="comparison-detector", backbone="small", categories=("NILM",))
    )
    with pytest.raises(ValueError, match="call refer first"):
        unreferred(images, targets)


def test_references_are_cut_along_boxes_or_read_from_folders(tmp_path: Path) -> None:
    pixels = np.zeros((100, 120, 3), np.uint8)
    pixels[20:60, 30:80] = (255, 0, 0)
    image = Sample("a.png", "x", pixels, (Cell((30.0, 20.0, 80.0, 60.0), "LSIL"),))
    cut = references.of_samples([image], ["LSIL"], shots=2, side=16, seed=0)
    assert cut.shape == (1, 2, 3, 16, 16)
    assert torch.equal(cut[0, 1, 0], torch.ones(16, 16))
    assert cut[0, :, 1:].max() == 0
    with pytest.raises(UserError, match="no HSIL cell in the training data"):
        references.of_samples([image], ["HSIL"], 2, 16, 0)
    (tmp_path / "LSIL").mkdir()
    PILImage.fromarray(pixels[20:60, 30:80]).save(tmp_path / "LSIL/1.png")
    assert torch.equal(references.of_folder(tmp_path, ["LSIL"], 2, 16), cut)
    with pytest.raises(UserError, match="HSIL: no reference image"):
        references.of_folder(tmp_path, ["HSIL"], 2, 16)


def test_imagenet_weights_come_from_a_file_or_torchvision_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    state = {key: value.contiguous() for key, value in resnet50().state_dict().items()}
    save_file(state, tmp_path / "resnet50.safetensors")
    recipe = DetectorRecipe(architecture="retinanet", weights=str(tmp_path / "resnet50.safetensors"))
    task = DetectorTask(recipe, [], [])
    body = task.network.backbone.body
    assert torch.equal(body.layer4[2].conv3.weight, state["layer4.2.conv3.weight"])
    assert isinstance(body.bn1, FrozenBatchNorm2d)
    assert not body.layer1[0].conv1.weight.requires_grad
    assert body.layer2[0].conv1.weight.requires_grad
    assert task.config.pretrained
    assert task.network.transform.image_mean == [0.485, 0.456, 0.406]
    with pytest.raises(UsageError, match="no ImageNet weights for backbone=small; initialise it from none"):
        DetectorTask(recipe.model_copy(update={"backbone": "small"}), [], [])
    save_file({"conv1.weight": torch.zeros(1)}, tmp_path / "other.safetensors")
    (tmp_path / "resnet50.pth").write_bytes(b"pickle")
    for name, complaint in (("other.safetensors", "not weights of"), ("resnet50.pth", "a pickle can run code"),
                            ("absent.safetensors", "no such file; give none, torchvision")):  # fmt: skip
        with pytest.raises(UserError, match=complaint):
            resnet.start(body, str(tmp_path / name))

    def unreachable(*_: Any, **__: Any) -> None:
        raise URLError("no route")

    monkeypatch.setattr(type(ResNet50_Weights.IMAGENET1K_V1), "get_state_dict", unreachable)
    with pytest.raises(EnvironmentProblem, match=r"cannot be fetched \(no route\); give a safetensors file of them"):
        resnet.start(body, "torchvision")


@pytest.mark.parametrize("name", ["faster-rcnn", "dino"])
def test_what_begins_from_a_detector_on_imagenet_weights_stands_on_them_too(
    name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Its images are normalised the same and its batch norm is frozen, whatever the architecture."""
    other = model.DetectorConfig(architecture="retinanet", categories=("NILM",), pretrained=True)
    network = model.build(other)
    model.save(network, other, tmp_path)
    task = DetectorTask(DetectorRecipe(architecture=name, weights=str(tmp_path)), [], [])
    assert task.config.pretrained
    assert task.network.transform.image_mean == resnet.IMAGENET["image_mean"]
    norm = task.network.get_submodule("backbone.body.layer2.0.bn1")
    assert isinstance(norm, FrozenBatchNorm2d)
    theirs = network.get_submodule("backbone.body.layer2.0.bn1")
    assert torch.allclose(norm.running_var, theirs.running_var, atol=1e-3)
    assert "tensors are initialised from that retinanet" in capfd.readouterr().err


def test_rows_of_categories_are_taken_over_only_for_the_same_categories(tmp_path: Path) -> None:
    other = model.DetectorConfig(backbone="small", categories=("NILM", "LSIL"))
    torch.manual_seed(1)
    given = model.build(other).half().float()
    (tmp_path / "weights").mkdir()
    model.save(given, other, tmp_path / "weights")
    (tmp_path / "recipe.yaml").write_text("kind: detector\n")

    def begun(categories: list[str]) -> DetectorTask:
        recipe = DetectorRecipe(backbone="small", weights=str(tmp_path), categories=categories)
        return DetectorTask(recipe, [], [])

    def same(task: DetectorTask, name: str) -> bool:
        return bool(torch.equal(task.network.get_parameter(name), given.get_parameter(name)))

    rows = [f"roi_heads.box_predictor.{part}.weight" for part in ("cls_score", "bbox_pred")]
    trunk = "roi_heads.box_head.fc6.weight"
    assert all(same(begun(["NILM", "LSIL"]), name) for name in (*rows, trunk))
    for others in (["LSIL", "NILM"], ["NILM", "HSIL"]):
        assert same(begun(others), trunk) and not any(same(begun(others), name) for name in rows)


@pytest.fixture(scope="module")
def finder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an untrained RetinaNet that finds something on every image."""
    out = tmp_path_factory.mktemp("retinanet")
    torch.manual_seed(0)
    config = model.DetectorConfig(architecture="retinanet", backbone="small", categories=CATEGORIES)
    network = model.build(config)
    torch.nn.init.normal_(network.head.classification_head.cls_logits.weight, std=0.05)
    torch.nn.init.constant_(network.head.classification_head.cls_logits.bias, -1.3)
    model.save(network, config, out)
    return out


def subcommand(*arguments: str) -> str:
    run = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert run.exit_code == 0, run.output
    return run.stdout


def test_detect_writes_the_boxes_as_coco_and_geojson(finder: Path, tmp_path: Path) -> None:
    write_fields(tmp_path / "set", 3)
    (tmp_path / "set/images/aa.png").write_bytes(b"broken")
    out = tmp_path / "out"
    given = ["detect", str(tmp_path / "set/images"), str(out), "--detector", str(finder)]
    with pytest.raises(Incomplete, match=r"1 image was skipped \(aa\.png: not a readable image\)"):
        subcommand(*given, "--threshold", "0.2", "--scale", "0.9")
    detector = model.load(finder)
    truth = COCO(str(out / "annotations.json"))
    results = truth.loadRes(str(out / "results.json"))
    assert [image["file_name"] for image in truth.loadImgs(truth.getImgIds())] == [
        "field 1.png",
        "field_0.png",
        "field_2.png",
    ]
    assert truth.dataset["info"]["skipped"] == ["aa.png: not a readable image"]
    total = 0
    for image in truth.loadImgs(truth.getImgIds()):
        name = image["file_name"]
        scaled = PILImage.open(tmp_path / "set/images" / name).resize((288, 259), PILImage.Resampling.LANCZOS)
        expected = [
            (cell.scaled(1 / 0.9).box, cell.category, cell.score) for cell in detector.find(np.asarray(scaled), 0.2)
        ]
        total += len(expected)
        for source in (truth, results):
            entries = source.loadAnns(source.getAnnIds(image["id"]))
            boxes = [entry["bbox"] for entry in entries]
            assert [[x, y, x + w, y + h] for x, y, w, h in boxes] == [
                pytest.approx(box, abs=0.011) for box, *_ in expected
            ]
            assert [entry["score"] for entry in entries] == [score for *_, score in expected]
        features = json.loads((out / f"qupath/{name}.geojson").read_text())
        assert features["type"] == "FeatureCollection"
        for feature, entry in zip(features["features"], truth.loadAnns(truth.getAnnIds(image["id"])), strict=True):
            ring = feature["geometry"]["coordinates"][0]
            assert ring[0] == ring[-1]
            x, y, width, height = entry["bbox"]
            assert (*ring[0], *ring[2]) == pytest.approx((x, y, x + width, y + height), abs=1e-3)
            assert feature["properties"]["objectType"] == "detection"
            assert feature["properties"]["classification"]["name"] == truth.cats[entry["category_id"]]["name"]
            assert feature["properties"]["measurements"]["Score"] == entry["score"]
        assert PILImage.open(out / f"pictures/{name}.png").size == (320, 288)
    assert total > 0


def test_detect_goes_on_where_it_was_stopped(finder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_fields(tmp_path / "set", 3)
    (tmp_path / "set/images/aa.png").write_bytes(b"broken")
    found, detector, out = folder.gather(tmp_path / "set/images"), model.load(finder), tmp_path / "out"
    folder.detect(found, out, detector, threshold=0.2)
    whole = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    lines = (out / "found.jsonl").read_text().splitlines(keepends=True)
    (out / "found.jsonl").write_text(lines[0] + lines[1] + lines[2][:40])
    (out / "results.json").unlink()
    asked = []
    find = model.Detector.find
    monkeypatch.setattr(model.Detector, "find", lambda *a, **k: (asked.append(1), find(*a, **k))[1])
    folder.detect(found, out, detector, threshold=0.2)
    assert len(asked) == 1, "finished images are not searched again"
    assert {path for path in whole if path.read_bytes() != whole[path]} <= {out / "found.jsonl"}
    shutil.copy(tmp_path / "set/images/field_0.png", tmp_path / "set/images/field_2.png")
    folder.detect(found, out, detector, threshold=0.2)
    assert len(asked) == 2, "another file of the same name is"
    with pytest.raises(UsageError, match=r"was started with threshold=0\.2, now 0\.3"):
        folder.detect(found, out, detector, threshold=0.3)
    with pytest.raises(UserError, match=r"aa\.png: not a readable image"):
        folder.detect(found, tmp_path / "strict", detector, strict=True)
    for source, complaint in (("nowhere", "no such file or folder"), ("out/qupath", "contains no image")):
        with pytest.raises(UserError, match=complaint):
            folder.gather(tmp_path / source)


@pytest.mark.promise("Bombs")
def test_a_huge_file_and_a_pipe_are_skipped_unread(
    finder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_fields(tmp_path / "set", 1)
    place = tmp_path / "set/images"
    with (place / "huge.png").open("wb") as file:
        file.truncate(30 * 2**30)
    os.mkfifo(place / "pipe.png")
    hashed: list[int] = []
    sha256 = atomic.sha256
    monkeypatch.setattr(atomic, "sha256", lambda path: (hashed.append(path.stat().st_size), sha256(path))[1])
    data = folder.detect(folder.gather(place), tmp_path / "out", model.load(finder))
    huge, pipe = data.info["skipped"]
    assert (huge, pipe) == (f"huge.png: {30 * 2**30:,} bytes, more than 320,000,000", "pipe.png: not a regular file")
    assert folder.detect(folder.gather(place / "pipe.png"), tmp_path / "one", model.load(finder)).info["skipped"] == [
        pipe
    ]
    jobs = own_images([(path.name, path, {}) for path in sorted(place.iterdir())], PipelineSettings())
    assert [bool(identified(job).extra["original_sha256"]) for job in jobs] == [True, False, False]
    assert hashed and max(hashed) <= image_files.MAX_FILE


@pytest.mark.promise("Hostile or broken input")
def test_a_found_line_that_is_not_ours_is_not_gone_on_from(finder: Path, tmp_path: Path) -> None:
    write_fields(tmp_path / "set", 1)
    found, detector, out = folder.gather(tmp_path / "set/images"), model.load(finder), tmp_path / "out"
    folder.detect(found, out, detector, threshold=0.2)
    whole, line = (out / "annotations.json").read_bytes(), (out / "found.jsonl").read_text()
    record = json.loads(line)
    cell = record["cells"][0]
    assert folder.finished_records(out, detector.config.categories) == {"field_0.png": record}
    cells = [
        {"box": cell["box"]},
        cell | {"box": [float("nan")] * 4},
        cell | {"category": []},
        cell | {"score": None},
        3,
    ]
    changes = [{"cells": [bad]} for bad in cells]
    for change in [*changes, {"cells": 3}, {"width": float("inf")}, {"height": 0}, {"sha256": ""}, {"file_name": 3}]:
        (out / "found.jsonl").write_text(json.dumps(record | change) + "\n")
        folder.detect(found, out, detector, threshold=0.2)
        assert (out / "annotations.json").read_bytes() == whole
        assert (out / "found.jsonl").read_text() == line, "detected anew, what is not ours is dropped"


def test_intervals_are_those_of_resampled_images() -> None:
    rng = np.random.default_rng(0)
    truth = [[Cell((x, y, x + 30.0, y + 30.0), str(rng.choice(["A", "B"]))) for x, y in rng.uniform(0, 200, (4, 2))]
             for _ in range(8)]  # fmt: skip
    found = [[Cell(cell.moved(*rng.normal(0, 4, 2)).box, cell.category, float(rng.uniform())) for cell in cells]
             for cells in truth]  # fmt: skip
    scores = evaluate(truth, found, ["A", "B", "C"], draws=12, seed=3)
    rng, rows = np.random.default_rng(3), []
    for _ in range(12):
        chosen = rng.integers(8, size=8)
        again = evaluate([truth[i] for i in chosen], [found[i] for i in chosen], ["A", "B", "C"])
        rows.append((again.map, again.per_category["B"]))
    expected = np.percentile(rows, (2.5, 97.5), axis=0)
    assert scores.intervals["map"] == pytest.approx(tuple(expected[:, 0]), abs=1e-6)
    assert scores.intervals["B"] == pytest.approx(tuple(expected[:, 1]), abs=1e-6)
    assert "C" not in scores.intervals
    assert scores.map == evaluate(truth, found, ["A", "B", "C"]).map


def test_evaluate_detection_equals_pycocotools_and_says_null_of_what_is_not_annotated(
    finder: Path, fields: Path, tmp_path: Path
) -> None:
    shutil.copytree(finder, tmp_path / "detector")
    asked = ["evaluate", "detection", str(fields / "drawn"), "--detector", str(tmp_path / "detector"), "--split", "all"]
    said = subcommand(*asked, "--json", "--output", str(tmp_path / "scores.json"), "--draws", "5")
    scores = json.loads(said)
    assert scores == json.loads((tmp_path / "scores.json").read_text())
    folder.detect(folder.gather(fields / "drawn"), tmp_path / "out", model.load(finder), threshold=0.05)
    truth = COCO(str(fields / "drawn/annotations.json"))
    results = json.loads((tmp_path / "out/results.json").read_text())
    evaluator = COCOeval(truth, truth.loadRes(results), "bbox")
    evaluator.params.catIds = [1, 4]
    evaluator.params.maxDets = [1, 10, 300]
    evaluator.evaluate()
    evaluator.accumulate()
    precision = evaluator.eval["precision"][:, :, :, 0, -1]
    assert scores["map"] == pytest.approx(precision.mean(), abs=1e-3)
    assert scores["map_50"] == pytest.approx(precision[0].mean(), abs=1e-3)
    assert scores["per_category"]["LSIL"] == pytest.approx(precision[:, :, 1].mean(), abs=1e-3)
    assert set(scores["intervals"]) == {"map", "NILM", "LSIL"}
    config = json.loads((tmp_path / "detector/config.json").read_text())
    (tmp_path / "detector/config.json").write_text(json.dumps(config | {"categories": ["NILM", "SCC"]}))
    table = subcommand(*asked)
    assert "AP SCC       none annotated" in table


def test_most_makes_it_pycocotools_own_figure(finder: Path, fields: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(
        "cytosynth.evaluate.detection.average_precision.evaluate", lambda *given: (asked.append(given[3]), NO_SCORES)[1]
    )
    command = ("evaluate", "detection", str(fields / "drawn"), "--detector", str(finder), "--draws", "0", "--json")
    assert json.loads(subcommand(*command))["most"] == 300
    assert json.loads(subcommand(*command, "--most", "100"))["most"] == 100
    assert asked == [300, 100]


def test_a_trained_detector_is_measured_where_it_was_trained_and_once(
    finder: Path, fields: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured = []

    def measure(detector: model.Detector, _samples: Any) -> dict[str, float]:
        measured.append(next(detector.network.parameters()).device.type)
        return {"map": 0.0, "map_50": 0.0, "map_75": 0.0}

    monkeypatch.setattr("cytosynth.detection.train.train", lambda *_, **__: Outcome(1, True, finder))
    monkeypatch.setattr("cytosynth.detection.train.PartialState", lambda: SimpleNamespace(device=torch.device("meta")))
    recipe = DetectorRecipe(data=[Source(root="drawn")], categories=list(CATEGORIES))
    train_detector(recipe, tmp_path, fields, measure=measure)
    assert measured == ["meta"]
    monkeypatch.setenv("RANK", "1")
    train_detector(recipe, tmp_path, fields, measure=measure)
    assert measured == ["meta"], "the other processes leave it to the first"


def test_data_without_a_cell_to_find_are_refused_and_without_a_validation_part_they_are_not(
    fields: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(fields / "drawn", tmp_path / "drawn")
    split = json.loads((tmp_path / "drawn/split.json").read_text())
    del split["val"]
    (tmp_path / "drawn/split.json").write_text(json.dumps(split))
    recipe = DetectorRecipe(data=[Source(root="drawn")], categories=["cell", "nucleus"])
    with pytest.raises(UserError, match=r"have no cell or nucleus cell, but 'ASC-H', .*--set categories="):
        train_detector(recipe, tmp_path / "run", tmp_path)
    assert not (tmp_path / "run").exists()
    assert sources.held_out(recipe.data, tmp_path) == []
    done = Outcome(1, True, tmp_path)
    monkeypatch.setattr("cytosynth.detection.train.train", lambda *_, **__: done)
    assert train_detector(recipe.model_copy(update={"categories": ["LSIL"]}), tmp_path / "run", tmp_path) == done


def test_a_crowd_is_neither_learnt_nor_missed_nor_wrongly_found() -> None:
    crowd = Cell((0.0, 0.0, 80.0, 80.0), "NILM", extra={"iscrowd": 1})
    one = Cell((100.0, 100.0, 120.0, 120.0), "NILM", extra={"iscrowd": 0})
    image = Sample("a.png", "x", np.zeros((160, 160, 3), np.uint8), (crowd, one))
    task = DetectorTask(DetectorRecipe(backbone="small"), [image], [])
    boxes = task.batch(np.random.default_rng(0), 1)["targets"][0]["boxes"]
    assert boxes.tolist() == [list(one.box)] == model.targets(image.cells, ["NILM"])["boxes"].tolist()
    inside, beside = (Cell((x, 10.0, x + 20, 30.0), "NILM", 0.9) for x in (50.0, 90.0))
    said = failures([image.cells], [[inside, beside, Cell(one.box, "NILM", 0.8)]], ["NILM"])
    assert said.confusion == {"NILM": {"NILM": 1, "missed": 0}, "no such cell": {"NILM": 1, "missed": 0}}
    only = Sample("a.png", "x", image.pixels, (crowd,))
    with pytest.raises(UserError, match="no NILM cell in the training data"):
        references.of_samples([only], ["NILM"], 1, 16, 0)


def test_any_architecture_can_be_the_pipelines_detector(finder: Path, tiny: Path, tmp_path: Path) -> None:
    given = {name: str(tiny / name) for name in ("foundation", "normal", "cell")}
    chosen = override(PipelineSettings(), ["normal.size=320", "normal.steps=1", "cell.steps=1", "threshold=0.0"])
    data = synthesize.synthesize(tmp_path / "set", count=1, settings=chosen, detector=str(finder), **given)
    assert data.images
    record = json.loads((tmp_path / "set/provenance.jsonl").read_text())
    assert record["models"]["detector"].endswith(model.load(finder).digest)
    written = coco.read(tmp_path / "set").images
    assert [_placed(image) for image in written] == [_placed(image) for image in data.images]


def _placed(image: Image) -> tuple[str, list[tuple[Box, str]]]:
    """Return what an image and its cells are, without what a format adds (area, iscrowd)."""
    return image.file_name, [(cell.box, cell.category) for cell in image.cells]
