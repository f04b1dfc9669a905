"""Table I: the four tuning methods of the foundation, by the distance of their fields to held-out real ones.

Every adapter has the same number of iterations and the same data, each is trained once for every seed, and next to
every distance the floor is given: one half of the real windows against the other half, at the same number.
"""

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ..bethesda import NILM
from ..classifier import recipe as classifier_recipes
from ..classifier.accuracy import discrimination
from ..classifier.train import train_classifier
from ..config import pin
from ..data import content, sources
from ..errors import UserError
from ..evaluate import distance, image_set
from ..evaluate.held_out import HeldOut
from ..evaluate.image_set import ImageSet
from ..evaluate.networks import features
from ..evaluate.networks.extractor import Extractor, Features
from ..foundation import load as foundations
from ..foundation.names import PAPER_GUIDANCE
from ..io import atomic, lock, plain
from ..io.progress import clock, console, meter
from ..io.report import Report, write_csv
from ..normal.generate import NormalImageGenerator
from ..normal.recipe import NormalRecipe, preset
from ..normal.settings import GenerateSettings
from ..normal.train import train_normal
from ..provenance import png
from .recipe import UNTUNED, Table1Recipe
from .table1_report import SeedResult, everything, tabulate

CYTOLOGY = "cytology-resnet50"


def table1(recipe: Table1Recipe, run: Path, data_root: Path, device: str = "cpu") -> Report:
    """Train, sample and measure every adapter with every seed in the folder `run`, or continue there.

    Writes `table1.json`, `.md`, `.csv` (the table) and `all.csv` (every measure of every seed); returns the table.
    Raises UsageError when `run` was started with another recipe or other images.
    """
    with lock.run(run, "recipe.yaml"):
        real = real_windows(recipe, data_root)
        grid = [(adapter, seed) for seed in recipe.seeds for adapter in recipe.adapters]
        todo = [cell for cell in grid if not _result(run, *cell).exists()]
        digests = {"real images": content.of_keys(real.keys())}
        if any(adapter != UNTUNED for adapter, _ in todo):
            trained = next(_training(adapter, recipe) for adapter, _ in todo if adapter != UNTUNED).data
            digests["training images"] = content.digest(sources.load(trained, data_root))
        pin(recipe, run / "recipe.yaml")  # after the checks: a recipe whose data are missing can be corrected
        content.pinned(digests, run)
        extractors = [extractor_of(name, recipe, run, data_root, device) for name in recipe.extractors]
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
                | measured(drawn, real, extractors, seed, run / "cache" / "features"),
            )
        entries = [plain.typed(SeedResult, _result(run, *cell)) for cell in grid]
        report = tabulate(recipe, entries, extractors, real, foundations.load(recipe.foundation).digest)
        report = replace(report, notes=(*report.notes, *cytology_note(recipe, run)))
        report.write(run, "table1")
        write_csv(run / "all.csv", *everything(entries))
    return report


def real_windows(recipe: Table1Recipe, data_root: Path) -> ImageSet:
    """Return the windows of the recipe's real images that hold no abnormal cell's centre."""
    source = recipe.real
    root = data_root / source.root
    found = image_set.gather(root, source.split, source.scale, recipe.window)
    centres = {
        image.file_name: [cell.scaled(source.scale).centre for cell in image.cells if cell.category != NILM]
        for image in source.read(data_root).images
    }
    chosen = [index for index, window in enumerate(found.windows) if not any(map(window.holds, centres[window.name]))]
    if not chosen:
        raise UserError(
            f"{root}: no window of {recipe.window} pixels without an abnormal cell in part '{source.split}'"
        )
    return found.chosen(chosen)


def draw(
    adapter: str, weights: Path | None, seed: int, recipe: Table1Recipe, folder: Path, device: str = "cpu"
) -> ImageSet:
    """Generate the missing ones of the recipe's number of fields in `folder`; return them as windows."""
    names = [f"{index:04d}.png" for index in range(recipe.count)]
    missing = [index for index, name in enumerate(names) if not (folder / name).exists()]
    # The untuned foundation has no low frequencies, and no guidance scale of its own.
    settings = GenerateSettings(size=recipe.size, low_frequencies=False, guidance_scale=PAPER_GUIDANCE)
    if missing:
        generator = NormalImageGenerator(recipe.foundation, str(weights) if weights else None, device)
        with meter("drawing fields", recipe.count, recipe.count - len(missing)) as bar:
            for index in missing:
                field = generator.field(seed, index, settings)
                record = {"origin": "synthetic", "adapter": adapter, "seed": seed, "key": index}
                atomic.write_bytes(folder / names[index], png(field, record))
                bar.advance()
    return image_set.gather(folder, window=recipe.window)


def measured(
    drawn: ImageSet, real: ImageSet, extractors: Sequence[Extractor], seed: int, cache: Path
) -> dict[str, Any]:
    """Return `images`, `values` and `floor` of a SeedResult: `drawn` and one half of `real` against the other half."""
    rng = np.random.default_rng(seed)
    first, second = real.halves(rng)
    number = min(len(drawn), len(first), len(second))
    sides = [side.sample(number, rng) for side in (drawn, first, second)]
    values, floor = {}, {}
    for extractor in extractors:
        made, reference, other = (features.cached(extractor, side, cache) for side in sides)
        values[extractor.name] = _measures(made, reference)
        floor[extractor.name] = _measures(other, reference)
    return {"images": number, "values": values, "floor": floor}


def cytology_note(recipe: Table1Recipe, run: Path) -> list[str]:
    """Return a line on how well the cytology network distinguishes cells, if it is one of the extractors."""
    if CYTOLOGY not in recipe.extractors:
        return []
    return [f"{CYTOLOGY}: {discrimination(Path(recipe.weights.get(CYTOLOGY, run / 'features' / 'weights')))}"]


def _measures(a: Features, b: Features) -> dict[str, float]:
    shares = distance.prdc(a, b)._asdict()
    return {"frechet": distance.frechet(a, b), "kernel": distance.kid(a, b).mean, **shares}


def _train(
    adapter: str, seed: int, recipe: Table1Recipe, folder: Path, data_root: Path, cache: Path
) -> tuple[Path | None, int, int]:
    """Train `adapter`; return its best weights, the number of trained parameters, and the step of the weights."""
    if adapter == UNTUNED:
        return None, 0, 0
    base = _training(adapter, recipe)
    chosen = base.model_copy(update={"foundation": recipe.foundation, "seed": seed, "max_steps": recipe.steps})
    outcome = train_normal(chosen, folder / "training", data_root, cache=cache, held_out=HeldOut).completed()
    return outcome.selected, outcome.parameters, outcome.selected_step


def _training(adapter: str, recipe: Table1Recipe) -> NormalRecipe:
    """Return the recipe of `adapter`, without its seed and length."""
    return NormalRecipe.model_validate(preset(recipe.preset, adapter).model_dump() | recipe.training)


def extractor_of(name: str, recipe: Table1Recipe, run: Path, data_root: Path, device: str) -> Extractor:
    """Return the feature network `name`; one of ours without given weights is trained first."""
    weights = Path(recipe.weights[name]) if name in recipe.weights else None
    if name == CYTOLOGY and weights is None:
        chosen, said = classifier_recipes.preset(recipe.preset), run / "features" / "validation.json"
        weights = run / "features" / "weights"
        if not said.exists() or plain.load(said).get("step") != chosen.max_steps:  # it is written after a stop too
            train_classifier(chosen, run / "features", data_root).completed()
    return features.load(name, weights, device)


def _result(run: Path, adapter: str, seed: int) -> Path:
    return run / adapter / f"seed-{seed}" / "result.json"
