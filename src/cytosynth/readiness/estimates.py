"""Estimates of the hours, memory and disk of a training on this machine, before it starts."""

from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from ..cell import memory as cell_memory
from ..cell import patch
from ..cell.recipe import PRESETS as CELL
from ..cell.recipe import CellRecipe
from ..detection import model as detectors
from ..detection.recipe import DetectorRecipe
from ..detection.recipe import preset as detector_of
from ..detection.train import steps
from ..devices import measured_peak
from ..distill.recipe import PRESETS as DISTILL
from ..distill.recipe import CellDistillRecipe, Distillation, NormalDistillRecipe
from ..foundation import memory
from ..foundation.model import DTYPES
from ..foundation.precision import resolved
from ..normal import memory as normal_memory
from ..normal.recipe import NormalRecipe, WindowRecipe
from ..normal.recipe import preset as recipe_of
from ..normal.settings import GenerateSettings
from .line import GIB, Line, disk
from .line import memory as memory_of_machine

Trained = NormalRecipe | CellRecipe | DetectorRecipe | NormalDistillRecipe | CellDistillRecipe
LCM_LORA = 67_500_000 / 64
"""Parameters of a distilled LoRA on Stable Diffusion 1.5 for each rank."""
IMAGES, COUNT = 1000, 1000
"""Default numbers of images to train a detector on, and to synthesize."""
SMALL, FIELD = 256, 1024
"""Pixels a side: of the image on which a detector is counted, and of those that it is trained on."""
PNG = 2.5e6
"""Bytes of a field, those of the demo."""
SLOW = 200
"""Hours above which another machine is advised."""
EFFICIENCY = 0.3
"""Share of the peak of matrix products that training steps are assumed to reach; hence a range of hours."""


def needs(
    part: str, preset: str, folder: Path, *, foundation: str | None = None, images: int = IMAGES, count: int = COUNT
) -> list[Line]:
    """Return the hours, GB of memory and GB of disk that training `part` with `preset` will need on this machine.

    Args:
        part: 'normal', 'cell', 'distill-normal', 'distill-cell', 'detector', or 'synthesize', which trains nothing.
        preset: whose recipe.
        folder: on the disk that runs are written to.
        foundation: instead of the recipe's.
        images: to train a detector on, whose recipe counts in epochs.
        count: images to synthesize, of eight cells each.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if part == "synthesize":
        return _synthesis(count, foundation or recipe_of(preset).foundation, folder, device)
    recipe = _recipe(part, preset, foundation)
    length = steps(recipe, images) if isinstance(recipe, DetectorRecipe) else recipe.max_steps
    half = recipe.mixed_precision != "no"
    peak = measured_peak(torch.device(device), torch.bfloat16 if half else torch.float32)
    hours = flops_of_step(recipe) * length / (peak * EFFICIENCY) / 3600
    epochs = recipe.epochs if isinstance(recipe, DetectorRecipe) else None
    said = f"{length:,} steps" + (f", {epochs} epochs of {images:,} images" if epochs else "")
    slow = hours > SLOW
    todo = "use a GPU, or --preset bundled" if slow else "an estimate; timing.jsonl of the run has the measured time"
    lines = [
        Line(f"train {part} --preset {preset}", "note" if slow else "ready", _hours(hours, said, device, peak), todo)
    ]
    if isinstance(recipe, DetectorRecipe):  # whose memory is not counted; docs/gpu.md has measured figures
        return [*lines, disk(folder, disk_of_run(recipe, sum(p.numel() for p in _network(recipe).parameters())))]
    if isinstance(recipe, Distillation):
        return [*lines, disk(folder, disk_of_run(recipe, round(LCM_LORA * recipe.rank)))]
    need = normal_memory.count(recipe) if isinstance(recipe, NormalRecipe) else cell_memory.count(recipe)
    lines.append(disk(folder, disk_of_run(recipe, need.parameters)))
    lines.append(_memory_line(need.peak / GIB + 1, device))
    return lines


def _synthesis(count: int, foundation: str, folder: Path, device: str) -> list[Line]:
    """Return the hours for generating `count` fields and editing eight cells of each."""
    precision = resolved("auto", device)
    peak = measured_peak(torch.device(device), DTYPES[precision])
    steps_of_field = 2 * GenerateSettings().steps  # with and without the prompt
    each = steps_of_field * (_unet(foundation, GenerateSettings().size, 1) + 8 * _unet(foundation, patch.SIZE, 1))
    hours = count * each / (peak * EFFICIENCY) / 3600
    said = _hours(hours, f"{count:,} images of 1024x1024 with eight cells each in {precision}", device, peak)
    return [
        Line(
            f"synthesize --count {count}",
            "note" if hours > SLOW else "ready",
            said,
            "an estimate; `cytosynth benchmark` measures",
        ),
        disk(folder, count * PNG / 1e9),
    ]


def _hours(hours: float, said: str, device: str, peak: float) -> str:
    machine = f"{device}, {peak / 1e12:.2g} TFLOP/s in matrix products"
    return f"{_rounded(hours / 2)} to {_rounded(hours * 2)} hours for {said} ({machine})"


def _rounded(hours: float) -> str:
    """Return `hours` to two digits."""
    short = float(f"{hours:.2g}")
    return f"{short:,.0f}" if short >= 10 else f"{short:g}"


def flops_of_step(recipe: Trained) -> float:
    """Return the floating-point operations of an optimiser step of `recipe`: three forward passes of its network.

    A distillation has three more: its teacher's, with and without the prompt, and its target's.

    They are counted for all micro-steps of a process: of a U-Net on tensors without content, of a detector on one
    small image, whose share of the area of what it sees in training follows.
    """
    if isinstance(recipe, DetectorRecipe):
        each = _detector(recipe) * ((recipe.window or FIELD) / SMALL) ** 2 * recipe.batch_size
    else:
        side = recipe.window if isinstance(recipe, WindowRecipe) else patch.SIZE
        each = _unet(recipe.foundation, side, recipe.batch_size)
    return (6.0 if isinstance(recipe, Distillation) else 3.0) * each * recipe.gradient_accumulation


def _unet(foundation: str, side: int, count: int) -> float:
    """Return the operations of the U-Net of `foundation` on `count` images of `side` pixels a side."""
    with torch.device("meta"):
        model = memory.empty(foundation)
        latents = torch.empty(count, model.unet.config.in_channels, side // model.factor, side // model.factor)
        text = torch.empty(count, 77, model.unet.config.cross_attention_dim)
        with FlopCounterMode(display=False) as counter:
            model.unet(latents, torch.zeros(count), text)
    return float(counter.get_total_flops())


def _detector(recipe: DetectorRecipe) -> float:
    """Return the operations of the network of `recipe` on an image of `SMALL` pixels a side."""
    network = _network(recipe)
    target = {"boxes": torch.tensor([[8.0, 8.0, 48.0, 48.0]]), "labels": torch.ones(1, dtype=torch.long)}
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network.train()([torch.rand(3, SMALL, SMALL)] * 2, [target] * 2)
    return float(counter.get_total_flops()) / 2


def _network(recipe: DetectorRecipe) -> torch.nn.Module:
    config = detectors.DetectorConfig(
        architecture=recipe.architecture, backbone=recipe.backbone, categories=tuple(recipe.categories)
    )
    return detectors.build(config)


def disk_of_run(recipe: Trained, trained: int) -> float:
    """Return the GB that a run of `trained` parameters writes at most: checkpoints and exported weights.

    A checkpoint has weights, two moments and an average. Cached latents of the training images come on top, about a MB
    an image and turn.
    """
    exported = 2 * trained
    if isinstance(recipe, CellRecipe):
        with torch.device("meta"):
            unet = memory.empty(recipe.foundation).unet
        exported = 2 * sum(parameter.numel() for parameter in unet.parameters()) + 2 * trained
    return (4 * 4 * trained * (recipe.keep_checkpoints + 1) + 2 * exported) / 1e9


def _recipe(part: str, preset: str, foundation: str | None) -> Trained:
    if part == "detector":
        return detector_of(preset)
    recipes: dict[str, Trained] = {"normal": recipe_of(preset), "cell": CELL[preset]}
    recipes |= {f"distill-{stage}": presets[preset] for stage, presets in DISTILL.items()}
    recipe = recipes[part]
    return recipe.model_copy(update={"foundation": foundation}) if foundation else recipe


def _memory_line(need: float, device: str) -> Line:
    have = torch.cuda.get_device_properties(0).total_memory / GIB if device == "cuda" else memory_of_machine()
    todo = "" if need < have else "see `train normal --dry-run` and docs/gpu.md for settings that reduce it"
    return Line("memory of a step", "ready" if need < have else "note", f"{need:.1f} GB of {have:.0f} GB", todo)
