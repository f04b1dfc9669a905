"""The models of `evaluate cells` by name."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from ...adapters.distilled import Stage
from ...cell.edit import CellEditor
from ...classifier.model import CellClassifier
from ...detection import model as detectors
from ...devices import available
from ...errors import UsageError
from ...foundation import load as foundations
from ...foundation.names import Precision
from ...io.bundled import model_folder
from ...normal.generate import NormalImageGenerator
from ..networks import features
from .evaluate import Models


def load(
    names: Mapping[str, str],
    classifier: Path | None,
    extractors: Sequence[str],
    weights: Sequence[str],
    *,
    drawn: bool,
    device: str = "cpu",
    precision: Precision = "fp32",
    fast: Mapping[Stage, str] | None = None,
) -> Models:
    """Return the models.

    Args:
        names: the user's names of `foundation`, `cell`, `normal` and `detector`: a folder, 'bundled' or 'none'.
        classifier: folder of a cell classifier, or of its training run; None: none.
        extractors: feature networks by name.
        weights: NAME=PATH of feature networks without weights of their own. drawn: whether fields are generated; else
        neither generator nor detector is loaded.
        device: cpu, cuda ...
        precision: of the diffusion networks.
        fast: distilled weights by stage; None: none.

    Raises UsageError for weights of a network that is not among `extractors`.
    """
    places = {}
    for given in weights:
        name, separator, path = given.partition("=")
        if not separator or name not in extractors:
            raise UsageError(
                f"--weights {given}: expected NAME=PATH with a NAME of --features ({', '.join(extractors)})"
            )
        places[name] = Path(path)
    networks = [features.load(name, places.get(name), device) for name in extractors]
    generator = detector = None
    foundation = foundations.load(names["foundation"], denoiser="plain" if drawn else "unused")
    few = fast or {}
    editor = CellEditor.load(foundation, names["cell"], device, precision, distilled=few.get("cell"))
    if drawn:
        name, normal = names["detector"], names["normal"]
        adapter = None if normal == "none" else normal
        generator = NormalImageGenerator(foundation, adapter, device, precision, distilled=few.get("normal"))
        detector = detectors.load(model_folder(name, "detector"))
        detector.network.to(available(device))
    place = model_folder(str(classifier), "classifier") if classifier else None
    return Models(editor, networks, CellClassifier.load(place, device) if place else None, generator, detector)
