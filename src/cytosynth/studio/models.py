"""The models of a studio: loaded once, by the queue's thread, when they are first needed."""

from collections import OrderedDict
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import torch

from .. import boxes
from ..annotations import Cell
from ..cell import editing, patch
from ..cell.edit import PlannedEdit
from ..cell.editing import Editing as Trained
from ..cell.quality.classifier import load_gate
from ..cell.quality.gate import NUCLEUS, Gate, Verdict
from ..cell.settings import EditSettings
from ..data import image_files
from ..data.image_files import Pixels
from ..detection import model as detectors
from ..detection.model import Detector
from ..detection.tiles import most_certain
from ..devices import available
from ..foundation.names import BUNDLED
from ..io.bundled import model_folder
from ..normal.generate import NormalImageGenerator
from ..provenance import short
from ..synthesis.pipeline import Pipeline
from ..synthesis.settings import PipelineSettings
from ..synthesis.synthesize import NONE
from .painter import Painter
from .queue import Task

OPEN = 6
"""Images kept in memory."""


@dataclass
class Models:
    """The options of `cytosynth studio`: models by role, device, settings.

    Attributes:
        names: of the models of the roles foundation, normal, cell, detector and gate, as the command line has them.
        device: cpu, cuda ...
        settings: of the pipeline; `cell.batch` is 1 unless set, so that a click edits no more than its cell.
        data_root: folder of the gate's reference.
    """

    names: dict[str, str]
    device: str = "cpu"
    settings: PipelineSettings = field(default_factory=PipelineSettings)
    data_root: Path = Path()

    def __post_init__(self) -> None:
        """Keep no image yet."""
        self._images: OrderedDict[tuple[str, int, int], Pixels] = OrderedDict()

    @cached_property
    def trained(self) -> Trained:
        """The synthesizer's `editing.json`: its categories and regions. No network is loaded for it."""
        return editing.read(model_folder(self.names["cell"], "cell"))

    @property
    def box_scale(self) -> float:
        """How much larger than boxes the edited regions are."""
        return self.settings.cell.box_scale or self.trained.box_scale

    @cached_property
    def painter(self) -> Painter:
        """The Abnormal Cell Synthesizer."""
        given = self.settings
        return Painter.load(  # type: ignore[return-value]
            self.names["foundation"], self.names["cell"], self.device, given.precision, given.prediction_type
        )

    @cached_property
    def detector(self) -> Detector:
        """What finds NILM cells."""
        found = detectors.load(model_folder(self.names["detector"], "detector"))
        found.network.to(available(self.device))
        return found

    @cached_property
    def generator(self) -> NormalImageGenerator:
        """What generates normal fields."""
        normal = None if self.names["normal"] == NONE else self.names["normal"]
        given = self.settings
        return NormalImageGenerator(
            self.names["foundation"], normal, self.device, given.precision, given.prediction_type
        )

    @cached_property
    def gate(self) -> Gate | None:
        """The gate that comments on cells; None if it was switched off."""
        name = self.names["gate"]
        return None if name == NONE else load_gate(name, self.settings.gate, self.data_root, self.device)

    def edit_settings(self, generated: bool) -> EditSettings:
        """Return the settings of stage 2, with those that depend on models and kind of image filled in."""
        return self.painter.settled(self.settings.cell, real=not generated)

    def pipeline(self, generated: bool) -> Pipeline:
        """Return the pipeline that follows a plan, as `cytosynth edit --plan` or `synthesize --plan` would load it."""
        names = {role: name if name in (BUNDLED, NUCLEUS) else short(name) for role, name in self.names.items()}
        return Pipeline(self.painter, names, None, self.generator if generated else None, None)

    def pixels(self, path: Path, scale: float) -> Pixels:
        """Return the image at `path`, resized by `scale`; the last few are kept."""
        state = path.stat()
        key = (f"{path}|{scale}", state.st_mtime_ns, state.st_size)
        if key not in self._images:
            self._images[key] = image_files.read(path, scale)
        self._images.move_to_end(key)
        while len(self._images) > OPEN:
            self._images.popitem(last=False)
        return self._images[key]

    def find(self, pixels: Pixels, task: Task) -> list[Cell]:
        """Return the cells that the detector finds, best first."""
        task.check()
        height, width = pixels.shape[:2]
        found = most_certain(self.detector.find(pixels, self.settings.threshold))
        return [replace(cell, box=boxes.clip(cell.box, width, height)) for cell in found]

    def edit(
        self, pixels: Pixels, cell: Cell, edit: PlannedEdit, settings: EditSettings, task: Task
    ) -> tuple[Pixels, Verdict | None]:
        """Return `pixels` with one edit alone, and what the gate says of it."""
        self.painter.check = task.check
        decoded = self.painter.paint([(pixels, edit)], settings)[0]
        alone = patch.compose(pixels, [(edit.box, decoded)], settings)
        if self.gate is None:
            return alone, None
        height, width = pixels.shape[:2]
        changed = patch.covered(edit.box, width, height, settings)
        return alone, self.gate.verdict(pixels, alone, cell.box, changed, edit.category)

    def draw(self, seed: int, index: int, task: Task) -> Pixels:
        """Return generated field number `index` of `seed`."""
        unet: torch.nn.Module = self.generator.model.unet
        hook = unet.register_forward_pre_hook(lambda *_: task.check())
        try:
            return self.generator.field(seed, index, self.settings.normal)
        finally:
            hook.remove()
