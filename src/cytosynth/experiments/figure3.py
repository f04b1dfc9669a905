"""Figure 3: how well the autoencoder preserves normal and abnormal cells, as an image and as PSNR and SSIM."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from skimage.metrics import structural_similarity

from ..bethesda import NILM
from ..data import sources
from ..data.image_files import Pixels
from ..data.sources import Sample, Source
from ..devices import available
from ..errors import UsageError, UserError
from ..evaluate import sheet
from ..evaluate.statistics import Estimate, estimates
from ..foundation.load import load
from ..foundation.scratch.sharpness import psnr, reconstruct
from ..io.progress import meter
from ..io.report import Report

KINDS = ("normal", "abnormal")
SHOWN = 4
"""Windows of each kind in the image."""


@dataclass(frozen=True)
class Kept:
    """A window before and after the autoencoder, their similarity, and the image of the window."""

    original: Pixels
    output: Pixels
    psnr: float
    ssim: float
    image: str


def figure3(
    source: Source,
    data_root: Path,
    out: Path,
    foundation: str,
    window: int = 256,
    draws: int = 1000,
    device: str = "cpu",
) -> Report:
    """Write `figure3.png`, `.json`, `.md` and `.csv` into `out`; return the table.

    Args:
        source: real images that the autoencoder was not trained on.
        data_root: folder above `source`.
        out: folder.
        foundation: whose autoencoder.
        window: side of the windows, pixels; abnormal ones are centred on an annotated cell, none overlap.
        draws: bootstrap resamples of whole images behind the intervals.
        device: where the autoencoder runs.

    Raises UsageError for a `window` that is not a multiple of the autoencoder's factor, UserError if there is no window
    of one kind.
    """
    model = load(foundation, denoiser="unused").freeze().to(available(device))
    vae, factor = model.vae, model.factor
    if window % factor:
        near = f"{window // factor * factor} or {-(-window // factor) * factor}"
        raise UsageError(f"--window {window}: must be a multiple of {factor}, as {near}")
    kept: dict[str, list[Kept]] = {kind: [] for kind in KINDS}
    samples = sources.load([source], data_root)
    with meter("reconstructing", len(samples)) as bar:
        for sample in samples:
            for kind, corner in places(sample, window):
                x, y = corner
                original = np.ascontiguousarray(sample.pixels[y : y + window, x : x + window])
                output = reconstruct(vae, original)
                scores = psnr(original, output), ssim(original, output)
                kept[kind].append(Kept(original, output, *scores, f"{sample.source}/{sample.name}"))
            bar.advance()
    for kind, found in kept.items():
        if not found:
            raise UserError(f"{data_root / source.root}: no {kind} window of {window} pixels in part '{source.split}'")
    rows = []
    for kind, found in kept.items():
        for measure in ("psnr", "ssim"):
            value = interval([getattr(entry, measure) for entry in found], [entry.image for entry in found], draws)
            rows.append((kind, measure.upper(), *value, len(found), len({entry.image for entry in found})))
    report = Report(
        "Figure 3: what the autoencoder preserves",
        {"foundation": foundation, "real": source.root, "part": source.split, "scale": source.scale, "window": window},
        ("windows", "measure", "mean", "low", "high", "windows in all", "images"), tuple(rows),
        ("PSNR in dB; SSIM over 7x7 pixels; low and high: 95 % interval from resampling whole images",),
    )  # fmt: skip
    report.write(out, "figure3")
    shown = [entry for kind in KINDS for entry in _typical(kept[kind])]
    tiles = [(entry.original, "original") for entry in shown]
    tiles += [(entry.output, f"{entry.psnr:.1f} dB, SSIM {entry.ssim:.2f}") for entry in shown]
    sheet.write(out / "figure3.png", tiles, columns=len(shown))
    return report


def places(sample: Sample, window: int) -> list[tuple[str, tuple[int, int]]]:
    """Return kind and (x, y) corner of windows of `sample` that do not overlap: about abnormal cells, then the rest.

    A window of the rest is normal when no abnormal cell has its centre in it, and is left out otherwise.
    """
    width, height = sample.size
    centres = [cell.centre for cell in sample.cells if cell.category != NILM]
    taken: list[tuple[int, int]] = []
    found = []
    for x, y in centres:
        corner = tuple(min(max(round(m - window / 2), 0), e - window) for m, e in ((x, width), (y, height)))
        if min(corner) >= 0 and _free((corner[0], corner[1]), taken, window):
            taken.append((corner[0], corner[1]))
            found.append(("abnormal", taken[-1]))
    for y0 in range(0, height - window + 1, window):
        for x0 in range(0, width - window + 1, window):
            inside = any(x0 <= x <= x0 + window and y0 <= y <= y0 + window for x, y in centres)
            if not inside and _free((x0, y0), taken, window):
                taken.append((x0, y0))
                found.append(("normal", taken[-1]))
    return found


def ssim(a: Pixels, b: Pixels) -> float:
    """Return the structural similarity of two (height, width, 3) images (Wang et al. 2004, scikit-image's)."""
    return float(structural_similarity(a, b, channel_axis=2, data_range=255))


def interval(values: Sequence[float], images: Sequence[str], draws: int) -> Estimate:
    """Return the mean of `values` and its 95 % interval under resampling of whole `images`."""
    numbers = np.asarray(values)
    return estimates(lambda chosen: [float(numbers[chosen].mean())], [images], draws)[0]


def _typical(found: Sequence[Kept]) -> list[Kept]:
    """Return `SHOWN` windows of evenly spread rank by PSNR, so that the image is not of the best alone."""
    ordered = sorted(found, key=lambda entry: entry.psnr)
    return [ordered[int(index)] for index in np.linspace(0, len(ordered) - 1, min(SHOWN, len(ordered)))]


def _free(corner: tuple[int, int], taken: Sequence[tuple[int, int]], window: int) -> bool:
    return all(max(abs(corner[0] - x), abs(corner[1] - y)) >= window for x, y in taken)
