"""The gains of Tables II and III as an image: a point and its interval for each detector, name and measure."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.artist import Artist
from matplotlib.figure import Figure

from ..evaluate.statistics import Estimate
from ..io import atomic

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")
"""Distinguished by most colour-blind readers."""


def write(
    path: Path, title: str, measures: Sequence[str], gains: Mapping[str, Mapping[str, Mapping[str, Estimate]]]
) -> None:
    """Write a PNG: a panel for each detector, a group for each of `measures`, a point and interval for each set.

    Where there is no interval the point is hollow.

    Args:
        path: of the PNG.
        title: above the panels.
        measures: names along the axis.
        gains: by detector, training set and measure, in AP points times 100.
    """
    figure = Figure(figsize=(4.2 * max(len(gains), 1), 4), dpi=110, layout="constrained")
    figure.suptitle(f"{title}: gain over real images alone (R), 95 % interval")
    handles: dict[str, Artist] = {}
    axes = figure.subplots(1, len(gains), sharey=True, squeeze=False)[0]
    for axis, (detector, by_set) in zip(axes, gains.items(), strict=True):
        for number, (name, found) in enumerate(by_set.items()):
            offset = (number - (len(by_set) - 1) / 2) * 0.18
            for place, measure in enumerate(measures):
                one = found[measure]
                if one.low is None or one.high is None:
                    axis.plot(place + offset, one.value, "o", mfc="none", color=COLOURS[number % 4])
                    continue
                below, above = max(one.value - one.low, 0.0), max(one.high - one.value, 0.0)
                point, *_ = axis.errorbar(
                    place + offset, one.value, [[below], [above]], fmt="o", capsize=3, color=COLOURS[number % 4]
                )
                handles[name] = point
        axis.axhline(0, color="black", linewidth=0.8)
        axis.set_xlim(-0.5, len(measures) - 0.5)
        axis.set_title(detector)
        axis.set_xticks(range(len(measures)), measures, rotation=45, ha="right")
    axes[0].set_ylabel("gain over R, AP x 100")
    figure.legend(list(handles.values()), list(handles), loc="outside lower center", ncols=4)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    atomic.write_bytes(path, buffer.getvalue())
