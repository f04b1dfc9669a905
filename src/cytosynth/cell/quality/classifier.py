"""The gate by name: built in, bundled, or with the cell classifier in a folder."""

from pathlib import Path

from ...classifier.model import CellClassifier
from ...data import sources
from ...errors import UsageError, UserError
from ...io.bundled import model_folder
from .. import patch
from ..settings import GateSettings
from .gate import NUCLEUS, Gate, Reference


def load_gate(name: str, settings: GateSettings, data_root: Path, device: str = "cpu") -> Gate:
    """Return the gate 'nucleus', or that whose classifier is 'bundled' or in the folder `name`.

    The reference is below `data_root`.
    """
    if name == NUCLEUS:
        if settings.reference:
            raise UsageError("gate.reference: needs a classifier, whose features detect copies; 'nucleus' has none")
        return Gate(None, settings, digest="built-in")
    classifier = CellClassifier.load(model_folder(name, "classifier"), device)
    reference = None
    if settings.reference:
        windows, boxes = [], []
        for sample in sources.load(settings.reference, data_root, "reading the reference"):
            width, height = sample.size
            if min(height, width) >= patch.SIZE:
                for cell in sample.cells:
                    at = patch.corner(cell.box, width, height)
                    windows.append(patch.window(sample.pixels, at))
                    boxes.append(patch.inner(cell.box, at))
        if len(windows) < 2:
            raise UserError(f"{data_root}: gate.reference has only {len(windows)} cells; at least 2 are needed")
        reference = Reference.of(classifier, windows, boxes, settings.copy_percentile)
    return Gate(classifier, settings, reference, classifier.digest)
