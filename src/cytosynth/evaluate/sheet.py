"""Sheets of captioned images, and a histogram of two sets of distances, as PNG."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from ..data.image_files import Pixels
from ..data.preview import grid, save_png

SIDE = 224
LINE = 16
COLOURS = ((0, 114, 178), (213, 94, 0))


def write(path: Path, shown: Sequence[tuple[Pixels, str]], columns: int, side: int = SIDE) -> None:
    """Write images, each at most `side` pixels a side with its caption below, in rows of `columns`."""
    save_png(grid([_captioned(pixels, caption, side) for pixels, caption in shown], columns, gap=6), path)


def _captioned(pixels: Pixels, caption: str, side: int) -> Pixels:
    image = Image.fromarray(np.ascontiguousarray(pixels))
    image.thumbnail((side, side))
    tile = Image.new("RGB", (side, side + LINE), (255, 255, 255))
    tile.paste(image, ((side - image.width) // 2, side - image.height))
    shortened = caption if len(caption) <= 36 else caption[:12] + "..." + caption[-21:]
    ImageDraw.Draw(tile).text((2, side + 2), shortened, fill=(0, 0, 0), font=ImageFont.load_default(size=11))
    return np.asarray(tile)


def histogram(path: Path, series: Mapping[str, NDArray[np.float64]], label: str, mark: float) -> None:
    """Write the shares of at most two `series` in 40 bins of a common axis, `mark` as a vertical line.

    Args:
        path: PNG to write.
        series: values by name.
        label: of the axis.
        mark: a value of the axis.
    """
    left, right = (float(edge) for edge in np.percentile(np.concatenate([*series.values(), [mark]]), (0, 100)))
    edges = np.linspace(left, right if right > left else left + 1, 41)
    width, height, margin = 720, 360, 40
    image = Image.new("RGB", (width, height), (255, 255, 255))
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(size=13)
    shares = [np.histogram(values, edges)[0] / len(values) for values in series.values()]
    most = max(float(share.max()) for share in shares)

    def across(value: float) -> float:
        return float(margin + (value - edges[0]) / (edges[-1] - edges[0]) * (width - 2 * margin))

    for (name, values), share, colour, row in zip(series.items(), shares, COLOURS, (0, 1), strict=False):
        points = [(across(edges[0]), float(height - margin))]
        for low, high, part in zip(edges[:-1], edges[1:], share, strict=True):
            y = height - margin - part / most * (height - 2 * margin - 30)
            points += [(across(low), y), (across(high), y)]
        draw.line([*points, (across(edges[-1]), float(height - margin))], fill=colour, width=2)
        draw.text((margin, 8 + 18 * row), f"{name} ({len(values)})", fill=colour, font=font)
    draw.line([(across(mark), margin), (across(mark), height - margin)], fill=(120, 120, 120))
    draw.text((width - margin, 8), "grey line: limit of a copy", fill=(120, 120, 120), font=font, anchor="ra")
    for value in edges[::10]:
        draw.text((across(value), height - margin + 6), f"{value:.3g}", fill=(0, 0, 0), font=font, anchor="ma")
    draw.text((width // 2, height - 14), label, fill=(0, 0, 0), font=font, anchor="ma")
    save_png(np.asarray(image), path)
