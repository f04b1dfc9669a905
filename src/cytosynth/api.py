"""The functions of `import cytosynth`: the commands, and edits in memory.

Images are paths, (height, width, 3) uint8 RGB arrays, or PIL images. Boxes are xyxy in pixels. Models are 'bundled', a
folder, a training run, or (foundations) a `.safetensors` file or hub id. Everything synthetic is marked as such in what
is written; returned arrays carry no mark, so keep the `DataSet` with them. Not for diagnosis.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from . import devices
from .adapters.distilled import Stage
from .annotations import Box, Cell, DataSet
from .cell.edit import CellEditor
from .cell.editing import targets
from .config import assignments, override
from .data import check as checking
from .data import convert as converting
from .detection import model as detectors
from .detection.model import Detector
from .devices import available
from .errors import UsageError
from .foundation import load as foundations
from .foundation import tiny_decoder
from .foundation.names import BUNDLED
from .foundation.precision import prepare, resolved
from .io.bundled import cache_folder, model_folder
from .io.report import Report
from .normal.generate import NormalImageGenerator
from .synthesis import plan as plans
from .synthesis import synthesize as runs
from .synthesis.fast import NOT, Fast, asked
from .synthesis.in_memory import Edited as Edited
from .synthesis.in_memory import ImageLike, as_pixels, edited
from .synthesis.in_memory import Pipeline as Pipeline
from .synthesis.settings import COMMAND, PipelineSettings
from .synthesis.settings import check as check_settings

if TYPE_CHECKING:
    from .training.loop import Outcome

Settings = PipelineSettings | Mapping[str, Any] | None
"""Settings of the pipeline: an object, or keys as for `--set` (`{"cell.steps": 50}`); None: the defaults."""
Given = Mapping[str, Any]
Part = Literal["normal", "cell", "detector", "features"]


def load_pipeline(
    *,
    foundation: str | Path = BUNDLED,
    normal: str | Path | None = BUNDLED,
    cell: str | Path = BUNDLED,
    detector: str | Path = BUNDLED,
    decoder: str | Path | None = None,
    settings: Settings = None,
    device: str = "auto",
    fast: bool = False,
    fast_normal: str | Path | None = None,
    fast_cell: str | Path | None = None,
) -> Pipeline:
    """Load the models once, for many fields and edits in memory; with `normal` None the foundation has no adapter.

    `fast` takes few steps with the bundled distilled weights, `fast_normal` and `fast_cell` with those of `distill`.
    """
    tuned = None if normal is None else str(normal)
    few = _few(fast, foundation, cell, fast_cell, tuned or runs.NONE, fast_normal)
    chosen = as_settings(settings, cell=cell, fast=few)
    base = foundations.load(str(foundation), denoiser="plain", prediction_type=chosen.prediction_type)
    if decoder is not None:
        tiny_decoder.attach(base, str(decoder))
    editor = CellEditor.load(base, str(cell), device, distilled=few.cell)
    generator = NormalImageGenerator(base, tuned, device, distilled=few.normal)
    for model in (editor.model, generator.model):
        prepare(model, resolved(chosen.precision, device), chosen.compiled, chosen.engine)
    return Pipeline(generator, editor, _detector(detector, device), chosen)


def synthesize(
    out: str | Path,
    count: int | None = None,
    *,
    start: int = 0,
    plan: str | Path | None = None,
    settings: Settings = None,
    foundation: str | Path = BUNDLED,
    normal: str | Path = BUNDLED,
    cell: str | Path = BUNDLED,
    detector: str | Path = BUNDLED,
    gate: str | Path = runs.NONE,
    data_root: str | Path = ".",
    decoder: str | Path | None = None,
    device: str = "auto",
    fast: bool = False,
    fast_normal: str | Path | None = None,
    fast_cell: str | Path | None = None,
) -> DataSet:
    """Write `count` annotated images (default: 10) to the folder `out`, or continue there; return the data set.

    With a `plan`, its images are made with its settings, changed by `settings`. Same as the command `synthesize`.
    """
    _counted(count, plan)
    few = _few(fast, foundation, cell, fast_cell, str(normal), fast_normal)
    return runs.synthesize(
        Path(out), count=0 if plan else count or 10, start=start, plan=Path(plan) if plan else None,
        settings=as_settings(settings, plan, cell, few), foundation=str(foundation), normal=str(normal), cell=str(cell),
        detector=str(detector), gate=str(gate), data_root=Path(data_root),
        decoder=None if decoder is None else str(decoder), device=device, fast=few,
    )  # fmt: skip


def edit(
    image: ImageLike,
    boxes: Sequence[Box],
    category: str | Sequence[str],
    *,
    seed: int | Sequence[int] = 0,
    foundation: str | Path = BUNDLED,
    cell: str | Path = BUNDLED,
    settings: Settings = None,
    device: str = "auto",
    fast: bool = False,
    fast_cell: str | Path | None = None,
) -> Edited:
    """Return `image` with the cell in each of `boxes` (xyxy, pixels) turned into `category`, in memory.

    For many images, `load_pipeline` loads the models once; for folders, the command `edit` writes a data set.
    """
    few = _few(fast, foundation, cell, fast_cell)
    chosen = as_settings(settings, cell=cell, fast=few)
    pixels = as_pixels(image)
    editor = CellEditor.load(str(foundation), str(cell), device, distilled=few.cell)
    prepare(editor.model, resolved(chosen.precision, device), chosen.compiled, chosen.engine)
    return edited(editor, pixels, boxes, category, seed, chosen)


def detect(
    image: ImageLike, *, detector: str | Path = BUNDLED, threshold: float = 0.5, device: str = "auto"
) -> list[Cell]:
    """Return the cells found in `image` (at x20), best first, each with its box, category and score."""
    pixels = as_pixels(image)
    return _detector(detector, device).find(pixels, threshold)


def train(
    part: Part,
    run: str | Path,
    *,
    data: str | Path | None = None,
    preset: Literal["paper", "paper-24gb", "bundled"] = "bundled",
    settings: Mapping[str, Any] | None = None,
    data_root: str | Path = ".",
    device: str = "auto",
    max_minutes: float | None = None,
) -> "Outcome":
    """Train `part` in the folder `run`, or continue there: the command `train`.

    Args:
        part: 'normal' (stage 1), 'cell' (stage 2), 'detector' or 'features' (the cell classifier).
        run: run folder.
        data: data set to train on (its part 'train'); None: the data sets of the preset, below `data_root`.
        preset: recipe to start from; for another kind of 'normal' or 'detector' set `adapter` or `architecture`.
        settings: keys as for `--set`.
        data_root: folder that contains the data sets of the recipe.
        device: auto, cpu, cuda, cuda:1, mps ...
        max_minutes: save a checkpoint and stop after N minutes; the same call continues.
    """
    given = dict(settings or {})
    if data is not None:
        given = {"data": [{"root": str(Path(data).resolve())}]} | given
    devices.use(device)
    return _TRAINERS[part](preset, given, Path(run), Path(data_root), max_minutes)


def evaluate_fidelity(
    generated: str | Path, real: str | Path, *, features: str = "efficientnet-lite0", scale: float = 1.0,
    count: int | None = None, window: int | None = None, split: str | None = None, seed: int = 0, device: str = "auto",
) -> Report:  # fmt: skip
    """Return FID, KID, precision, recall, density and coverage of `generated` against `real` images, with floors.

    Args:
        generated: folder of images, or COCO data set.
        real: the same.
        features: a feature network of `registry.EXTRACTORS`.
        scale: factor by which real images are resized, to bring them to x20.
        count: maximum number of images on each side.
        window: side of windows that all images are cut into, pixels; None: whole images.
        split: part of the real data set.
        seed: of splits, subsets and bootstrap resamples.
        device: where the network runs.
    """
    from .evaluate import fidelity, image_set
    from .evaluate.networks import features as networks

    network = networks.load(features, None, device)
    made = image_set.gather(Path(generated), None, 1.0, window)
    reference = image_set.gather(Path(real), split, scale, window)
    return fidelity.compare(made, reference, [network], cache_folder(), count=count, seed=seed)


def evaluate_detection(
    detector: str | Path, data: str | Path, *, split: str = "test", scale: float = 1.0, device: str = "auto"
) -> dict[str, float]:
    """Return mAP, mAP.5, mAP.75, recall and the AP of each category (0..1) of `detector` on a COCO data set."""
    from .data import sources
    from .evaluate.detection.scoring import validation

    root = Path(data).resolve()
    samples = sources.load([sources.Source(root=root.name, scale=scale, split=split)], root.parent)
    return validation(_detector(detector, device), samples)


def check(data: str | Path, kind: str | None = None) -> list[str]:
    """Return all problems of the data set, one line each; empty if there are none."""
    return list(checking.check(Path(data), kind, lambda _line: None))


def read_dataset(data: str | Path, kind: str | None = None) -> DataSet:
    """Return the data set, of any format that is read: images, cells, categories; no pixels are read."""
    return converting.read(Path(data), kind)


def convert(
    data: str | Path, out: str | Path, to: str, kind: str | None = None, names: Mapping[str, str] | None = None
) -> DataSet:
    """Write the data set in another format to the new folder `out`; `names` renames categories."""
    return converting.convert(Path(data), Path(out), kind, to, names)


def as_settings(
    settings: Settings, plan: str | Path | None = None, cell: str | Path = BUNDLED, fast: Fast = NOT
) -> PipelineSettings:
    """Return `settings` on the defaults, or on those of `plan`, for the synthesizer `cell`; raise UsageError.

    The values of `fast` weights are overridden by single `settings` and by a plan that was made with such weights, and
    override a complete settings object, but for a fall of the strength that it sets.
    """
    known = targets(str(cell))
    if isinstance(settings, PipelineSettings):
        return fast.over(settings)
    followed = plans.read(Path(plan), known) if plan else None
    few = fast.settings(followed.models if followed else ())
    chosen = override(followed.base() if followed else COMMAND, assignments({**few, **(settings or {})}))
    check_settings(chosen, categories=known)
    return chosen


def _few(
    fast: bool, foundation: str | Path, cell: str | Path, fast_cell: str | Path | None,
    normal: str | None = None, fast_normal: str | Path | None = None,
) -> Fast:  # fmt: skip
    """Return the distilled weights of a run; of one without `normal`, those of stage 2."""
    given: dict[Stage, str | None] = {"cell": None if fast_cell is None else str(fast_cell)}
    if normal is not None:
        given["normal"] = None if fast_normal is None else str(fast_normal)
    models = {"foundation": str(foundation), "cell": str(cell), "normal": normal or BUNDLED}
    return asked(fast, given, models, option="")


def _counted(count: int | None, plan: str | Path | None) -> None:
    if plan and count is not None:
        raise UsageError(f"count {count}: the plan sets the images; give count or plan, not both")
    if count is not None and count < 1:
        raise UsageError(f"count {count}: must be at least 1")


def _detector(detector: str | Path, device: str) -> Detector:
    found = detectors.load(model_folder(str(detector), "detector"))
    found.network.to(available(device))
    return found


def _train_normal(preset: str, given: Given, run: Path, data_root: Path, minutes: float | None) -> "Outcome":
    from .evaluate.held_out import HeldOut
    from .normal import recipe
    from .normal.train import train_normal

    base = recipe.preset(preset, str(given.get("adapter", "lora")))
    return train_normal(override(base, assignments(given)), run, data_root, minutes, held_out=HeldOut)


def _train_cell(preset: str, given: Given, run: Path, data_root: Path, minutes: float | None) -> "Outcome":
    from .cell.recipe import PRESETS
    from .cell.train import train_cell

    return train_cell(override(PRESETS[preset], assignments(given)), run, data_root, minutes)


def _train_detector(preset: str, given: Given, run: Path, data_root: Path, minutes: float | None) -> "Outcome":
    from .detection.recipe import preset as recipe_of
    from .detection.train import train_detector
    from .evaluate.detection.scoring import validation

    base = recipe_of(preset, str(given.get("architecture", "faster-rcnn")))
    return train_detector(override(base, assignments(given)), run, data_root, minutes, validation)


def _train_features(preset: str, given: Given, run: Path, data_root: Path, minutes: float | None) -> "Outcome":
    from .classifier import recipe
    from .classifier.train import train_classifier

    base = recipe.preset(preset, str(given.get("architecture", "resnet50")))
    return train_classifier(override(base, assignments(given)), run, data_root, minutes)


_TRAINERS = {
    "normal": _train_normal, "cell": _train_cell, "detector": _train_detector, "features": _train_features,
}  # fmt: skip
