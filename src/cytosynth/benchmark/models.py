"""The models that are measured: by name, or of Stable Diffusion 1.5's size with random weights."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

from ..annotations import Cell
from ..bethesda import ABNORMAL, NILM, NORMAL_PROMPT, abnormal_prompt
from ..cell import synthesizer
from ..cell.edit import CellEditor
from ..data.image_files import Pixels
from ..detection import model as detectors
from ..detection.model import Detector
from ..devices import available
from ..foundation import sd15, tokens
from ..foundation.model import Foundation
from ..foundation.names import PrecisionSetting
from ..foundation.precision import prepare, resolved
from ..io.bundled import model_folder
from ..normal.generate import NormalImageGenerator
from ..synthesis.models import Models, load
from ..synthesis.pipeline import Pipeline

RANDOM = "random weights of Stable Diffusion 1.5's size"
BOX = 24
"""Side of the boxes of cells, pixels."""


@dataclass
class Given(Detector):
    """A detector that searches normally, and then returns cells on a grid, so that each image costs the same.
    Attributes:

    cells: number of cells, limited by those that do not overlap.
    """

    cells: int = 8

    def find(self, pixels: Pixels, threshold: float = 0.5, overlap: int = 128) -> list[Cell]:
        """Return `cells` normal cells on a grid, having searched (height, width, 3) `pixels`."""
        super().find(pixels, threshold, overlap)
        height, width = pixels.shape[:2]
        columns = int(np.ceil(np.sqrt(self.cells)))
        middles = [((column + 0.5) * width / columns, (row + 0.5) * height / columns)
                   for row in range(columns) for column in range(columns)]  # fmt: skip
        half = BOX / 2
        return [Cell((x - half, y - half, x + half, y + half), NILM, 0.9) for x, y in middles[: self.cells]]


def loaded(given: Models, cells: int, precision: PrecisionSetting, *, random: bool) -> Pipeline:
    """Return the models `given` by name in `precision`; with `random`, the detector alone, and random other ones."""
    if random:
        pipeline = _random(given, precision)
    else:
        settings = given.settings.model_copy(update={"precision": precision})
        pipeline = load(replace(given, settings=settings))
    found = pipeline.detector
    if found is None:
        raise ValueError("a benchmark needs a detector")
    pipeline.detector = Given(found.network, found.config, found.digest, cells)
    return pipeline


def random_foundation(device: torch.device) -> Foundation:
    """Return a foundation of Stable Diffusion 1.5's size, always with the same random weights."""
    torch.manual_seed(0)
    with torch.device(device):
        return Foundation(
            UNet2DConditionModel(**sd15.UNET), AutoencoderKL(**sd15.VAE), CLIPTextModel(CLIPTextConfig(**sd15.TEXT)),
            tokens.build([NORMAL_PROMPT, *ABNORMAL, *map(abnormal_prompt, ABNORMAL)], 77),
            DDPMScheduler.from_config(sd15.SCHEDULER), RANDOM,
        )  # fmt: skip


def _random(given: Models, precision: PrecisionSetting) -> Pipeline:
    """Return models of Stable Diffusion 1.5's size, always with the same random weights."""
    device = available(given.device)
    base = random_foundation(device)
    with torch.device(device):
        editor = CellEditor(replace(base, unet=synthesizer.build(base.unet)))
    editor.model.freeze().to(device)
    generator = NormalImageGenerator(base, None, given.device)
    for model in (editor.model, generator.model):
        prepare(model, resolved(precision, given.device), given.settings.compiled, given.settings.engine)
    detector = detectors.load(model_folder(given.detector or "bundled", "detector"))
    detector.network.to(device)
    return Pipeline(editor, given.names, detector, generator)


def forget_texts(pipeline: Pipeline) -> None:
    """Clear the text embeddings of `pipeline`, so that computing them is measured too."""
    pipeline.editor.prompts.known.clear()
    if pipeline.generator:
        pipeline.generator.prompts.known.clear()
