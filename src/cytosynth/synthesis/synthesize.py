"""What `synthesize` and `edit` do: load the models by name and run the pipeline on their jobs."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..annotations import DataSet
from ..cell.edit import CellEditor
from ..cell.editing import categories
from ..cell.quality.classifier import load_gate
from ..cell.quality.gate import NUCLEUS
from ..data.pseudonyms import Pseudonyms
from ..data.read import FOUND_OUT, Place
from ..detection import model as detectors
from ..devices import available
from ..errors import UsageError
from ..foundation.names import BUNDLED
from ..io.bundled import model_folder
from ..io.progress import console
from ..normal.generate import NormalImageGenerator
from ..provenance import short
from . import own_images
from . import plan as plans
from .jobs import Job, fields, planned_fields, planned_own
from .jobs import own_images as jobs_of
from .pipeline import Pipeline, run
from .settings import PipelineSettings, check

DEFAULT = PipelineSettings()
NONE = "none"
"""Stands for no model: no LoRA, no gate."""


def synthesize(
    out: Path,
    *,
    count: int = 0,
    start: int = 0,
    plan: Path | None = None,
    settings: PipelineSettings = DEFAULT,
    foundation: str = BUNDLED,
    normal: str = BUNDLED,
    cell: str = BUNDLED,
    detector: str = BUNDLED,
    gate: str = NONE,
    data_root: Path = Path(),
    device: str = "cpu",
) -> DataSet:
    """Make the images `start` to `start + count - 1`, or those of `plan`, into `out`; see the verb `synthesize`."""
    known = categories(cell)
    _check(settings, plan, count or None, known)
    given = plans.read(plan, known) if plan else None
    generator = NormalImageGenerator(foundation, None if normal == NONE else normal, device, settings.precision)
    names = {"cell": cell, "foundation": foundation, "normal": normal, "gate": gate, "detector": detector}
    pipeline = load_pipeline(names, settings, data_root, device, generator, finds=plan is None)
    if given and plan:
        jobs, sizes = planned_fields(given, plan, generator, settings)
        return _follow(pipeline, given, plan, jobs, sizes, settings, out)
    return run(pipeline, list(fields(generator, range(start, start + count), settings)), settings, out)


def edit(
    source: Path,
    out: Path,
    *,
    plan: Path | None = None,
    settings: PipelineSettings = DEFAULT,
    foundation: str = BUNDLED,
    cell: str = BUNDLED,
    detector: str = BUNDLED,
    gate: str = NONE,
    data_root: Path = Path(),
    device: str = "cpu",
    label: str | None = None,
    part: str = "all",
    limit: int | None = None,
    strict: bool = False,
    place: Place = FOUND_OUT,
    pseudonyms: Pseudonyms | None = None,
) -> DataSet:
    """Edit cells of the images of `source` into abnormal ones, into `out`; see the verb `edit`."""
    own = own_images.gather(source, label, part, place).under(pseudonyms)
    images = own.images[:limit]
    known = categories(cell)
    _check(settings, plan, len(images), known)
    given = plans.read(plan, known) if plan else None
    names = {"cell": cell, "foundation": foundation, "gate": gate, "detector": detector}
    pipeline = load_pipeline(names, settings, data_root, device, None, finds=plan is None)
    about: dict[str, Any] = {"licences": own.licences, "derived_from": own.info, "strict": strict,
                             "refused": own.refused}  # fmt: skip
    if given and plan:
        jobs, sizes = planned_own(given, plan, images, settings)
        return _follow(pipeline, given, plan, jobs, sizes, settings, out, **about)
    return run(pipeline, list(jobs_of(images, settings)), settings, out, **about)


def load(models: dict[str, str], settings: PipelineSettings, device: str = "cpu") -> Pipeline:
    """Load `models` (foundation, normal, cell, detector) for a run on generated fields, without a gate."""
    normal = None if models["normal"] == NONE else models["normal"]
    generator = NormalImageGenerator(models["foundation"], normal, device, settings.precision)
    return load_pipeline({**models, "gate": NONE}, settings, Path(), device, generator, finds=True)


def _check(settings: PipelineSettings, plan: Path | None, images: int | None, known: Sequence[str]) -> None:
    """Raise UsageError for settings that cannot be, or that a plan leaves no room for."""
    check(settings, None if plan else images, known)
    if plan and settings.counts:
        raise UsageError("counts: the plan says what each cell becomes; give one or the other")


def _follow(
    pipeline: Pipeline,
    plan: plans.Plan,
    path: Path,
    jobs: list[Job],
    sizes: dict[str, tuple[int, int]],
    settings: PipelineSettings,
    out: Path,
    **about: Any,
) -> DataSet:
    """Run the `jobs` of the `plan` that was read from `path`."""
    settings = pipeline.settle(settings)
    plans.fit(plan, path, sizes, settings.cell.box_scale or 1.0)
    now = pipeline.models()
    other = [role for role, model in plan.models.items() if role in now and now[role] != model]
    if other:
        console.print(
            f"{path}: was made with another model ({', '.join(other)}): the cells will look different", soft_wrap=True
        )
    return run(pipeline, jobs, settings, out, plan=plan.digest, **about)


def load_pipeline(
    given: dict[str, str],
    settings: PipelineSettings,
    data_root: Path,
    device: str,
    generator: NormalImageGenerator | None,
    finds: bool,
) -> Pipeline:
    """Load the models `given` by role; a detector only where it `finds` the cells."""
    gate = None if given["gate"] == NONE else load_gate(given["gate"], settings.gate, data_root, device)
    detector = None
    if finds:
        detector = detectors.load(model_folder(given["detector"], "detector"))
        detector.network.to(available(device))
    editor = CellEditor.load(given["foundation"], given["cell"], device, settings.precision)
    names = {role: name if name in (BUNDLED, NUCLEUS) else short(name) for role, name in given.items()}
    return Pipeline(editor, names, detector, generator, gate)
