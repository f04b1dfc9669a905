"""The curve as an image: gain over real images alone against the ratio, with intervals."""

import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure

from ...evaluate.sheet import COLOURS
from ...evaluate.statistics import Estimate
from ...io import atomic


@dataclass(frozen=True)
class Curve:
    """The content of the plot.

    Attributes:
        title: above.
        measure: whose gain is shown.
        images: number of images of every ratio that was allowed, by ratio.
        ranked: gain x 100 of the ranked images, by ratio that was tried.
        random: the same of as many images at random.
        chosen: the ratio; 0: none.
    """

    title: str
    measure: str
    images: Mapping[float, int]
    ranked: Mapping[float, Estimate]
    random: Mapping[float, Estimate]
    chosen: float


def write(path: Path, curve: Curve) -> None:
    """Write `curve` as PNG: real images alone at the left, ratios that were not tried without a point."""
    figure = Figure(figsize=(7, 4.2), dpi=110, layout="constrained")
    axis = figure.subplots()
    places = {ratio: place for place, ratio in enumerate(curve.images, 1)}
    for number, (name, gains) in enumerate((("ranked", curve.ranked), ("at random", curve.random))):
        colour = tuple(value / 255 for value in COLOURS[number])
        across = [places[ratio] + 0.12 * number for ratio in gains]
        values = [one.value for one in gains.values()]
        below = [max(one.value - (one.value if one.low is None else one.low), 0) for one in gains.values()]
        above = [max((one.value if one.high is None else one.high) - one.value, 0) for one in gains.values()]
        line = "-" if name == "ranked" else ""
        if gains:
            axis.errorbar(across, values, [below, above], fmt=f"o{line}", capsize=4, color=colour, label=name)
    if curve.chosen:
        height = curve.ranked[curve.chosen].value
        axis.plot(places[curve.chosen], height, "o", markersize=14, fillstyle="none", color="black", label="chosen")
    axis.axhline(0, color="black", linewidth=0.8)
    axis.plot(0, 0, "ko")
    labels = [f"{ratio:g} x\n{count}" + ("" if ratio in curve.ranked else "\nnot tried") for ratio, count in
              curve.images.items()]  # fmt: skip
    axis.set_xticks(range(len(places) + 1), ["real\nalone", *labels])
    axis.set_xlim(-0.4, len(places) + 0.5)
    axis.set_xlabel("synthetic images over real ones, and how many")
    axis.set_ylabel(f"gain of {curve.measure} x 100 on validation, 95 % interval")
    axis.set_title(curve.title, fontsize=10, wrap=True)
    axis.legend(fontsize=8)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    atomic.write_bytes(path, buffer.getvalue())
