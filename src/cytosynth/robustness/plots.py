"""Plots of the benchmark: heat map, curves, and a sheet of each variation at each strength."""

import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from ..data.image_files import Pixels
from ..data.preview import with_boxes
from ..data.sources import Sample
from ..evaluate import sheet as sheets
from ..io import atomic
from ..variation.catalogue import variation
from .predictions import varied
from .recipe import CLEAN, RobustnessRecipe
from .summary import Trainings

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
"""Distinguished by most colour-blind readers."""
MEASURE = "AP"
SHOWN = 200
"""Side of the window of the sheet, pixels."""


def heat_map(path: Path, recipe: RobustnessRecipe, trainings: Mapping[str, Trainings]) -> None:
    """Write a PNG: a panel for each detector, AP over its clean value by variation and strength."""
    figure = Figure(figsize=(1.5 + 3.4 * len(trainings), 1.5 + 0.32 * len(recipe.variations)), dpi=110,
                    layout="constrained")  # fmt: skip
    axes = figure.subplots(1, len(trainings), squeeze=False)[0]
    for index, (axis, (name, found)) in enumerate(zip(axes, trainings.items(), strict=True)):
        clean = found.estimate(MEASURE, CLEAN).value
        table = np.array(
            [[found.estimate(MEASURE, f"{v}-{s}").value for s in recipe.strengths] for v in recipe.variations]
        ) / (clean or np.nan)
        shown = axis.imshow(table, vmin=0, vmax=1, cmap="viridis", aspect="auto")
        for (row, column), value in np.ndenumerate(table):
            colour = "black" if value > 0.6 else "white"
            axis.text(column, row, f"{value:.2f}", ha="center", va="center", fontsize=7, color=colour)
        axis.set_title(f"{name} (clean {MEASURE} {clean:.3f})", fontsize=9)
        axis.set_xticks(range(len(recipe.strengths)), list(map(str, recipe.strengths)))
        axis.set_xlabel("strength")
        axis.set_yticks(range(len(recipe.variations)), recipe.variations if index == 0 else [])
    figure.colorbar(shown, ax=list(axes), label=f"{MEASURE} over its value on clean images")
    _save(figure, path)


def curves(path: Path, recipe: RobustnessRecipe, trainings: Mapping[str, Trainings]) -> None:
    """Write a PNG: a panel for each variation, AP by amount, a line with its interval for each detector."""
    columns = min(5, len(recipe.variations))
    rows = -(-len(recipe.variations) // columns)
    figure = Figure(figsize=(2.7 * columns, 2.3 * rows + 0.6), dpi=110, layout="constrained")
    axes = figure.subplots(rows, columns, sharey=True, squeeze=False).ravel()
    for axis, name in zip(axes, recipe.variations, strict=False):
        for number, (title, found) in enumerate(trainings.items()):
            line = [found.estimate(MEASURE, CLEAN)]
            line += [found.estimate(MEASURE, f"{name}-{strength}") for strength in recipe.strengths]
            values = np.array([one.value for one in line])
            edges = np.array([(one.low, one.high) if one.low is not None else (np.nan, np.nan) for one in line], float)
            colour = COLOURS[number % len(COLOURS)]
            axis.plot([0, *recipe.strengths], values, "o-", ms=3, color=colour, label=title)
            axis.fill_between([0, *recipe.strengths], edges[:, 0], edges[:, 1], color=colour, alpha=0.15)
        chosen = variation(name)
        amounts = [f"{chosen.severities[strength - 1]:g}" for strength in recipe.strengths]
        axis.set_xticks([0, *recipe.strengths], ["clean", *amounts], fontsize=6)
        axis.set_title(f"{name} ({chosen.unit})", fontsize=8)
    for axis in axes[len(recipe.variations) :]:
        axis.set_axis_off()
    axes[0].set_ylabel(MEASURE)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=6)
    _save(figure, path)


def sheet(path: Path, recipe: RobustnessRecipe, sample: Sample) -> None:
    """Write a PNG: a window of `sample` around its first cell, clean and under each variation at each strength."""
    shown: list[tuple[Pixels, str]] = []
    for name in recipe.variations:
        for condition in (CLEAN, *(f"{name}-{strength}" for strength in recipe.strengths)):
            pixels, cells = varied(sample, condition, recipe)
            middle = cells[0].centre if cells else (pixels.shape[1] / 2, pixels.shape[0] / 2)
            sides = pixels.shape[1::-1]
            x, y = (int(np.clip(c - SHOWN / 2, 0, max(s - SHOWN, 0))) for c, s in zip(middle, sides, strict=True))
            drawn = with_boxes(pixels, cells, width=1)
            shown.append((drawn[y : y + SHOWN, x : x + SHOWN], condition))
    sheets.write(path, shown, columns=1 + len(recipe.strengths), side=SHOWN)


def _save(figure: Figure, path: Path) -> None:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    atomic.write_bytes(path, buffer.getvalue())
