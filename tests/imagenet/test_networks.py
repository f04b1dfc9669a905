"""Networks on ImageNet features: as backbones of every detector, and as cell classifiers."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from efficientnet_lite_pytorch import EfficientNet
from torchvision.models.detection.retinanet import RetinaNetHead
from torchvision.ops import FrozenBatchNorm2d

from conftest import CATEGORIES, drawn, write_fields
from cytosynth import registry
from cytosynth.classifier import accuracy, crops, folds
from cytosynth.classifier import model as classifiers
from cytosynth.classifier.crops import Crop
from cytosynth.classifier.model import CellClassifier
from cytosynth.classifier.recipe import ClassifierRecipe, preset
from cytosynth.classifier.train import ClassifierTask, pools, train_classifier
from cytosynth.data.sources import Sample, Source
from cytosynth.detection import backbones, model
from cytosynth.detection.backbones import resnet
from cytosynth.detection.recipe import DetectorRecipe
from cytosynth.detection.train import DetectorTask
from cytosynth.errors import UsageError, UserError
from cytosynth.evaluate.networks import features
from cytosynth.imagenet import efficientnet_lite

LAST = "_blocks.15._project_conv"
LITE = tuple(efficientnet_lite.RELEASES)


@pytest.mark.parametrize("name", LITE)
def test_the_features_are_those_of_the_package_at_its_own_size(name: str) -> None:
    """Against the package's own network and weights, which pads for one fixed image size."""
    theirs = EfficientNet.from_name(name)
    theirs.load_state_dict(efficientnet_lite.read(name))
    theirs.eval()
    side = theirs.input_image_size
    images = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(0))
    stages = efficientnet_lite.Stages(name, frozen=True)
    backbones.load(name).start(stages, "imagenet")
    transform = backbones.load(name).normalise(pretrained=True)
    with torch.no_grad():
        given = (images * 255 - 127) / 128
        assert torch.allclose(transform.normalize(images[0]), given[0], atol=1e-5)
        x, wanted = theirs._swish(theirs._bn0(theirs._conv_stem(given))), {}
        for block in theirs._blocks:
            x = block(x)
            wanted[x.shape[-1]] = x
        found = stages.eval()(given)
    assert [level.shape[-1] for level in found] == [math.ceil(side / stride) for stride in (8, 16, 32)]
    for level in found:
        assert torch.allclose(level, wanted[level.shape[-1]], atol=1e-3), level.shape
    assert stages.channels == tuple(level.shape[1] for level in found)


def test_images_of_any_size_have_maps_of_any_size() -> None:
    stages = efficientnet_lite.Stages("efficientnet-lite0", frozen=False)
    with torch.no_grad():
        assert [level.shape[2:] for level in stages.eval()(torch.zeros(1, 3, 100, 130))] == [
            (13, 17), (7, 9), (4, 5),
        ]  # fmt: skip


@pytest.mark.parametrize("architecture", list(registry.DETECTORS))
def test_every_detector_stands_on_it_and_comes_back_from_disk(architecture: str, tmp_path: Path) -> None:
    pixels, cells = drawn(0, 160, 128)
    sample = Sample("0.png", "drawn", pixels, tuple(cells))
    torch.manual_seed(0)
    recipe = DetectorRecipe(
        architecture=architecture, backbone="efficientnet-lite0", weights="imagenet", categories=["NILM", "LSIL"]
    )
    task = DetectorTask(recipe, [sample], []).train()
    body = task.network.get_submodule("backbone.body")
    imagenet = efficientnet_lite.read("efficientnet-lite0")
    assert torch.equal(
        body.get_submodule("_blocks.15._project_conv").weight, imagenet["_blocks.15._project_conv.weight"]
    )
    kinds = {type(module) for module in body.modules()}
    assert FrozenBatchNorm2d in kinds and torch.nn.BatchNorm2d not in kinds
    assert not body.get_submodule("_blocks.2._project_conv").weight.requires_grad, "stride 4 stays as it is"
    assert body.get_submodule("_blocks.3._project_conv").weight.requires_grad
    (_, heads), (slow, rate) = task.groups()
    assert heads == 1.0 and rate < 1
    assert {id(p) for p in slow} == {id(p) for p in body.parameters() if p.requires_grad}
    task(task.batch(np.random.default_rng(0), 1))["loss"].backward()
    assert body.get_submodule("_blocks.3._project_conv").weight.grad.abs().max() > 0
    task.eval()
    task.export(tmp_path)
    loaded = model.as_saved(tmp_path)
    assert loaded.config.backbone == "efficientnet-lite0" and loaded.config.pretrained
    for (name, own), (other, kept) in zip(
        task.network.state_dict().items(), loaded.network.state_dict().items(), strict=True
    ):
        assert name == other and torch.allclose(own.float(), kept.float(), rtol=1e-3, atol=1e-4), name
    assert all(cell.category in ("NILM", "LSIL") for cell in model.load(tmp_path).find(pixels, 0.0))


def test_the_head_of_a_narrow_retinanet_passes_on_what_it_is_given() -> None:
    """torchvision's weights, made for 256 channels, leave a thousandth of it after four layers of 64."""
    torch.manual_seed(0)
    given = torch.rand(1, 64, 16, 16)
    for network, least, most in (
        (model.build(model.DetectorConfig(architecture="retinanet", backbone="small", categories=("a",))), 0.2, 3.0),
        (RetinaNetHead(64, 4, 1), 0.0, 0.01),
    ):
        head = getattr(network, "head", network)
        for tower in (head.classification_head.conv, head.regression_head.conv):
            with torch.no_grad():
                assert least < tower(given).square().mean().sqrt() / given.square().mean().sqrt() < most
        assert float(head.classification_head.cls_logits.bias.detach().sigmoid()[0]) == pytest.approx(0.01)


def test_a_backbone_without_such_weights_or_of_another_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no ImageNet weights for backbone=small"):
        DetectorTask(DetectorRecipe(backbone="small", weights="imagenet"), [], [])
    with pytest.raises(UserError, match="absent: no such file; give none, imagenet or a file for"):
        DetectorTask(DetectorRecipe(backbone="efficientnet-lite0", weights=str(tmp_path / "absent")), [], [])
    with pytest.raises(UserError, match="give none, torchvision"):
        resnet.start(torch.nn.Identity(), "imagenet")
    with pytest.raises(ValueError, match="choose one of resnet50, small, efficientnet-lite0"):
        DetectorRecipe(backbone="efficientnet-lite9")


def test_folds_hold_whole_images_and_spread_every_category() -> None:
    rng = np.random.default_rng(0)
    rare = [Crop(np.zeros(1), "ASC-H", f"rare {index}") for index in range(4) for _ in range(1 + 5 * index)]
    common = [Crop(np.zeros(1), "NILM", f"image {rng.integers(30)}") for _ in range(300)]
    both = [*rare, *common]
    places = folds.assign([c.image for c in both], [c.category for c in both], ["NILM", "ASC-H"], 4)
    assert {places[f"rare {index}"] for index in range(4)} == {0, 1, 2, 3}, "an image of the rare one in each"
    share = [sum(places[crop.image] == fold for crop in common) / 300 for fold in range(4)]
    assert max(share) - min(share) < 0.05
    for fold in range(4):
        parts = folds.parts(both, ["NILM", "ASC-H"], 4, fold)
        assert not {crop.image for crop in parts.fitted} & {crop.image for crop in parts.held_out}
        assert len(parts.fitted) + len(parts.held_out) == len(rare) + 300
    with pytest.raises(UserError, match="all ASC-H cells are in one fold; use more folds"):
        folds.parts(both, ["NILM", "ASC-H"], 1, 0)
    once = [crop for crop in both if crop.image not in ("rare 0", "rare 1", "rare 2")]
    for cells, complaint in ((once, "all ASC-H cells are in one image"), (common, "no image has a cell of ASC-H")):
        with pytest.raises(UserError, match=f"^{complaint}; annotate more images, or leave ASC-H out: --set"):
            for fold in range(4):
                folds.parts(cells, ["NILM", "ASC-H"], 4, fold)


def test_a_class_is_even_over_its_images_where_that_is_asked_for() -> None:
    found = [Crop(np.full(1, index), "NILM", f"image {index > 0}") for index in range(9)]
    assert [len(pool) for pool in pools(found, "NILM", even_images=True)] == [1, 8]
    assert [len(pool) for pool in pools(found, "NILM", even_images=False)] == [9]
    assert pools(found, "HSIL", even_images=True) == []


def test_balanced_accuracy_is_the_mean_recall_of_the_classes_that_are_there() -> None:
    found = [Crop(np.zeros(1), name, "x") for name in ("NILM", "NILM", "NILM", "NILM", "HSIL", "HSIL")]
    said = accuracy.scores(found, np.array([0, 0, 0, 1, 1, 0]), ["NILM", "HSIL", "LSIL"])
    assert said["balanced_accuracy"] == pytest.approx((0.75 + 0.5) / 2)
    assert said["accuracy"] == pytest.approx(4 / 6)
    assert said["confusion"]["HSIL"] == {"NILM": 1, "HSIL": 1, "LSIL": 0}


TINY = {
    "data": [Source(root="drawn")], "size": 48, "enlarged": 64, "shift": 4, "categories": ["NILM", "LSIL"],
    "max_steps": 2, "batch_size": 2, "preview_every": 2, "log_every": 1, "warmup_steps": 0, "views": 2,
}  # fmt: skip


@pytest.mark.slow
def test_cross_fitting_classifies_every_cell_by_a_network_that_never_saw_its_image(tmp_path: Path) -> None:
    write_fields(tmp_path / "drawn", 6)
    recipe = preset("bundled", "efficientnet-lite0").model_copy(update={**TINY, "folds": 2})
    run = tmp_path / "run"
    train_classifier(recipe, run, tmp_path)
    said = json.loads((run / "cross_fitting.json").read_text())
    cells = [*crops.load(recipe, tmp_path), *crops.load(recipe, tmp_path, held_out=True)]
    assert said["cells"] == len(cells), "train and val, each once; test never"
    seen = {crop.image for crop in cells}
    assert not seen & {f"drawn/{name}" for name in json.loads((tmp_path / "drawn/split.json").read_text())["test"]}
    again = np.zeros((2, 2), int)
    for fold in range(2):
        parts = folds.parts(cells, recipe.categories, 2, fold)
        classifier = CellClassifier.load(run / f"fold-{fold}/weights")
        for crop in parts.held_out:
            guess = classifier.of_crops([crop.pixels[4:-4, 4:-4]]).argmax()
            again[recipe.categories.index(crop.category), guess] += 1
    assert again.tolist() == [list(row.values()) for row in said["confusion"].values()]
    assert list((run / "fold-0/previews").glob("*.png"))


def test_a_classifier_on_imagenet_features_reads_crops_as_it_was_trained() -> None:
    """Enlarged, as (x - 127) / 128, averaged over the eight views, on the package's features."""
    torch.manual_seed(0)
    recipe = preset("bundled", "efficientnet-lite0").model_copy(update={**TINY, "views": 8})
    task = ClassifierTask(recipe, [Crop(np.zeros((56, 56, 3), np.uint8), name, "x") for name in ("NILM", "LSIL")], [])
    network = task.network
    assert torch.equal(network._conv_head.weight, efficientnet_lite.read("efficientnet-lite0")["_conv_head.weight"])
    assert not network._blocks[4]._project_conv.weight.requires_grad and network._conv_head.weight.requires_grad
    assert [factor for _, factor in task.groups()] == [1.0, 0.3]
    crop = drawn(3)[0][:48, :48]
    classifier = CellClassifier(network, task.config)
    images = torch.nn.functional.interpolate(
        ((torch.tensor(crop).permute(2, 0, 1).float() - 127) / 128)[None], size=64, mode="bilinear"
    )
    with torch.no_grad():
        views = [torch.rot90(other, turn, (2, 3)) for other in (images, images.flip(3)) for turn in range(4)]
        wanted = torch.cat([network(view).double().softmax(1) for view in views]).mean(0)
        body = network.extract_features(images).mean((2, 3))
    assert np.allclose(classifier.of_crops([crop])[0], wanted, atol=1e-5)
    square = (0.0, 0.0, 48.0, 48.0)
    assert classifier.features([crop], [square]).shape == (1, 1280)
    prepared = classifiers.prepare(crop, task.config)[None]
    assert torch.allclose(classifiers.features(network, prepared), body, atol=1e-4)


@pytest.mark.parametrize(("name", "architecture"), [("resnet50", "resnet50"), ("efficientnet", "efficientnet-lite0")])
def test_no_cell_has_longer_features_than_others_in_a_cytology_network(
    name: str, architecture: str, tmp_path: Path
) -> None:
    """The distance of one cell with a hundred times the activations is no larger than the others'."""
    torch.manual_seed(0)
    recipe = ClassifierRecipe(architecture=architecture, categories=list(CATEGORIES), size=32)
    task = ClassifierTask(recipe, [], [])
    task.export(tmp_path)
    extractor = features.load(f"cytology-{name}", tmp_path)
    image = drawn(1)[0]
    found = extractor([image[:64, :64], image[:90, :80]])
    assert found.shape == (2, extractor.dimension)
    assert np.allclose(np.linalg.norm(found, axis=1), np.sqrt(extractor.dimension), rtol=1e-4)
    other = "efficientnet" if name == "resnet50" else "resnet50"
    with pytest.raises(UserError, match=f"cytology-{other} needs {other}"):
        features.load(f"cytology-{other}", tmp_path)
    linear = torch.nn.Linear(8, 2)
    long = torch.rand(3, 8) * torch.tensor([[1.0], [1.0], [100.0]])
    from cytosynth.evaluate.networks.cytology import Features

    assert Features(linear)(long).norm(dim=1).tolist() == pytest.approx([8**0.5] * 3, rel=1e-5)
