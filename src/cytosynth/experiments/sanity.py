"""The sanity set: detectors with the small backbone trained on images of ellipses, and measured on unseen ones.

It shows whether a detector works at all, in minutes on a CPU; it does not measure cells.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from ..annotations import Cell
from ..config import pin
from ..data import sources
from ..data.image_files import Pixels
from ..data.preview import grid, save_png, with_boxes
from ..data.sources import Sample, Source
from ..detection import model
from ..detection.recipe import NO_WEIGHTS, DetectorRecipe, preset
from ..detection.train import train_detector
from ..errors import UserError
from ..evaluate.detection.scoring import measure, validation
from ..evaluate.statistics import mean
from ..io import atomic, lock, plain, records
from ..io.progress import console
from ..io.report import Report, Value
from . import ellipses
from .recipe import SanityRecipe

PICTURES = "pictures"
SHOWN = 4
"""Unseen images that are shown with what each detector finds."""
ENLARGED = 3
"""How many times as large they are shown."""


@dataclass(frozen=True)
class SeedResult:
    """The result of one detector with one seed: its size, seconds per training step, and COCO scores."""

    detector: str
    seed: int
    parameters: int
    seconds: float
    map: float
    map_50: float
    map_75: float
    recall: float


def sanity(recipe: SanityRecipe, run: Path) -> Report:
    """Train and measure every detector with every seed in the folder `run`, or continue there.

    Writes `images/` (COCO), `sanity.json`, `.md`, `.csv` and `found.png`: unseen images, the truth first, then what
    each detector finds. Raises UsageError when `run` was started with another recipe.
    """
    with lock.run(run, "recipe.yaml"):
        pin(recipe, run / "recipe.yaml")
        ellipses.write(run / PICTURES, recipe)
        unseen = sources.load([Source(root=PICTURES, split="test")], run)
        for seed in recipe.seeds:
            for detector in recipe.detectors:
                if not _result(run, detector, seed).exists():
                    console.print(f"sanity set: {detector}, seed {seed}")
                    atomic.write_json(_result(run, detector, seed), asdict(_one(detector, seed, recipe, run, unseen)))
        entries = [
            plain.typed(SeedResult, _result(run, name, seed)) for name in recipe.detectors for seed in recipe.seeds
        ]
        report = tabulate(recipe, entries, sum(len(sample.cells) for sample in unseen))
        report.write(run, "sanity")
        save_png(_shown(recipe, run, unseen[:SHOWN]), run / "found.png")
    return report


def tabulate(recipe: SanityRecipe, entries: Sequence[SeedResult], objects: int) -> Report:
    """Return the table: a row for each detector, mean and interval over seeds."""
    rows: list[tuple[Value, ...]] = []
    for name in recipe.detectors:
        own = [entry for entry in entries if entry.detector == name]
        scores = [str(mean([getattr(entry, key) for entry in own])) for key in ("map", "map_50", "map_75", "recall")]
        rows.append((name, own[0].parameters, round(mean([entry.seconds for entry in own]).value, 2), *scores))
    facts = {
        "steps": recipe.steps, "seeds": recipe.seeds, "training": recipe.training,
        "training_images": recipe.train,
        "unseen_images": f"{recipe.test} of {recipe.side} pixels, {objects} objects of {len(ellipses.CLASSES)} kinds",
    }  # fmt: skip
    return Report(
        "Sanity set: ellipses, small backbones",
        facts,
        ("detector", "parameters", "seconds a step", "mAP", "mAP.5", "mAP.75", "recall"),
        tuple(rows),
        (
            "mean over seeds, with the 95 % interval of Student's t if there are several; one seed is weak evidence",
            "all are trained from scratch for as many steps, each at the learning rate of its bundled recipe",
            "seconds are medians on this machine and depend on its load",
        ),
    )


def _one(detector: str, seed: int, recipe: SanityRecipe, run: Path, unseen: Sequence[Sample]) -> SeedResult:
    """Train `detector` and measure it on the `unseen` images."""
    chosen = preset("bundled", detector).model_dump() | {
        "backbone": "small", "weights": NO_WEIGHTS, "ema_decay": None,
        "data": [Source(root=PICTURES)], "categories": list(ellipses.CLASSES), "window": None, "jitter": 0.0,
        "blur": 0.0, "checkpoint_every": 100, "log_every": min(10, recipe.steps), "preview_every": recipe.steps,
        "max_steps": recipe.steps, "validate_every": 0, "seed": seed,
    } | recipe.training  # fmt: skip
    folder = _result(run, detector, seed).parent / "training"
    outcome = train_detector(DetectorRecipe.model_validate(chosen), folder, run, measure=validation)
    if outcome.stopped or not outcome.finished:
        raise KeyboardInterrupt
    scores = measure(model.load(outcome.weights), unseen)
    seconds = records.seconds(folder)
    if not seconds:
        raise UserError(
            f"{folder / records.TIMING}: the time of a step is missing; delete {folder}, and it is trained again"
        )
    middle = seconds[len(seconds) // 2]
    return SeedResult(
        detector, seed, outcome.parameters, middle, scores.map, scores.map_50, scores.map_75, scores.recall
    )


def _shown(recipe: SanityRecipe, run: Path, samples: Sequence[Sample]) -> Pixels:
    """Return a row of `samples` with their truth and, below, one for each detector of the first seed.

    The best detections are drawn, as many as there are objects: after few steps scores are low, but not wrong.
    """
    tiles = [_enlarged(sample, sample.cells) for sample in samples]
    for name in recipe.detectors:
        detector = model.load(_result(run, name, recipe.seeds[0]).parent / "training" / "weights")
        tiles += [_enlarged(s, detector.find(s.pixels, 0.0)[: len(s.cells)]) for s in samples]
    return grid(tiles, columns=len(samples))


def _enlarged(sample: Sample, cells: Sequence[Cell]) -> Pixels:
    pixels = sample.pixels.repeat(ENLARGED, axis=0).repeat(ENLARGED, axis=1)
    return with_boxes(pixels, [cell.scaled(ENLARGED) for cell in cells], width=2)


def _result(run: Path, detector: str, seed: int) -> Path:
    return run / detector / f"seed-{seed}" / "result.json"
