"""A detector that is used has its batch norm in its convolutions, and finds what the saved one finds."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torchvision.ops import FrozenBatchNorm2d

from conftest import drawn
from cytosynth import registry
from cytosynth.data.sources import Sample
from cytosynth.detection import model, transfer
from cytosynth.detection.fold import faster, fold
from cytosynth.detection.recipe import DetectorRecipe
from cytosynth.detection.train import DetectorTask
from cytosynth.errors import UserError
from cytosynth.io.bundled import bundled

NORMS = (FrozenBatchNorm2d, nn.BatchNorm2d)
BACKBONES = (("small", False), ("resnet50", False), ("resnet50", True), ("efficientnet-lite0", True))


def norms(network: nn.Module) -> list[nn.Module]:
    return [module for module in network.modules() if isinstance(module, NORMS)]


def unlike_the_start(network: nn.Module) -> nn.Module:
    """Return `network` with norms that do something: untrained ones change nothing."""
    for norm in norms(network):
        tensors = dict(norm.named_parameters()) | dict(norm.named_buffers())
        for name, low, high in (
            ("weight", 0.5, 1.2), ("bias", -0.5, 0.5), ("running_mean", -0.5, 0.5), ("running_var", 0.5, 2.0),
        ):  # fmt: skip
            with torch.no_grad():
                tensors[name].uniform_(low, high)
    return network.eval()


@torch.no_grad()
def maps(network: nn.Module, images: Tensor) -> list[Tensor]:
    found = network.get_submodule("backbone")(images)
    return list(found.values()) if isinstance(found, dict) else list(found)


@pytest.mark.parametrize("architecture", list(registry.DETECTORS))
@pytest.mark.parametrize(("backbone", "pretrained"), BACKBONES)
def test_its_maps_are_those_of_the_network_as_saved(architecture: str, backbone: str, pretrained: bool) -> None:
    torch.manual_seed(0)
    config = model.DetectorConfig(
        architecture=architecture, backbone=backbone, categories=("NILM", "LSIL"), pretrained=pretrained
    )
    network = unlike_the_start(model.build(config))
    images = torch.rand(1, 3, 160, 192)
    wanted, there = maps(network, images), len(norms(network))
    assert there or (not pretrained and architecture in ("dino", "comparison-detector")), "these have group norm then"
    found = maps(fold(network), images)
    assert not norms(network)
    for one, other in zip(found, wanted, strict=True):
        assert (one - other).abs().max() <= 1e-4 * other.abs().max()
    again = maps(network, images)
    assert all(torch.equal(one, other) for one, other in zip(found, again, strict=True)), "no input is overwritten"


@pytest.mark.parametrize("architecture", list(registry.DETECTORS))
@pytest.mark.parametrize("backbone", ["small", "efficientnet-lite0"])
def test_a_trained_one_finds_the_same_cells(architecture: str, backbone: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    pixels, cells = drawn(0, 160, 128)
    recipe = DetectorRecipe(
        architecture=architecture, backbone=backbone, weights="none" if backbone == "small" else "imagenet",
        categories=["NILM", "LSIL"],
    )  # fmt: skip
    task = DetectorTask(recipe, [Sample("a.png", "drawn", pixels, tuple(cells))], []).train()
    optimizer = torch.optim.AdamW(task.parameters(), lr=1e-3)
    for step in range(20):
        optimizer.zero_grad()
        task(task.batch(np.random.default_rng(step), 1))["loss"].backward()
        torch.nn.utils.clip_grad_norm_(task.parameters(), 5.0)
        optimizer.step()
    task.eval()
    task.export(tmp_path)
    agrees(model.as_saved(tmp_path), model.load(tmp_path), pixels)


def agrees(saved: model.Detector, used: model.Detector, pixels: np.ndarray) -> None:
    assert used.digest == saved.digest
    assert not norms(used.network)
    wanted, found = saved.find(pixels, 0.1), used.find(pixels, 0.1)
    assert wanted
    assert [cell.category for cell in found] == [cell.category for cell in wanted]
    for one, other in zip(found, wanted, strict=True):
        assert one.box == pytest.approx(other.box, abs=0.05)
        assert one.score == pytest.approx(other.score, abs=1e-4)


def test_the_bundled_one_finds_the_same_cells() -> None:
    folder = bundled("detector")
    saved = model.as_saved(folder)
    assert len(norms(saved.network)) == 48
    for seed in range(3):
        agrees(saved, model.load(folder), drawn(seed, 512, 384)[0])


def test_a_folded_network_is_not_taken_for_a_saved_one(tmp_path: Path) -> None:
    """A training begins from the tensors of the file; a folded network that is saved cannot be read."""
    folder = bundled("detector")
    saved, used = model.as_saved(folder), model.load(folder)
    network = model.build(saved.config)
    said = transfer.start(network, "bundled", saved.config.categories)
    assert said.startswith(f"{len(saved.network.state_dict())} of {len(network.state_dict())} ")
    assert all(torch.equal(value, saved.network.state_dict()[name]) for name, value in network.state_dict().items())
    model.save(used.network, used.config, tmp_path)
    with pytest.raises(UserError, match=r"model\.safetensors"):
        model.load(tmp_path)


def test_only_a_norm_that_follows_a_convolution_is_folded() -> None:
    own = nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4, track_running_stats=False), nn.ReLU())
    wider = nn.Sequential(nn.Conv2d(3, 4, 1), nn.PixelShuffle(2), nn.BatchNorm2d(1))
    for network in (own, wider):
        before = [type(module) for module in network]
        fold(network)
        assert [type(module) for module in network] == before
    assert not own[3].inplace


class PreActivation(nn.Module):
    """As a backbone from outside may be: the norm is registered after a convolution that it does not follow."""

    def __init__(self, least: int = 0) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 3, 1)
        self.norm = nn.BatchNorm2d(3)
        self.least = least

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        if images.shape[-1] < self.least:
            raise RuntimeError("the size of tensor a must match the size of tensor b")
        return {"0": self.convolution(self.norm(images))}


@pytest.mark.parametrize("least", [0, 224])
def test_a_backbone_that_is_not_as_it_registers_is_left_as_it_is(least: int) -> None:
    torch.manual_seed(0)
    network = nn.Module()
    network.backbone = PreActivation(least)
    assert faster(unlike_the_start(network)) is network and len(norms(network)) == 1


def test_what_is_not_compared_is_not_folded() -> None:
    network = nn.Module()
    network.backbone = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    network.head = nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4))
    assert norms(faster(unlike_the_start(network))) == [network.head[1]]
    without = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    assert norms(faster(without.eval())) == [without[1]], "no backbone"
