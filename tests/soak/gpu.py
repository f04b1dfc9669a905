"""Seconds and memory at Stable Diffusion 1.5's size: the tables of docs/gpu.md.

`python tests/soak/gpu.py FOLDER [--device cuda] [--side 1024] [--only PART ...]`: makes a foundation of that size with
random weights and drawn images in FOLDER, and prints a line of JSON for each training and each way of drawing.
`--tiny` makes a small foundation instead, to try the script itself without a GPU.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from PIL import Image as PILImage
from transformers import CLIPTextConfig, CLIPTextModel

from cytosynth import devices, registry
from cytosynth.annotations import Cell, DataSet, Image
from cytosynth.bethesda import ABNORMAL
from cytosynth.cell.edit import CellEditor, PlannedEdit
from cytosynth.cell.recipe import PRESETS as CELL
from cytosynth.cell.settings import EditSettings
from cytosynth.cell.synthesizer import build
from cytosynth.cell.train import train_cell
from cytosynth.config import override
from cytosynth.data.formats import coco
from cytosynth.detection.recipe import preset as detector_preset
from cytosynth.detection.train import train_detector
from cytosynth.foundation import sd15, tokens
from cytosynth.foundation.load import load, save
from cytosynth.foundation.model import Foundation
from cytosynth.foundation.save import save_part
from cytosynth.normal.generate import NormalImageGenerator
from cytosynth.normal.memory import LESS
from cytosynth.normal.recipe import preset
from cytosynth.normal.settings import GenerateSettings
from cytosynth.normal.train import train_normal

STEPS, FIRST = 8, 3
"""Of a training; those before FIRST are not counted."""
COMMON = (f"max_steps={STEPS}", "log_every=1", "checkpoint_every=100000", "preview_every=100000", "validate_every=0")


def foundation(folder: Path, tiny: bool, device: str) -> None:
    """Write a foundation with random weights to `folder`, half precision."""
    small = {"block_out_channels": [32] * 4} if tiny else {}
    torch.manual_seed(0)
    with torch.device(device):
        model = Foundation(
            UNet2DConditionModel(**sd15.UNET | small), AutoencoderKL(**sd15.VAE | small),
            CLIPTextModel(CLIPTextConfig(**sd15.TEXT | ({"num_hidden_layers": 1} if tiny else {}))),
            tokens.build(["A normal abnormal cell cervical cytopathological image"], 77),
            DDPMScheduler.from_config(sd15.SCHEDULER), "random",
        )  # fmt: skip
    save(model, folder, torch.float16)


def images(root: Path, side: int, categories: tuple[str, ...]) -> None:
    """Write eight images of eight discs each to the data set `root`."""
    (root / "images").mkdir(parents=True, exist_ok=True)
    y, x = np.mgrid[:side, :side]
    made = []
    for number in range(8):
        rng = np.random.default_rng(number)
        pixels, cells = rng.normal(225, 4, (side, side, 3)), []
        for index in range(8):
            left, top, radius = (int(value) for value in rng.integers((60, 60, 20), (side - 60, side - 60, 40)))
            pixels[(x - left) ** 2 + (y - top) ** 2 < radius**2] = rng.uniform(90, 180, 3)
            box = (float(left - radius), float(top - radius), float(left + radius), float(top + radius))
            cells.append(Cell(box, categories[index % len(categories)]))
        PILImage.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(root / f"images/{number}.png")
        made.append(Image(f"{number}.png", side, side, tuple(cells)))
    coco.write(DataSet(root / "images", tuple(made), ("NILM", *ABNORMAL)), root)


def trained(run: Path) -> dict[str, Any]:
    """Return the median seconds of a step of the training in the folder `run`."""
    seconds = [json.loads(line)["seconds"] for line in (run / "timing.jsonl").read_text().splitlines()]
    return {"seconds_a_step": round(float(np.median(seconds[FIRST:])), 4)}


def drawn(root: Path, device: str, side: int, precision: Any) -> dict[str, Any]:
    """Return the seconds of a field and of eight cells, after a first one of two steps each."""
    wait = torch.cuda.synchronize if device.startswith("cuda") else lambda: None

    def timed(work: Callable[[int], Any]) -> float:
        work(2)
        wait()
        started = time.monotonic()
        work(25)
        wait()
        return round(time.monotonic() - started, 2)

    def field() -> float:
        generator = NormalImageGenerator(str(root / "sd"), None, device, precision)
        return timed(lambda steps: generator.field(0, 0, GenerateSettings(size=side, steps=steps)))

    def cells() -> float:
        editor = CellEditor.load(str(root / "sd"), str(root / "cell"), device, precision)
        with PILImage.open(root / "normal/images/0.png") as opened:
            pixels = np.asarray(opened)
        edits = [(pixels, PlannedEdit((100.0 + i, 100.0, 180.0, 180.0), "HSIL", i)) for i in range(8)]
        return timed(lambda steps: editor.paint(edits, EditSettings(steps=steps)))

    return {"field": field(), "field_gib": peak(), "eight_cells": cells()}


def peak() -> float | None:
    """Return the most memory that was allocated on the GPU since the last reset, GiB."""
    return round(torch.cuda.max_memory_allocated() / 2**30, 2) if torch.cuda.is_available() else None


def parts(root: Path, device: str, side: int) -> Iterator[tuple[str, Callable[[], dict[str, Any]]]]:
    """Yield each thing that is measured and what measures it."""
    sd, normal, abnormal = (
        f"foundation={root / 'sd'}",
        "data=[{root: normal, split: all}]",
        "data=[{root: abnormal, split: all}]",
    )

    def training(start: Callable[..., Any], recipe: Any, name: str, *settings: str) -> Callable[[], dict[str, Any]]:
        def measure() -> dict[str, Any]:
            run = root / "runs" / name.replace(" ", "-")
            start(override(recipe, [*COMMON, *settings]), run, root)
            return trained(run)

        return measure

    lora = preset("paper", "lora")
    for name, less in LESS:
        changes = [f"{key}={value}" for key, value in less.items()]
        yield f"lora {name}", training(train_normal, lora, f"lora {name}", sd, normal, f"window={side}", *changes)
    for precision in ("no", "bf16"):
        name = f"cell {precision}"
        yield name, training(train_cell, CELL["paper"], name, sd, abnormal, f"mixed_precision={precision}")
    for architecture in registry.DETECTORS:
        recipe = detector_preset("paper", architecture)
        name, whole = f"detector {architecture}", ("weights=none", "epochs=null", f"categories=[{', '.join(ABNORMAL)}]")
        yield name, training(train_detector, recipe, name, abnormal, *whole)
    for precision in ("fp32", "bf16", "fp16"):
        yield f"drawing {precision}", lambda precision=precision: drawn(root, device, side, precision)


def main() -> None:
    """Measure what the command line asks for."""
    given = argparse.ArgumentParser(description=__doc__)
    given.add_argument("folder", type=Path)
    given.add_argument("--device", default="cuda")
    given.add_argument("--side", type=int, default=1024)
    given.add_argument("--tiny", action="store_true")
    given.add_argument("--only", nargs="*", default=[""], metavar="PART", help="lora, cell, detector, drawing")
    asked = given.parse_args()
    root = asked.folder.resolve()
    if (root / "runs").exists():
        sys.exit(f"{root}: measured here before; give a new folder")
    devices.use(asked.device)
    foundation(root / "sd", asked.tiny, asked.device)
    save_part(build(load(str(root / "sd")).unet), root / "cell", torch.float16)
    images(root / "normal", asked.side, ("NILM",))
    images(root / "abnormal", asked.side, tuple(ABNORMAL))
    for name, measure in parts(root, asked.device, asked.side):
        if name.startswith(tuple(asked.only)):
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
                torch.cuda.reset_peak_memory_stats()
            print(json.dumps({"part": name} | measure() | {"peak_gib": peak()}), flush=True)


if __name__ == "__main__":
    main()
