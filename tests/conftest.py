"""Small real things for the tests: drawn fields, an untrained tiny Stable Diffusion, tiny models of each stage."""

import json
import os
import subprocess
from collections.abc import Iterator, Sequence

os.environ.setdefault("HF_HUB_OFFLINE", "1")

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image as PILImage
from PIL import ImageDraw
from safetensors.torch import save_file
from torchvision import models

import killing
from cytosynth.adapters import adapter, lora
from cytosynth.annotations import Cell, DataSet, Image
from cytosynth.bethesda import NORMAL_PROMPT
from cytosynth.cell import synthesizer
from cytosynth.data.formats import coco
from cytosynth.detection import model as detectors
from cytosynth.foundation.load import load, save
from cytosynth.foundation.save import save_part
from cytosynth.foundation.scratch import autoencoder, denoiser, text
from cytosynth.foundation.scratch.recipe import AutoencoderRecipe, DenoiserRecipe
from cytosynth.io import atomic

pytest_plugins = ["annotated_edits"]
GREEN, PINK = (150, 205, 200), (235, 165, 165)
"""Cytoplasm."""
CATEGORIES = ("NILM", "ASC-US", "ASC-H", "LSIL", "HSIL")
LICENCE = {"id": 1, "name": "CC BY 4.0", "url": "https://creativecommons.org/licenses/by/4.0/"}
AUTOENCODER = {"block_out_channels": [4, 4, 8, 8], "norm_num_groups": 4, "crops": [64]}
TEXT = {"text_channels": 16, "text_layers": 1, "crop": 64}
DENOISER = {"block_out_channels": [8, 8, 16, 16], "norm_num_groups": 4, "crops": [16]}


def drawn(seed: int, width: int = 320, height: int = 288) -> tuple[np.ndarray, list[Cell]]:
    """Return a field of ellipses with dark middles, and a box around each middle."""
    rng = np.random.default_rng(seed)
    image = PILImage.new("RGB", (width, height), (240, 243, 246))
    draw = ImageDraw.Draw(image)
    cells = []
    for number in range(5):
        x, y = int(rng.integers(50, width - 50)), int(rng.integers(50, height - 50))
        tone = tuple(int(value) for value in rng.integers(120, 220, 3))
        draw.ellipse((x - 40, y - 32, x + 40, y + 32), fill=tone)
        draw.ellipse((x - 6, y - 6, x + 6, y + 6), fill=(60, 40, 90))
        cells.append(Cell((x - 20.0, y - 20.0, x + 20.0, y + 20.0), CATEGORIES[(seed + number) % 5]))
    return np.asarray(image), cells


def write_fields(root: Path, count: int = 6) -> DataSet:
    """Write `count` drawn fields as a COCO data set, the first one without abnormal cells."""
    (root / "images").mkdir(parents=True)
    images = []
    for index in range(count):
        pixels, cells = drawn(index)
        if index % 3 == 0:
            cells = [Cell(cell.box, "NILM") for cell in cells]
        name = f"field {index}.png" if index == 1 else f"field_{index}.png"
        PILImage.fromarray(pixels).save(root / "images" / name)
        label = "Negative" if index % 3 == 0 else "LSIL"
        extra = {"license": 1, "source": f"doi:10.1/{index}", "image_level_label": label}
        images.append(Image(name, pixels.shape[1], pixels.shape[0], tuple(cells), extra))
    data = DataSet(root / "images", tuple(images), CATEGORIES, (LICENCE,), {"description": "drawn fields"})
    coco.write(data, root)
    names = [image.file_name for image in images]
    atomic.write_json(root / "split.json", {"train": names[:-2], "val": names[-2:-1], "test": names[-1:]})
    return data


@pytest.fixture(scope="session")
def fields(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose `drawn` is a small COCO data set."""
    root = tmp_path_factory.mktemp("data")
    write_fields(root / "drawn")
    return root


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with tiny models: `foundation`, `normal` (LoRA), `cell`, `detector`, all untrained but not zero."""
    root = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    vae = autoencoder.build(AutoencoderRecipe(data=[], **AUTOENCODER))
    vae.register_to_config(scaling_factor=1.0)
    words = text.build(TEXT["text_channels"], TEXT["text_layers"])
    save(denoiser.build(DenoiserRecipe(data=[], **DENOISER), vae, *words), root / "foundation", torch.float32)
    model = load(str(root / "foundation"))
    tuned = lora.Lora(model, 4)
    disturb(model.unet, "lora_B")
    (root / "normal").mkdir()
    adapter.save(tuned, NORMAL_PROMPT, root / "normal")
    cell = synthesizer.build(load(str(root / "foundation")).unet)
    disturb(cell, "alpha", "conv_in.weight")
    save_part(cell, root / "cell", torch.float32)
    config = detectors.DetectorConfig(backbone="small", categories=("NILM",))
    (root / "detector").mkdir()
    network = detectors.build(config)
    network.roi_heads.box_predictor.cls_score.bias.data = torch.tensor([-1.0, 1.0])
    detectors.save(network, config, root / "detector")
    return root


def save_classifier(folder: Path, **changes: object) -> Path:
    """Write a small cell classifier, such as a gate uses, to `folder`, with `changes` of its configuration."""
    torch.manual_seed(1)
    network = models.get_model("shufflenet_v2_x0_5", weights=None, num_classes=len(CATEGORIES))
    disturb(network, "fc")
    folder.mkdir(parents=True, exist_ok=True)
    save_file(network.state_dict(), folder / "model.safetensors")
    config = {
        "architecture": "shufflenet_v2_x0_5", "classes": CATEGORIES, "size": 32, "mean": [0.8, 0.7, 0.8],
        "std": [0.2, 0.2, 0.2], "scale": {"drawn": 1.0}, "context": 1.5,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config | changes))
    return folder


def slide(cells: Sequence[tuple[int, int, int, int]], cytoplasm: tuple[int, int, int] = GREEN) -> np.ndarray:
    """Draw discs of cytoplasm with discs of nucleus: x, y, radius of the cell, radius of the nucleus."""
    image = PILImage.new("RGB", (256, 256), (244, 244, 246))
    draw = ImageDraw.Draw(image)
    for x, y, outer, inner in cells:
        draw.ellipse((x - outer, y - outer, x + outer, y + outer), fill=cytoplasm)
        draw.ellipse((x - inner, y - inner, x + inner, y + inner), fill=(60, 45, 95))
    noise = np.random.default_rng(0).normal(0, 3, (256, 256, 3))
    return np.clip(np.asarray(image) + noise, 0, 255).astype(np.uint8)


def same_on_gpu(detector: str) -> None:
    """Skip where the gradients of `detector` are not the same twice."""
    if torch.cuda.is_available() and detector != "retinanet":
        pytest.skip("on a GPU the gradients of RoIAlign and of bilinear sampling are summed in any order")


@torch.no_grad()
def disturb(module: torch.nn.Module, *names: str) -> None:
    """Give the parameters whose name holds one of `names` values other than zero."""
    for key, parameter in module.named_parameters():
        if any(name in key for name in names):
            parameter += 0.3 * torch.randn_like(parameter)


@pytest.fixture(scope="session")
def cytosynth() -> Iterator[killing.Server]:
    """Runs the command line in forked processes, and kills them where it is told to."""
    with killing.server() as server:
        yield server


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 20 MB."""
    place = tmp_path / "disk"
    place.mkdir()
    if os.geteuid() or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=20m", "tmpfs", place]).returncode:
        pytest.skip("a file system of 20 MB cannot be mounted here: not root, or not allowed")
    yield place
    subprocess.run(["umount", place], check=True)
