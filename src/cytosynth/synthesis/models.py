"""The models of a run by name, each loaded and hashed once."""

from dataclasses import dataclass
from pathlib import Path

from ..cell.edit import CellEditor
from ..cell.quality.classifier import load_gate
from ..cell.quality.gate import NUCLEUS
from ..detection import model as detectors
from ..devices import available
from ..foundation import load as foundations
from ..foundation import tiny_decoder
from ..foundation.names import BUNDLED
from ..foundation.precision import prepare, resolved
from ..io.bundled import model_folder
from ..normal.generate import NormalImageGenerator
from ..provenance import short
from .fast import NOT, Fast
from .pipeline import Pipeline
from .settings import PipelineSettings

NONE = "none"
"""The name that means no model: no LoRA, no gate."""


@dataclass(frozen=True)
class Models:
    """The names of the models of a run, and how to load them; can be sent to another process.

    Attributes:
        foundation: Stable Diffusion of both stages.
        cell: the Abnormal Cell Synthesizer.
        gate: 'nucleus', folder of a cell classifier, or 'none'.
        detector: finds NILM cells; None if a plan lists the cells.
        normal: adapter of stage 1, or 'none'.
        generates: whether fields are generated; else the user's images are edited.
        settings: precision, and those of the gate.
        decoder: tiny decoder instead of the foundation's; None: its own.
        data_root: folder that holds the data sets of `gate.reference`.
        device: cpu, cuda ...
        fast: distilled weights of each stage.
    """

    foundation: str
    cell: str
    gate: str
    detector: str | None
    normal: str
    generates: bool
    settings: PipelineSettings
    data_root: Path = Path()
    device: str = "cpu"
    decoder: str | None = None
    fast: Fast = NOT

    @property
    def names(self) -> dict[str, str]:
        """The name of the model of each role in records; of a folder, its last part."""
        given = {"cell": self.cell, "foundation": self.foundation, "normal": self.normal, "gate": self.gate,
                 "detector": self.detector or NONE, "decoder": self.decoder or NONE}  # fmt: skip
        given |= {"low_frequencies": self.normal}
        given |= {f"fast_{stage}": name for stage, name in self.fast.by_stage.items()}
        return {role: name if name in (BUNDLED, NUCLEUS, NONE) else short(name) for role, name in given.items()}


def for_fields(named: dict[str, str], settings: PipelineSettings, device: str = "cpu") -> Pipeline:
    """Load the models `named` (foundation, normal, cell, detector) for a run on generated fields, without a gate."""
    return load(
        Models(
            named["foundation"], named["cell"], NONE, named["detector"], named["normal"], True, settings, device=device
        )
    )


def load(given: Models) -> Pipeline:
    """Return the models in this process; the foundation, which both stages use, is read once."""
    settings, device = given.settings, given.device
    gate = (
        None
        if given.gate == NONE
        else load_gate(given.gate, settings.gate.on(real=not given.generates), given.data_root, device)
    )
    detector = None
    if given.detector:
        detector = detectors.load(model_folder(given.detector, "detector"))
        detector.network.to(available(device))
    foundation = foundations.load(
        given.foundation, denoiser="plain" if given.generates else "unused", prediction_type=settings.prediction_type
    )
    decoder = tiny_decoder.attach(foundation, given.decoder) if given.decoder else None
    editor = CellEditor.load(foundation, given.cell, device, distilled=given.fast.cell)
    generator = None
    if given.generates:
        adapter = None if given.normal == NONE else given.normal
        generator = NormalImageGenerator(foundation, adapter, device, distilled=given.fast.normal)
    precision = resolved(settings.precision, device)
    for part in (editor, generator):
        if part:
            prepare(part.model, precision, settings.compiled, settings.engine)
    return Pipeline(editor, given.names, detector, generator, gate, decoder)
