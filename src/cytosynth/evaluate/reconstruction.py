"""How much of an image the autoencoder keeps (Figure 3 in numbers): PSNR of images it never saw."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from diffusers import AutoencoderKL

from ..data.image_files import Pixels
from ..data.preview import grid, save_png
from ..data.sources import Sample
from ..foundation.scratch.autoencoder import psnr, reconstruct
from ..io.progress import meter


@dataclass(frozen=True)
class Reconstruction:
    """PSNR of each image, dB, by name."""

    psnr: dict[str, float]

    def summary(self) -> dict[str, float]:
        """Return mean, median, least and greatest PSNR and the number of images."""
        values = np.array(list(self.psnr.values()))
        return {
            "pictures": len(values),
            "mean": round(float(values.mean()), 2),
            "median": round(float(np.median(values)), 2),
            "least": round(float(values.min()), 2),
            "greatest": round(float(values.max()), 2),
        }


def measure(vae: AutoencoderKL, samples: Sequence[Sample], sheet: Path | None = None) -> Reconstruction:
    """Return the PSNR of every image of `samples`; write originals above reconstructions to `sheet`."""
    scores: dict[str, float] = {}
    shown: list[tuple[Pixels, Pixels]] = []
    with meter("reconstructing", len(samples)) as bar:
        for sample in samples:
            width, height = (side // 8 * 8 for side in sample.size)
            pixels = np.ascontiguousarray(sample.pixels[:height, :width])
            output = reconstruct(vae, pixels)
            scores[sample.name] = psnr(pixels, output)
            if len(shown) < 4:
                shown.append((pixels, output))
            bar.advance(f"{scores[sample.name]:.1f} dB")
    if sheet is not None:
        save_png(grid([a for a, _ in shown] + [b for _, b in shown], columns=len(shown)), sheet)
    return Reconstruction(scores)


def validation(vae: AutoencoderKL, samples: Sequence[Sample], sheet: Path) -> dict[str, float]:
    """Return the summary of `measure`: for `train_autoencoder`."""
    return measure(vae, samples, sheet).summary()
