"""Compares made slides with real fields: `python benchmarks/slides.py FIELDS OUT SLIDE...` writes results/slides.*.

FIELDS is a folder of real images at x20 or, with --scale, of another scale; SLIDE folders of `cytosynth slide`.
"""

import argparse
import json
from pathlib import Path

import numpy as np

from cytosynth.config import read
from cytosynth.data import image_files
from cytosynth.data.gather import beside
from cytosynth.data.slides import reader
from cytosynth.evaluate.networks import features
from cytosynth.evaluate.networks.extractor import Extractor
from cytosynth.evaluate.slide import Ratio, border_distance, gradient_ratio, repetition
from cytosynth.io.report import Report
from cytosynth.slides.decode import OVERLAP, TILE
from cytosynth.slides.make import Pinned
from cytosynth.slides.windows import Plane, kept

WINDOW = 224
"""Side of the windows of which features are taken, pixels."""
LATENT = 8
"""Pixels for one of the bundled autoencoder's latents."""
MOST = 400
"""Windows of each kind whose features are computed, sampled evenly."""
BATCH = 16


def borders(folder: Path, width: int, height: int, steps: int) -> dict[str, tuple[list[int], list[int]]]:
    """Return columns and rows of the borders of the last `steps` steps' windows, and of the decoder's tiles."""
    settings = read(Pinned, folder / "settings.yaml").settings
    both = settings.pipeline
    side, _ = kept(settings.windows, both.normal.size // LATENT)
    plane = Plane.around(-(-width // LATENT), -(-height // LATENT), side)
    found: dict[str, tuple[list[int], list[int]]] = {}
    columns, rows = [], []
    steps = min(steps, both.normal.steps)
    for step in range(both.normal.steps - steps, both.normal.steps):
        corners = list(plane.windows(settings.windows, both.seed, step))
        columns += sorted({x * LATENT for x, _ in corners})
        rows += sorted({y * LATENT for _, y in corners})
    found[f"windows of the last {steps} steps" if steps > 1 else "windows of the last step"] = (columns, rows)
    tiles = []
    for pixels in (width, height):
        starts = range(0, max(1, -(-pixels // LATENT) - TILE), TILE - OVERLAP)
        tiles.append([edge * LATENT for start in starts for edge in (start, start + TILE)])
    found["tiles of the decoder"] = (tiles[0], tiles[1])
    return found


def elsewhere(width: int, height: int) -> tuple[list[int], list[int]]:
    """Return lines that are no borders: random ones, as many as a slide has borders."""
    rng = np.random.default_rng(1)
    return rng.integers(50, width - 50, 12).tolist(), rng.integers(50, height - 50, 12).tolist()


def cut(pixels: np.ndarray, columns: list[int], rows: list[int]) -> list[np.ndarray]:
    """Return windows centred on crossings and on the middles of borders."""
    height, width = pixels.shape[:2]
    half = WINDOW // 2
    middles = [(x, y) for x in columns for y in range(half, height - half, WINDOW)]
    middles += [(x, y) for y in rows for x in range(half, width - half, WINDOW)]
    inside = [(x, y) for x, y in middles if half <= x <= width - half and half <= y <= height - half]
    chosen = np.random.default_rng(2).permutation(len(inside))[:MOST]
    return [pixels[y - half : y + half, x - half : x + half] for x, y in (inside[index] for index in sorted(chosen))]


def featured(extractor: Extractor, windows: list[np.ndarray]) -> np.ndarray:
    """Return the features of `windows`, a few at a time."""
    parts = [extractor(windows[start : start + BATCH]) for start in range(0, len(windows), BATCH)]
    return np.concatenate(parts)


def main() -> None:
    """Measure and write the report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("fields", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("slides", type=Path, nargs="+")
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--limit", type=int, default=40)
    given = parser.parse_args()
    extractor = features.load("efficientnet-lite0")
    rows: list[tuple[str | int | float | None, ...]] = []
    for folder in given.slides:
        with reader.opened(folder / "slide.tif") as slide:
            width, height = slide.size
            pixels = slide.at().whole()
        for steps in (1, 6):
            for name, lines in borders(folder, width, height, steps).items():
                if steps == 6 and "tiles" in name:
                    continue
                rows.append(row(folder.name, f"gradient across {name}", gradient_ratio(pixels, *lines)))
        rows.append(row(folder.name, "gradient across random lines", gradient_ratio(pixels, *elsewhere(width, height))))
        last = next(iter(borders(folder, width, height, 1).values()))
        at_borders = cut(pixels, *last)
        grid = cut(pixels, *elsewhere(width, height))
        distance, floor = border_distance(featured(extractor, at_borders), featured(extractor, grid))
        rows.append(
            (
                folder.name,
                f"KD of {len(at_borders)} windows at borders to {len(grid)} at random",
                distance,
                None,
                None,
                None,
            )
        )
        rows.append((folder.name, "KD of the two halves of those at random", floor, None, None, None))
        rows.append((folder.name, *near("windows of the slide", extractor, [pixels])))
    real = [image_files.read(path, given.scale) for _, path in beside(given.fields)[0][: given.limit]]
    ratios = [gradient_ratio(image, *elsewhere(image.shape[1], image.shape[0])) for image in real]
    values = [ratio.value for ratio in ratios]
    rows.append((given.fields.name, "gradient across random lines, mean over images", float(np.mean(values)),
                 float(np.percentile(values, 2.5)), float(np.percentile(values, 97.5)), len(values)))  # fmt: skip
    rows.append((given.fields.name, *near("windows of real images", extractor, real)))
    Report(
        "Made slides",
        {"extractor": extractor.digest, "real fields": given.fields.name, "images": len(real), "scale": given.scale},
        ("of", "measure", "value", "low", "high", "n"),
        tuple(rows),
        (
            "A gradient is the mean absolute difference across a line over that across lines 4 to 40 pixels beside it; "
            "low and high are its 95 % bootstrap interval over pieces of 128 pixels (of real images: over images).",
            "Nearest: median distance of a window of 224 pixels to the nearest other one, in features; "
            "low and high are the 5th and 95th percentile.",
        ),
    ).write(given.out, "slides_borders")
    print(json.dumps(rows, indent=1))


def row(of: str, name: str, ratio: Ratio) -> tuple[str | int | float | None, ...]:
    """Return a row of a gradient ratio."""
    return of, name, ratio.value, ratio.interval.low, ratio.interval.high, ratio.pieces


def near(name: str, extractor: Extractor, images: list[np.ndarray]) -> tuple[str | int | float | None, ...]:
    """Return the nearest-other distances of windows that do not overlap."""
    windows = [
        image[y : y + WINDOW, x : x + WINDOW]
        for image in images
        for y in range(0, image.shape[0] - WINDOW + 1, WINDOW)
        for x in range(0, image.shape[1] - WINDOW + 1, WINDOW)
    ]
    some = [windows[index] for index in np.random.default_rng(0).permutation(len(windows))[:200]]
    found = repetition(featured(extractor, some))
    low, middle, high = np.percentile(found, (5, 50, 95))
    return f"nearest of {len(some)} {name}", float(middle), float(low), float(high), len(some)


if __name__ == "__main__":
    main()
