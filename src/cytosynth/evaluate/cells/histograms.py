"""Histograms of several sets of cells on a common axis, as one PNG of panels."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from ...io import atomic

COLOURS = ("#0072B2", "#969696", "#D55E00")
"""Blue, grey and vermilion: distinguished by most colour-blind eyes."""
BINS = 24


def write(path: Path, panels: Sequence[tuple[str, Mapping[str, Sequence[float]]]], columns: int) -> None:
    """Write `panels` in rows of `columns`; those of one column have the same axis.

    Args:
        path: PNG to write.
        panels: title, and values by name of at most three sets; of each set, shares in the bins are shown, and values
            beyond the axis are in its last bin.
        columns: panels in a row.
    """
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(3.3 * columns, 2.0 * rows), dpi=110, layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for number, (axis, (title, series)) in enumerate(zip(axes, panels, strict=False)):
        column = [list(values) for _, other in panels[number % columns :: columns] for values in other.values()]
        edges = _edges([value for values in column for value in values])
        for (name, values), colour in zip(series.items(), COLOURS, strict=False):
            shares = np.histogram(np.clip(values, edges[0], edges[-1]), edges)[0] / max(len(values), 1)
            axis.stairs(shares, edges, color=colour, linewidth=1.5, label=f"{name} ({len(values)})")
        axis.set_title(title, fontsize=8, loc="left")
        axis.set_yticks([])
        axis.tick_params(labelsize=7)
        axis.legend(fontsize=7, frameon=False)
    for axis in axes[len(panels) :]:
        axis.remove()
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    atomic.write_bytes(path, buffer.getvalue())


def _edges(values: Sequence[float]) -> np.ndarray:
    low, high = np.percentile(values, (0.5, 99.5)) if values else (0.0, 1.0)
    return np.linspace(low, high if high > low else low + 1, BINS + 1)
