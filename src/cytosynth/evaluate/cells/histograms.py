"""Histograms of several sets of cells on a common axis, as one PNG of panels."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ...data.image_files import Pixels
from ...data.preview import grid, save_png

COLOURS = ((0, 114, 178), (150, 150, 150), (213, 94, 0))
"""Blue, grey and vermilion: told apart by most colour-blind eyes."""
WIDTH, HEIGHT, MARGIN = 360, 220, 30
BINS = 24


def write(path: Path, panels: Sequence[tuple[str, Mapping[str, Sequence[float]]]], columns: int) -> None:
    """Write `panels` in rows of `columns`; those of one column have the same axis.

    Args:
        path: PNG to write.
        panels: title, and values by name of at most three sets.
        columns: panels in a row.
    """
    drawn = []
    for number, (title, series) in enumerate(panels):
        column = [list(values) for _, other in panels[number % columns :: columns] for values in other.values()]
        drawn.append(_panel(title, series, _edges([value for values in column for value in values])))
    save_png(grid(drawn, columns), path)


def _edges(values: Sequence[float]) -> np.ndarray:
    low, high = np.percentile(values, (0.5, 99.5)) if values else (0.0, 1.0)
    return np.linspace(low, high if high > low else low + 1, BINS + 1)


def _panel(title: str, series: Mapping[str, Sequence[float]], edges: np.ndarray) -> Pixels:
    """Return a (HEIGHT, WIDTH, 3) panel: shares of each set in the bins of `edges`; values beyond go into the last."""
    image = Image.new("RGB", (WIDTH, HEIGHT), (255, 255, 255))
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(size=11)
    draw.text((MARGIN, 4), title, fill=(0, 0, 0), font=font)
    shares = [np.histogram(np.clip(v, edges[0], edges[-1]), edges)[0] / max(len(v), 1) for v in series.values()]
    most = max((float(share.max()) for share in shares), default=1.0) or 1.0
    bottom, step = HEIGHT - MARGIN, (WIDTH - 2 * MARGIN) / BINS
    for row, ((name, values), share, colour) in enumerate(zip(series.items(), shares, COLOURS, strict=True)):
        points = [(float(MARGIN), float(bottom))]
        for index, part in enumerate(share):
            y = bottom - part / most * (bottom - 2 * MARGIN)
            points += [(MARGIN + index * step, y), (MARGIN + (index + 1) * step, y)]
        draw.line([*points, (float(WIDTH - MARGIN), float(bottom))], fill=colour, width=2)
        draw.text((WIDTH - 4, 4 + 13 * row), f"{name} ({len(values)})", fill=colour, font=font, anchor="ra")
    for index in range(0, BINS + 1, BINS // 4):
        draw.text((MARGIN + index * step, bottom + 4), f"{edges[index]:.3g}", fill=(0, 0, 0), font=font, anchor="ma")
    return np.asarray(image)
