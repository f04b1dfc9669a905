"""The rows of Table I with intervals over seeds, differences from LoRA, and inconclusive columns."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated

from pydantic import AliasChoices, Field

from ..augmentation.published import FID
from ..evaluate.image_set import ImageSet
from ..evaluate.networks.extractor import Extractor
from ..evaluate.statistics import Estimate, mean
from ..io.report import Report
from ..provenance import short
from .recipe import Table1Recipe

Reading = Callable[[dict[str, dict[str, float]]], float]
MEASURES = ("frechet", "kernel", "precision", "recall", "density", "coverage")


@dataclass(frozen=True)
class SeedResult:
    """The result of one adapter with one seed.

    Attributes:
        adapter: its name.
        seed: of its training, its fields and the halves.
        parameters: how many were trained.
        step: training step of the weights that generated the fields. images: number of windows compared on each side.
        values: `MEASURES` of the generated windows, by extractor.
        floor: the same of one half of the real windows against the other.
    """

    adapter: str
    seed: int
    parameters: int
    step: int
    images: Annotated[int, Field(validation_alias=AliasChoices("images", "pictures"))]
    values: dict[str, dict[str, float]]
    floor: dict[str, dict[str, float]]


def tabulate(
    recipe: Table1Recipe, entries: Sequence[SeedResult], extractors: Sequence[Extractor], real: ImageSet, digest: str
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
        rows.append((adapter, own[0].parameters, steps, *_cells(own, measured), *FID.get(adapter, (None, None))))
    first = [entry for entry in entries if entry.adapter == recipe.adapters[0]]
    rows.append(("real against real", None, None, *_cells(first, measured, floor=True), None, None))
    counts = sorted({entry.images for entry in entries})
    facts = {
        "foundation": f"{short(recipe.foundation)} {digest}", "preset": recipe.preset, "steps": recipe.steps,
        "seeds": recipe.seeds,
        "fields": f"{recipe.count} of {recipe.size} pixels by adapter and seed", "window": recipe.window or "whole",
        "real": f"{real.source}, part {recipe.real.split}, {len(real)} windows of {real.files} images",
        "images_a_side": ", ".join(map(str, counts)),
        "extractors": {extractor.name: extractor.digest for extractor in extractors},
    }  # fmt: skip
    notes = (*_reading(recipe, counts), *compared(entries, extractors), *undecided(entries, extractors))
    return Report("Table I: tuning methods for the foundation", facts, tuple(columns), tuple(rows), notes)


def compared(entries: Sequence[SeedResult], extractors: Sequence[Extractor]) -> list[str]:
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
            lines.append(f"{rival} minus lora, {extractor.kernel} x 1000: {_verdict(mean(gaps))}")
    return lines


def undecided(entries: Sequence[SeedResult], extractors: Sequence[Extractor]) -> list[str]:
    """Return a line on each column in which the floor's interval is wider than the adapters' differences."""
    names = dict.fromkeys(entry.adapter for entry in entries)
    lines = []
    for column, read in _measured(extractors).items():
        floor = mean([read(entry.floor) for entry in entries if entry.adapter == next(iter(names))])
        middles = [mean([read(entry.values) for entry in entries if entry.adapter == name]).value for name in names]
        apart = max(middles) - min(middles)
        if floor.low is not None and floor.high is not None and floor.high - floor.low > apart > 0:
            lines.append(
                f"{column} is inconclusive: the rows differ by at most {apart:.3g}, and the floor's interval is "
                f"{floor.high - floor.low:.3g} wide"
            )
    return lines


def everything(entries: Sequence[SeedResult]) -> tuple[tuple[str, ...], list[tuple[str | float | int, ...]]]:
    """Return columns and rows of every measure of every adapter, seed and extractor."""
    columns = ("adapter", "seed", "parameters", "step", "images", "features", "measure", "value", "floor")
    rows: list[tuple[str | float | int, ...]] = [
        (e.adapter, e.seed, e.parameters, e.step, e.images, name, measure, found[measure], e.floor[name][measure])
        for e in entries
        for name, found in e.values.items()
        for measure in MEASURES
    ]
    return columns, rows


def _verdict(gap: Estimate) -> str:
    if gap.low is None or gap.high is None:
        return f"{gap}, one seed: no conclusion"
    if gap.low > 0:
        return f"{gap}: lora is nearer to real images"
    return f"{gap}: lora is farther from real images" if gap.high < 0 else f"{gap}: no evidence of a difference"


def _reading(recipe: Table1Recipe, counts: Sequence[int]) -> list[str]:
    return [
        f"mean over {len(recipe.seeds)} seeds of training and generation, in brackets the 95 % interval of Student's t",
        "real against real: the floor, the distance between two halves of the held-out windows, at the same number",
        f"{', '.join(map(str, counts))} images a side: Fréchet distances of so few images are biased upwards and "
        "not comparable with the paper's, which are of another foundation, other data and another number; kernel "
        "distances have no such bias",
    ]


def _measured(extractors: Sequence[Extractor]) -> dict[str, Reading]:
    """Return how each measured column of the table is read from the values of an SeedResult."""
    found: dict[str, Reading] = {}
    for extractor in extractors:
        found[extractor.frechet] = partial(_read, extractor.name, "frechet", 1)
        found[f"{extractor.kernel} x 1000"] = partial(_read, extractor.name, "kernel", 1000)
    last = extractors[-1].name
    found[f"coverage ({last})"] = partial(_read, last, "coverage", 1)
    return found


def _read(extractor: str, measure: str, factor: float, values: dict[str, dict[str, float]]) -> float:
    return factor * values[extractor][measure]


def _cells(entries: Sequence[SeedResult], measured: dict[str, Reading], floor: bool = False) -> list[str]:
    return [
        str(mean([read(entry.floor if floor else entry.values) for entry in entries])) for read in measured.values()
    ]
