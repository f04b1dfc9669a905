"""`experiment efficiency`: arms on nested subsets, trained and scored, or what is decided before (docs/protocol.md)."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...config import pin
from ...data import sources
from ...detection import external
from ...errors import UsageError
from ...evaluate.detection import scoring
from ...evaluate.detection.failures import MISSED, failures
from ...evaluate.detection.scoring import ABNORMAL_AP
from ...io import atomic, lock
from ...io.bundled import RECIPE
from ...io.report import Report
from ...provenance import short
from .. import inputs, leaks
from . import chains, sets, table, trials
from .recipe import REAL, ROLES, EfficiencyRecipe, On
from .table import Kept, Read
from .trials import Result, Trial

CURVE_CHAINS = 3


def efficiency(
    recipe: EfficiencyRecipe, run: Path, data_root: Path, on: On = "tuning", devices: Sequence[str] = ("cpu",),
    workers: int = 1,
) -> list[Report]:  # fmt: skip
    """Train every arm at every size of every chain in the folder `run` and score it `on` the tuning or test images.

    Writes `efficiency`, `gains` (each `.md`, `.json`, `.csv`), `efficiency.png` and `kept.json`, from which the tables
    can be written again, into `run`/tuning or `run`/test. Trainings are the same for both. Raises UsageError if `run`
    was started with another recipe or other data, and for subsets with a test image; UserError if a model or a
    synthetic image derives from a held-out image.
    """
    read = measured(recipe, run, data_root, on, devices, workers)
    atomic.write_json(run / on / "kept.json", Kept.of(read).model_dump(mode="json"))
    return table.write(read, run / on, "efficiency", "gains")


def measured(
    recipe: EfficiencyRecipe, run: Path, data_root: Path, on: On, devices: Sequence[str], workers: int
) -> Read:
    """Train and score what is missing of all arms; return all results."""
    with lock.run(run, RECIPE):
        _begin(recipe, run, data_root)
        planned = _planned(recipe, run, data_root, devices, workers)
        trials.fill(planned, on, recipe, run, data_root, devices, workers)
        return _read(planned, on, recipe, run, data_root)


def prepare(recipe: EfficiencyRecipe, run: Path, data_root: Path) -> list[Path]:
    """Write the subsets of all chains, for training own generators, into `run`/subsets; return their folders."""
    with lock.run(run, RECIPE):
        _apart(recipe, data_root)
        pin(recipe, run / RECIPE)
        return [_subset(recipe, chain, size, run, data_root) for chain, size in _places(recipe)]


def check_power(
    recipe: EfficiencyRecipe, run: Path, data_root: Path, devices: Sequence[str] = ("cpu",), workers: int = 1
) -> Report:
    """Train R twice for each chain at the confirmatory size and write `power`: the smallest gain that can be shown."""
    if recipe.confirmatory is None or recipe.chains < 2:
        raise UsageError("--check-power: needs a confirmatory size and two chains or more")
    with lock.run(run, RECIPE):
        _begin(recipe, run, data_root)
        planned = [
            Trial(REAL, chain, size, _subset(recipe, chain, size, run, data_root), (), (recipe.steps,), purpose)
            for chain, size in _places(recipe) if size == recipe.confirmatory for purpose in ("arm", "again")
        ]  # fmt: skip
        trials.fill(planned, "tuning", recipe, run, data_root, devices, workers)
        found = {(one.chain, one.purpose): _result(one, "tuning", recipe.steps, recipe, run) for one in planned}
        pairs = {chain: (found[chain, "arm"], found[chain, "again"]) for chain in range(recipe.chains)}
        tested = trials.holding(trials.scored_on(recipe, "tuning", data_root.resolve()), recipe)[""]
        report = table.power(pairs, recipe, tested, _facts(recipe, data_root))
        report.write(run / "tuning", "power")
    return report


def check_steps(
    recipe: EfficiencyRecipe, run: Path, data_root: Path, devices: Sequence[str] = ("cpu",), workers: int = 1
) -> Report:
    """Score R during its training on the tuning images and write `learning_curve`: whether it is flat at the end."""
    size = recipe.confirmatory or recipe.sizes[-1]
    lengths = recipe.curve or sorted({max(1, round(recipe.steps * part / 6)) for part in range(1, 7)})
    with lock.run(run, RECIPE):
        _begin(recipe, run, data_root)
        planned = [
            Trial(REAL, chain, size, _subset(recipe, chain, size, run, data_root), (), tuple(lengths), "curve")
            for chain in range(min(recipe.chains, CURVE_CHAINS))
        ]
        trials.fill(planned, "tuning", recipe, run, data_root, devices, workers)
        found = {
            steps: [_result(one, "tuning", steps, recipe, run)["scores"][ABNORMAL_AP] or 0.0 for one in planned]
            for steps in lengths
        }
        path = run / "tuning" / "learning_curve.png"
        report = table.curve(found, recipe, size, _facts(recipe, data_root), path)
        report.write(run / "tuning", "learning_curve")
    return report


def _begin(recipe: EfficiencyRecipe, run: Path, data_root: Path) -> None:
    """Check that the run has its recipe and data, after checking that no held-out image would be trained on."""
    _apart(recipe, data_root)
    held = [recipe.test] + ([recipe.real] if recipe.generator == "public" else [])
    named = {(role, name) for place in _places(recipe) for role, name in sets.names(recipe, place).items()}
    for role, name in sorted(named | {("gate", arm.gate) for arm in recipe.arms.values()}):
        leaks.unseen({role: name}, held, data_root)
    begins = {"every arm": recipe.training.get("weights")} | {name: arm.weights for name, arm in recipe.arms.items()}
    leaks.begun(begins.values(), held, data_root)
    pin(recipe, run / RECIPE)
    roots = {"real set": recipe.real.root, "test set": recipe.test.root, "tuning set": recipe.tuning.root}
    digests = inputs.of({name: data_root / root for name, root in roots.items()}) | inputs.begun(begins)
    pin(digests, run / inputs.FILE, inputs.difference)


def _apart(recipe: EfficiencyRecipe, data_root: Path) -> None:
    """Raise UsageError if a training or tuning image is a test image, by name or by digest."""
    for what, source in (("real", recipe.real), ("tuning", recipe.tuning)):
        leaks.apart(what, [source], [recipe.test], data_root)
        leaks.unlike(what, source, recipe.test, data_root)
    if not recipe.divides:
        leaks.apart("real", [recipe.real], [recipe.tuning], data_root)
        leaks.unlike("real", recipe.real, recipe.tuning, data_root)


def _places(recipe: EfficiencyRecipe) -> list[tuple[int, int]]:
    """Return chain and N of every row, whole chains first."""
    return [(chain, size) for chain in range(recipe.chains) for size in recipe.sizes]


def _subset(recipe: EfficiencyRecipe, chain: int, size: int, run: Path, data_root: Path) -> Path:
    place = (chain, size)
    return chains.subset(
        recipe.real, recipe.sizes, place, recipe.seed, run, data_root, trials.taken_out(recipe, data_root)
    )


def _planned(recipe: EfficiencyRecipe, run: Path, data_root: Path, devices: Sequence[str], workers: int) -> list[Trial]:
    """Return all trials, with their synthetic images made; for arms with hard cells, R is trained first."""
    planned = []
    load = sets.Loader()
    for chain, size in _places(recipe):
        subset = _subset(recipe, chain, size, run, data_root)
        if any(arm.hard for arm in recipe.arms.values()):
            _hard(Trial(REAL, chain, size, subset, (), (recipe.steps,)), recipe, run, data_root, devices, workers)
        for name in recipe.arms:
            made = sets.made(recipe, name, (chain, size), subset, run, data_root, devices[0], load)
            planned.append(Trial(name, chain, size, subset, tuple(made), (recipe.steps,)))
    return planned


def _hard(
    trial: Trial, recipe: EfficiencyRecipe, run: Path, data_root: Path, devices: Sequence[str], workers: int
) -> None:
    """Write the weights of the categories of a row: the share of their tuning cells that R misses."""
    file = sets.hard_file(run, (trial.chain, trial.size))
    if file.exists():
        return
    trials.fill([trial], "tuning", recipe, run, data_root, devices, workers)
    weights, _ = trials.trained(trial, recipe.steps, recipe, run, data_root)
    finder = external.load(str(weights), recipe.classes, devices[0])
    atomic.write_json(file, sets.hard(_missed(finder, recipe, data_root)))


def _missed(finder: external.Finder, recipe: EfficiencyRecipe, data_root: Path) -> dict[str, float]:
    """Return the share of the tuning cells of each category that `finder` misses, be it found as another category."""
    chosen = trials.tuning(recipe, data_root)
    samples = [sample for sample in sources.load([recipe.tuning], data_root) if sample.name in chosen]
    named = ((sample.name, sample.pixels) for sample in samples)
    found = finder.find_all(named, len(samples), scoring.LEAST, "clean")
    truth = [sample.cells for sample in samples]
    # Categories of the truth, whatever the detector calls what it finds.
    confusion = failures(truth, found, list(dict.fromkeys([*recipe.categories, *recipe.classes]))).confusion
    shares = {}
    for name in recipe.categories:
        total = sum(confusion[name].values())
        shares[name] = confusion[name][MISSED] / total if total else 1.0
    return shares


def _read(planned: Sequence[Trial], on: On, recipe: EfficiencyRecipe, run: Path, data_root: Path) -> Read:
    results: dict[tuple[int, str], dict[int, Any]] = {}
    counted: dict[tuple[int, str], list[tuple[int, ...]]] = {}
    for trial in sorted(planned, key=lambda one: one.size):
        key = (trial.size, trial.arm)
        results.setdefault(key, {})[trial.chain] = _result(trial, on, recipe.steps, recipe, run)
        real = sets.abnormal([trial.subset])[1]
        counted.setdefault(key, []).append((*sets.abnormal(trial.synthetic), real))
    means = {key: tuple(sum(one) / len(rows) for one in zip(*rows, strict=True)) for key, rows in counted.items()}
    tested = trials.holding(trials.scored_on(recipe, on, data_root.resolve()), recipe)
    return Read(recipe, on, results, tested, means, _facts(recipe, data_root))


def _result(trial: Trial, on: On, steps: int, recipe: EfficiencyRecipe, run: Path) -> Mapping[str, Any]:
    file = trial.result(run, on, steps)
    return scoring.read(file, Result, recipe.classes, recipe.draws, trial.folder(run))


def _facts(recipe: EfficiencyRecipe, data_root: Path) -> dict[str, Any]:
    named = {role: short(recipe.models[role]) for role in ROLES if role in recipe.models}
    out = trials.taken_out(recipe, data_root)
    there = sum(image.file_name not in out for image in sources.part(recipe.real, data_root))
    return {"models": named, table.POOL: there}
