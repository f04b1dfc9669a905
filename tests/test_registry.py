"""Adding one thing is one file and one entry: a made-up one of each kind, from outside, through its command."""

import json
import sys
import types
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from cytosynth import registry
from cytosynth.adapters.adapter import Adapter
from cytosynth.classifier.model import CellClassifier
from cytosynth.cli import app, detect, doctor, experiment, fidelity, info, robustness, synthesize, train  # noqa: F401
from cytosynth.detection import faster_rcnn
from cytosynth.detection.architecture import Architecture
from cytosynth.detection.backbones import small
from cytosynth.errors import UsageError
from cytosynth.evaluate.networks.network import Network
from cytosynth.foundation.model import Foundation
from cytosynth.io.report import Report
from cytosynth.registry import Registry
from cytosynth.variation.view import Variation, View


class Bias(Adapter):
    """A made-up adapter: the bias of the U-Net's last convolution."""

    name, file = "bias", "bias.safetensors"

    def __init__(self, model: Foundation) -> None:
        super().__init__(model)
        self.bias = model.unet.conv_out.bias.requires_grad_()

    @classmethod
    def recognises(cls, keys: list[str]) -> bool:
        return list(keys) == ["conv_out.bias"]

    def save(self, folder: Path) -> None:
        save_file({"conv_out.bias": self.bias.detach().cpu()}, folder / self.file)

    @classmethod
    def merge(cls, model: Foundation, file: Path) -> None:
        model.unet.conv_out.bias.data = load_file(file)["conv_out.bias"]


def brightness(_weights: Path | None) -> Network:
    """A made-up feature network: the mean of each channel."""
    return Network(
        "D (brightness)", 3, torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()),
        lambda pixels: torch.from_numpy(np.array(pixels)).permute(2, 0, 1).float() / 255, "bytes over 255",
    )  # fmt: skip


def network(_architecture: str, classes: int) -> torch.nn.Module:
    """A made-up classifier: a linear layer on the mean colour."""
    pooled = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
    return torch.nn.Sequential(OrderedDict(pooled=pooled, fc=torch.nn.Linear(3, classes)))


def darker(view: View, amount: float, _rng: np.random.Generator) -> View:
    """A made-up variation: less light."""
    return view.with_pixels((view.pixels * (1 - amount)).astype(np.uint8))


DARKER = Variation("darker", "share", "of the light", (0.1, 0.2, 0.3, 0.4, 0.5), (0.0, 0.9), darker)


def table9(out: Path, count: int = 3) -> None:
    """Table IX: the first squares."""
    report = Report("Table IX", {}, ("n", "square"), tuple((n, n * n) for n in range(count)), ())
    report.write(out, "table9")


@pytest.fixture(autouse=True)
def outside() -> Iterator[None]:
    """Register them under a module that is no part of the package."""
    module = types.ModuleType("someones")
    module.Bias, module.brightness = Bias, brightness  # type: ignore[attr-defined]
    module.table9, module.network = table9, network  # type: ignore[attr-defined]
    module.VARIATION = DARKER  # type: ignore[attr-defined]
    module.ARCHITECTURE, module.backbone = Architecture(faster_rcnn.build), small.backbone  # type: ignore[attr-defined]
    sys.modules["someones"] = module
    added = [
        (registry.ADAPTERS, "bias", "someones:Bias", {"bundled": {"learning_rate": 0.1}}),
        (registry.EXTRACTORS, "brightness", "someones:brightness", {}),
        (registry.SAMPLERS, "heun", "diffusers:HeunDiscreteScheduler", {}),
        (registry.DETECTORS, "own-rcnn", "someones:ARCHITECTURE", {"bundled": {"learning_rate": 0.01}}),
        (registry.BACKBONES, "own-backbone", "someones:backbone", {}),
        (registry.TABLES, "table9", "someones:table9", {}),
        (registry.CLASSIFIERS, "own-net", "someones:network", {"bundled": {"size": 32, "batch_size": 2}}),
        (registry.VARIATIONS, "darker", "someones:VARIATION", {}),
    ]
    for kind, name, where, settings in added:
        kind.add(name, where, "made up", settings)
    yield
    for kind, name, _, _ in added:
        kind.remove(name)
    del sys.modules["someones"]


def command(*words: object) -> str:
    run = CliRunner().invoke(app, [str(word) for word in words])
    assert run.exit_code == 0, (run.output, run.exception)
    return run.output


def test_an_adapter_from_outside_is_trained_and_generates(tiny: Path, fields: Path, tmp_path: Path) -> None:
    settings = [f"foundation={tiny / 'foundation'}", "window=64", "batch_size=1", "max_steps=1", "validate_every=0"]
    given = [word for setting in settings for word in ("--set", setting)]
    command("train", "normal", tmp_path / "run", "--adapter", "bias", "--data", fields / "drawn", *given)
    card = json.loads((tmp_path / "run/weights/adapter.json").read_text())
    assert (card["adapter"], card["training"]["learning_rate"]) == ("bias", 0.1)
    small = ["normal.size=256", "normal.steps=1", "cell.steps=1", "normal.sampler=heun", "min_cells=0", "threshold=1"]
    models = [word for name in ("foundation", "cell", "detector") for word in (f"--{name}", tiny / name)]
    changed = [word for setting in small for word in ("--set", setting)]
    said = command(
        "synthesize",
        tmp_path / "set",
        "--count",
        1,
        "--normal",
        tmp_path / "run/weights/bias.safetensors",
        *models,
        *changed,
    )
    assert "1 image" in said
    assert "heun" in (tmp_path / "set/settings.yaml").read_text()


def test_a_table_from_outside_has_a_command(tmp_path: Path) -> None:
    assert "Table IX: the first squares." in command("experiment", "--help")
    command("experiment", "table9", tmp_path, "--count", 4)
    rows = json.loads((tmp_path / "table9.json").read_text())["rows"]
    assert [row["square"] for row in rows] == [0, 1, 4, 9]
    assert json.loads(command("info", "--json"))["tables"]["table9"] == "made up"


def test_a_detector_on_a_backbone_from_outside_is_trained_and_finds(fields: Path, tmp_path: Path) -> None:
    settings = [
        "backbone=own-backbone",
        "weights=none",
        "window=96",
        "batch_size=1",
        "max_steps=1",
        "categories=[LSIL]",
    ]
    given = [word for setting in settings for word in ("--set", setting)]
    command("train", "detector", tmp_path / "run", "--architecture", "own-rcnn", "--data", fields / "drawn", *given)
    config = json.loads((tmp_path / "run/weights/config.json").read_text())
    assert (config["architecture"], config["backbone"]) == ("own-rcnn", "own-backbone")
    assert "learning_rate: 0.01" in (tmp_path / "run/recipe.yaml").read_text()
    image = next((fields / "drawn/images").iterdir())
    said = command("detect", image, tmp_path / "found", "--detector", tmp_path / "run", "--threshold", 0.05)
    assert "1 image" in said


def test_a_classifier_from_outside_is_trained_and_classifies(fields: Path, tmp_path: Path) -> None:
    data = ["--data", fields / "drawn", "--max-steps", 1]
    command("train", "features", tmp_path / "run", "--architecture", "own-net", *data)
    config = json.loads((tmp_path / "run/weights/config.json").read_text())
    assert (config["architecture"], config["size"]) == ("own-net", 32)
    given = CellClassifier.load(tmp_path / "run/weights").of_crops([np.zeros((32, 32, 3), np.uint8)])
    assert given.shape == (1, 5) and np.allclose(given.sum(), 1, atol=1e-5)


def test_a_variation_from_outside_is_a_condition_of_the_benchmark(tiny: Path, fields: Path, tmp_path: Path) -> None:
    settings = [word for setting in ("variations=[darker]", "limit=2", "draws=10") for word in ("--set", setting)]
    out = ["--output", tmp_path / "out", "--quick", "--split", "all"]
    said = command("evaluate", "robustness", tiny / "detector", fields / "drawn", *out, *settings)
    assert "darker" in said and "darker" in (tmp_path / "out/robustness.csv").read_text()


def test_a_feature_network_from_outside_measures(fields: Path, tmp_path: Path) -> None:
    images = fields / "drawn/images"
    said = command("evaluate", "fidelity", images, images, "--features", "brightness", "--window", 64, "--count", 20,
                   "--cache", tmp_path, "--output", tmp_path / "out", "--device", "cpu")  # fmt: skip
    assert "KD (brightness)" in said.replace("\n", " ")


def test_all_of_them_are_said_by_info() -> None:
    facts = json.loads(command("info", "--json"))
    assert facts["adapters"]["bias"] == facts["extractors"]["brightness"] == facts["samplers"]["heun"] == "made up"


def test_names_are_taken_once_and_unknown_ones_are_listed() -> None:
    own = Registry("thing", {})
    own.add("a", "someones:Bias", "first")
    with pytest.raises(ValueError, match="thing 'a' is registered already, at someones:Bias"):
        own.add("a", "someones:brightness", "second")
    with pytest.raises(UsageError, match="unknown thing 'b'; choose one of a"):
        own.load("b")
    assert own.load("a") is Bias
    with pytest.raises(ValueError, match="choose one of a"):
        own.known("b")


def test_doctor_says_what_is_ready() -> None:
    run = CliRunner().invoke(app, ["doctor", "--json", "--recipe", "normal", "--preset", "bundled"])
    lines = {line["what"]: line for line in json.loads(run.output)}
    assert run.exit_code == 0
    assert lines["torch"]["found"] == torch.__version__.partition("+")[0] or lines["torch"]["state"] == "ready"
    assert "hours for 2,000 steps" in lines["train normal --preset bundled"]["found"]
    assert lines["memory of a step"]["state"] == "ready"
    wrong = CliRunner().invoke(app, ["doctor", "--recipe", "nucleus"], catch_exceptions=True)
    known = "normal, cell, distill-normal, distill-cell, detector, synthesize"
    assert f"choose one of {known}" in str(wrong.exception)


@pytest.mark.slow
def test_the_paper_on_24_gb_is_what_was_measured_on_a_gpu() -> None:
    """Table of docs/gpu.md, which is PyTorch's peak on an H200: counting leaves out 0.1 to 1.0 GiB of it."""
    from cytosynth.cell import memory as cell
    from cytosynth.cell.recipe import PRESETS
    from cytosynth.normal import memory as normal
    from cytosynth.normal.recipe import preset

    for counted, measured in (
        (normal.count(preset("paper-24gb")).peak / 2**30, 9.5), (cell.count(PRESETS["paper-24gb"]).peak / 2**30, 9.1),
    ):  # fmt: skip
        assert measured - 1.1 < counted < measured
        assert counted + 1 < 24


def test_a_detector_is_counted_with_the_area_and_the_images() -> None:
    from cytosynth.detection.recipe import preset
    from cytosynth.readiness import estimates

    small = preset("bundled").model_copy(update={"backbone": "small", "window": 256, "batch_size": 1})
    large = small.model_copy(update={"window": 512})
    assert estimates.flops_of_step(large) == 4 * estimates.flops_of_step(small) > 1e9
    paper = preset("paper").model_copy(update={"backbone": "small"})
    assert estimates.steps(paper, 300) == 20 * 300 / 2


def test_flops_are_counted_and_grow_with_the_area() -> None:
    from cytosynth.normal.recipe import preset
    from cytosynth.readiness import estimates

    small = preset("bundled").model_copy(update={"window": 256, "batch_size": 1})
    large = small.model_copy(update={"window": 512})
    assert 3.5 < estimates.flops_of_step(large) / estimates.flops_of_step(small) < 6
    assert estimates.flops_of_step(small.model_copy(update={"batch_size": 3})) == 3 * estimates.flops_of_step(small)
