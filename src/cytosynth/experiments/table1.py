"""Table I: the four ways of tuning the foundation, by the distance of their fields to held-out real ones.

Every adapter has the same number of iterations and the same data, each is trained once for every seed, and beside
every distance stands the floor: one half of the real windows against the other half, at the same number.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ..bethesda import NILM
from ..data import atomic, coco, lock
from ..errors import UserError
from ..foundation import load as foundations
from ..measure import distance, features, pictures
from ..measure.extractor import Extractor, Features
from ..measure.pictures import Pictures
from ..measure.recipe import PRESETS as FEATURES
from ..measure.report import Report, write_csv
from ..measure.resampling import Estimate
from ..measure.train import discrimination, train_features
from ..normal.generate import NormalImageGenerator
from ..normal.recipe import PRESETS as NORMAL
from ..normal.recipe import NormalRecipe
from ..normal.train import train_normal
from ..provenance import png, short
from ..settings import GenerateSettings
from ..training.progress import clock, console, meter
from ..training.recipe import pin
from ..training.whole import whole
from .recipe import UNTUNED, Table1Recipe
from .statistics import mean

PUBLISHED = {
    "textual-inversion": (132.2895, 114.3035),
    "svdiff": (73.2216, 8.1146),
    "custom-diffusion": (46.6576, 4.6000),
    "lora": (43.7446, 1.7587),
}
"""The paper's FID@ImageNet and FID@Cytopathology, of 1024x1024 fields drawn by tuned Stable Diffusion 1.5."""
CYTOLOGY = "cytology-resnet50"
Reading = Callable[[dict[str, dict[str, float]]], float]
MEASURES = ("frechet", "kernel", "precision", "recall", "density", "coverage")


@dataclass(frozen=True)
class Entry:
    """What one adapter with one seed came to.

    Attributes:
        adapter: its name.
        seed: of its training, its fields and the halves.
        parameters: how many were trained.
        step: at which the weights that drew the fields were reached.
        pictures: how many windows a side were compared.
        values: `MEASURES` of the drawn windows, by extractor.
        floor: the same of one half of the real windows against the other.
    """

    adapter: str
    seed: int
    parameters: int
    step: int
    pictures: int
    values: dict[str, dict[str, float]]
    floor: dict[str, dict[str, float]]


def table1(recipe: Table1Recipe, run: Path, data_root: Path, device: str = "cpu") -> Report:
    """Train, draw and measure every adapter with every seed in the folder `run`, or go on with what is missing there.

    Writes `table1.json`, `.md`, `.csv` (the table) and `all.csv` (every measure of every seed); returns the table.
    Raises UsageError when `run` was begun with another recipe.
    """
    with lock.only(run):
        pin(recipe, run / "recipe.yaml")
        real = real_windows(recipe, data_root)
        extractors = [_extractor(name, recipe, run, data_root, device) for name in recipe.extractors]
        grid = [(adapter, seed) for seed in recipe.seeds for adapter in recipe.adapters]
        todo = [cell for cell in grid if not _result(run, *cell).exists()]
        started = time.monotonic()
        for number, (adapter, seed) in enumerate(todo):
            left = clock((time.monotonic() - started) / number * (len(todo) - number)) if number else "unknown"
            console.print(f"table 1: {adapter}, seed {seed} ({len(grid) - len(todo) + number + 1}/{len(grid)}), "
                          f"time left {left}")  # fmt: skip
            folder = _result(run, adapter, seed).parent
            weights, parameters, step = _train(adapter, seed, recipe, folder, data_root, run / "cache")
            drawn = draw(adapter, weights, seed, recipe, folder / "fields", device)
            atomic.write_json(
                folder / "result.json",
                {"adapter": adapter, "seed": seed, "parameters": parameters, "step": step}
                | judge(drawn, real, extractors, seed, run / "cache" / "features"),
            )
        entries = [Entry(**coco.load(_result(run, *cell))) for cell in grid]
        report = tabulate(recipe, entries, extractors, real, foundations.load(recipe.foundation).digest)
        report = replace(report, notes=(*report.notes, *_cytology(recipe, run)))
        report.write(run, "table1")
        write_csv(run / "all.csv", *everything(entries))
    return report


def real_windows(recipe: Table1Recipe, data_root: Path) -> Pictures:
    """Return the windows of the recipe's real images that hold no abnormal cell's centre."""
    source = recipe.real
    root = data_root / source.root
    found = pictures.gather(root, source.split, source.scale, recipe.window)
    centres = {
        picture.file_name: [cell.scaled(source.scale).centre for cell in picture.cells if cell.category != NILM]
        for picture in coco.read(root).pictures
    }
    chosen = [index for index, window in enumerate(found.windows) if not any(map(window.holds, centres[window.name]))]
    if not chosen:
        raise UserError(
            f"{root}: no window of {recipe.window} pixels without an abnormal cell in part '{source.split}'"
        )
    return found.chosen(chosen)


def draw(
    adapter: str, weights: Path | None, seed: int, recipe: Table1Recipe, folder: Path, device: str = "cpu"
) -> Pictures:
    """Draw the recipe's number of fields into `folder`, those that are missing; return them as windows."""
    names = [f"{index:04d}.png" for index in range(recipe.count)]
    missing = [index for index, name in enumerate(names) if not (folder / name).exists()]
    settings = GenerateSettings(size=recipe.size)
    if missing:
        generator = NormalImageGenerator(recipe.foundation, str(weights) if weights else None, device)
        with meter("drawing fields", recipe.count, recipe.count - len(missing)) as bar:
            for index in missing:
                field = generator.field(seed, index, settings)
                record = {"origin": "synthetic", "adapter": adapter, "seed": seed, "key": index}
                atomic.write_bytes(folder / names[index], png(field, record))
                bar.advance()
    return pictures.gather(folder, window=recipe.window)


def judge(drawn: Pictures, real: Pictures, extractors: Sequence[Extractor], seed: int, cache: Path) -> dict[str, Any]:
    """Return `pictures`, `values` and `floor` of an Entry: `drawn` and one half of `real` against the other half."""
    rng = np.random.default_rng(seed)
    first, second = real.halves(rng)
    number = min(len(drawn), len(first), len(second))
    sides = [side.sample(number, rng) for side in (drawn, first, second)]
    values, floor = {}, {}
    for extractor in extractors:
        made, reference, other = (features.cached(extractor, side, cache) for side in sides)
        values[extractor.name] = _measures(made, reference)
        floor[extractor.name] = _measures(other, reference)
    return {"pictures": number, "values": values, "floor": floor}


def tabulate(
    recipe: Table1Recipe, entries: Sequence[Entry], extractors: Sequence[Extractor], real: Pictures, digest: str
) -> Report:
    """Return Table I: a row for each adapter and one for the floor, mean and interval over seeds.

    `digest` is that of the foundation's weights, before any adapter.
    """
    measured = _measured(extractors)
    columns = ["adapter", "trained parameters", "best step", *measured]
    columns += ["paper: FID@ImageNet", "paper: FID@Cytopathology"]
    rows: list[tuple[str | float | int | None, ...]] = []
    for adapter in recipe.adapters:
        own = [entry for entry in entries if entry.adapter == adapter]
        steps = ", ".join(str(entry.step) for entry in own)
        rows.append((adapter, own[0].parameters, steps, *_cells(own, measured), *PUBLISHED.get(adapter, (None, None))))
    first = [entry for entry in entries if entry.adapter == recipe.adapters[0]]
    rows.append(("real against real", None, None, *_cells(first, measured, floor=True), None, None))
    counts = sorted({entry.pictures for entry in entries})
    facts = {
        "foundation": f"{short(recipe.foundation)} {digest}", "preset": recipe.preset, "steps": recipe.steps,
        "seeds": recipe.seeds,
        "fields": f"{recipe.count} of {recipe.size} pixels by adapter and seed", "window": recipe.window or "whole",
        "real": f"{real.source}, part {recipe.real.split}, {len(real)} windows of {real.files} images",
        "pictures_a_side": ", ".join(map(str, counts)),
        "extractors": {extractor.name: extractor.digest for extractor in extractors},
    }  # fmt: skip
    notes = (*_reading(recipe, counts), *compared(entries, extractors), *undecided(entries, extractors))
    return Report("Table I: ways of tuning the foundation", facts, tuple(columns), tuple(rows), notes)


def compared(entries: Sequence[Entry], extractors: Sequence[Extractor]) -> list[str]:
    """Return a line on each rival of LoRA: the difference of the kernel distance, paired by seed."""
    by_cell = {(entry.adapter, entry.seed): entry for entry in entries}
    names = dict.fromkeys(entry.adapter for entry in entries)
    if "lora" not in names:
        return []
    lines = []
    for extractor in extractors:
        for rival in (name for name in names if name != "lora"):
            gaps = [
                1000 * (entry.values[extractor.name]["kernel"] - by_cell["lora", seed].values[extractor.name]["kernel"])
                for (name, seed), entry in by_cell.items()
                if name == rival
            ]
            lines.append(f"{rival} less lora, {extractor.kernel} x 1000: {_verdict(mean(gaps))}")
    return lines


def undecided(entries: Sequence[Entry], extractors: Sequence[Extractor]) -> list[str]:
    """Return a line on each column in which the floor is less sure than the adapters are apart."""
    names = dict.fromkeys(entry.adapter for entry in entries)
    lines = []
    for column, read in _measured(extractors).items():
        floor = mean([read(entry.floor) for entry in entries if entry.adapter == next(iter(names))])
        middles = [mean([read(entry.values) for entry in entries if entry.adapter == name]).value for name in names]
        apart = max(middles) - min(middles)
        if floor.low is not None and floor.high is not None and floor.high - floor.low > apart > 0:
            lines.append(
                f"{column} decides nothing: the rows are {apart:.3g} apart at most, and the floor's interval is "
                f"{floor.high - floor.low:.3g} wide"
            )
    return lines


def everything(entries: Sequence[Entry]) -> tuple[tuple[str, ...], list[tuple[str | float | int, ...]]]:
    """Return columns and rows of every measure of every adapter, seed and extractor."""
    columns = ("adapter", "seed", "parameters", "step", "pictures", "features", "measure", "value", "floor")
    rows: list[tuple[str | float | int, ...]] = [
        (e.adapter, e.seed, e.parameters, e.step, e.pictures, name, measure, found[measure], e.floor[name][measure])
        for e in entries
        for name, found in e.values.items()
        for measure in MEASURES
    ]
    return columns, rows


def _verdict(gap: Estimate) -> str:
    if gap.low is None or gap.high is None:
        return f"{gap}, one seed: no verdict"
    if gap.low > 0:
        return f"{gap}: lora is nearer to real images"
    return f"{gap}: lora is farther from real images" if gap.high < 0 else f"{gap}: no evidence of a difference"


def _reading(recipe: Table1Recipe, counts: Sequence[int]) -> list[str]:
    return [
        f"mean over {len(recipe.seeds)} seeds of training and drawing, in brackets the 95 % interval of Student's t",
        "real against real: one half of the held-out windows against the other, at the same number; the floor",
        f"{', '.join(map(str, counts))} pictures a side: Fréchet distances this small a number makes are too high and "
        "not comparable with the paper's, which are of another foundation, other data and another number; kernel "
        "distances have no such bias",
    ]


def _measured(extractors: Sequence[Extractor]) -> dict[str, Reading]:
    """Return how each measured column of the table is read from the values of an Entry."""
    found: dict[str, Reading] = {}
    for extractor in extractors:
        found[extractor.frechet] = partial(_read, extractor.name, "frechet", 1)
        found[f"{extractor.kernel} x 1000"] = partial(_read, extractor.name, "kernel", 1000)
    last = extractors[-1].name
    found[f"coverage ({last})"] = partial(_read, last, "coverage", 1)
    return found


def _read(extractor: str, measure: str, factor: float, values: dict[str, dict[str, float]]) -> float:
    return factor * values[extractor][measure]


def _cells(entries: Sequence[Entry], measured: dict[str, Reading], floor: bool = False) -> list[str]:
    return [
        str(mean([read(entry.floor if floor else entry.values) for entry in entries])) for read in measured.values()
    ]


def _cytology(recipe: Table1Recipe, run: Path) -> list[str]:
    """Return a line on how well the cytology network tells cells apart, where it is one of the extractors."""
    if CYTOLOGY not in recipe.extractors:
        return []
    return [f"{CYTOLOGY}: {discrimination(Path(recipe.weights.get(CYTOLOGY, run / 'features' / 'weights')))}"]


def _measures(a: Features, b: Features) -> dict[str, float]:
    shares = distance.prdc(a, b)._asdict()
    return {"frechet": distance.frechet(a, b), "kernel": distance.kid(a, b).mean, **shares}


def _train(
    adapter: str, seed: int, recipe: Table1Recipe, folder: Path, data_root: Path, cache: Path
) -> tuple[Path | None, int, int]:
    """Train `adapter`; return its best weights, how many parameters were trained, and the step of the weights."""
    if adapter == UNTUNED:
        return None, 0, 0
    given: NormalRecipe = NORMAL[recipe.preset][adapter]
    base = NormalRecipe.model_validate(given.model_dump() | recipe.training)
    chosen = base.model_copy(update={"foundation": recipe.foundation, "seed": seed, "max_steps": recipe.steps})
    outcome = whole(train_normal(chosen, folder / "training", data_root, cache=cache))
    return outcome.selected, outcome.parameters, outcome.selected_step


def _extractor(name: str, recipe: Table1Recipe, run: Path, data_root: Path, device: str) -> Extractor:
    """Return the feature network `name`, trained first where it is ours and no weights are given."""
    weights = Path(recipe.weights[name]) if name in recipe.weights else None
    if name == CYTOLOGY and weights is None:
        weights = run / "features" / "weights"
        if not (run / "features" / "validation.json").exists():
            whole(train_features(FEATURES[recipe.preset], run / "features", data_root))
    return features.load(name, weights, device)


def _result(run: Path, adapter: str, seed: int) -> Path:
    return run / adapter / f"seed-{seed}" / "result.json"
