"""How well an autoencoder preserves images that it was not trained on (Figure 3 in numbers)."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL

from ..cell import close_up
from ..data.image_files import Pixels
from ..data.preview import grid, save_png
from ..data.sources import Sample
from ..errors import UserError
from ..foundation.pixels import scale_factor, whole
from ..foundation.scratch.sharpness import OCTAVES, Sharpness, compare, distance, reconstruct
from ..io.progress import meter
from ..io.report import Report, Value
from .distance import kid
from .networks import features
from .networks.extractor import Extractor

WINDOW = 224
"""Side of the windows whose features are compared, pixels."""
LEAST = 8
"""Windows of all images together."""
HALVINGS = 20
"""Random halvings of the images behind a kernel distance."""
DECODED = 1024
"""Side of the image whose decoding is timed, pixels."""
NOTES = (
    "zoom: images are enlarged by it before they are encoded, and reduced after they are decoded, as in stage 2.",
    "gradient: mean magnitude of the brightness gradient, relative to the originals.",
    "octave: power in each octave of the spectrum, relative to the originals, from coarse (1) to fine.",
    "fine: correlation with the original of the detail that a Gaussian of 2 pixels removes; noise would have none.",
    "kernel distance x 1000 of windows of one half of the images, reconstructed, to those of the other half, mean over "
    "random halvings; real: the same of the originals.",
    "seconds: decoding 1024x1024 pixels in float32, and in bfloat16 with channels last; the faster of two runs.",
)


@dataclass(frozen=True)
class Reconstruction:
    """The reconstruction of each image by an autoencoder.

    Attributes:
        sharpness: by name of the image.
        originals: (height, width, 3) pixels, sides cut to multiples of the scale factor.
        outputs: the same, encoded and decoded.
    """

    sharpness: dict[str, Sharpness]
    originals: list[Pixels]
    outputs: list[Pixels]

    def summary(self) -> dict[str, float]:
        """Return mean, median, least and greatest PSNR and the number of images."""
        values = np.array([one.psnr for one in self.sharpness.values()])
        return {
            "images": len(values),
            "mean": round(float(values.mean()), 2),
            "median": round(float(np.median(values)), 2),
            "least": round(float(values.min()), 2),
            "greatest": round(float(values.max()), 2),
        }


def measure(
    vae: AutoencoderKL, samples: Sequence[Sample], sheet: Path | None = None, zoom: float = 1.0
) -> Reconstruction:
    """Return the reconstruction of `samples` by `vae`; write originals above reconstructions to `sheet`.

    With a `zoom` images are enlarged before they are encoded and reduced after, as close-ups are (`cell.close_up`).
    """
    kept, originals, outputs = dict[str, Sharpness](), list[Pixels](), list[Pixels]()
    with meter("reconstructing", len(samples)) as bar:
        for sample in samples:
            width, height = (whole(side, vae) for side in sample.size)
            originals.append(np.ascontiguousarray(sample.pixels[:height, :width]))
            large = close_up.enlarged(
                originals[-1], (whole(round(width * zoom), vae), whole(round(height * zoom), vae))
            )
            outputs.append(close_up.reduced(reconstruct(vae, large), (width, height)))
            kept[sample.name] = compare(originals[-1], outputs[-1])
            bar.advance(f"{kept[sample.name].psnr:.1f} dB")
    if sheet is not None:
        shown = min(4, len(samples))
        save_png(grid(originals[:shown] + outputs[:shown], columns=shown), sheet)
    return Reconstruction(kept, originals, outputs)


def validation(vae: AutoencoderKL, samples: Sequence[Sample], sheet: Path) -> dict[str, float]:
    """Return the summary of `measure`: for `train_autoencoder`."""
    return measure(vae, samples, sheet).summary()


def evaluate(
    autoencoders: Mapping[str, AutoencoderKL],
    samples: Sequence[Sample],
    facts: Mapping[str, object],
    network: str = "efficientnet-lite0",
    timed: bool = False,
    sheets: Path | None = None,
    zooms: Sequence[float] = (1.0,),
    device: str = "cpu",
) -> Report:
    """Return the table of `autoencoders`, by name, on the same `samples`.

    Args:
        autoencoders: in evaluation mode.
        samples: images that none of them was trained on.
        facts: needed for a repetition. network: whose features are compared; must not be part of the autoencoders'
        losses. timed: also decode an image of 1024x1024 pixels and measure the time.
        sheets: folder for a PNG each, originals above reconstructions.
        zooms: factors by which images are enlarged before they are encoded, a row each.
        device: where the feature network runs; autoencoders run where they are.

    Raises UserError for images too few or too small for a kernel distance.
    """
    extractor = features.load(network, device=device)
    rows: list[tuple[Value, ...]] = []
    for (name, vae), zoom in product(autoencoders.items(), zooms):
        file = f"reconstruction_{name}.png" if zoom == 1 else f"reconstruction_{name}_{zoom:g}.png"
        found = measure(vae, samples, sheets / file if sheets else None, zoom)
        each = np.array([[one.psnr, one.gradient, one.fine, *one.power] for one in found.sharpness.values()])
        mean = [float(value) for value in each.mean(axis=0)]
        made, real = kernel_distances(found.originals, found.outputs, extractor)
        seconds: list[Value] = [*decoding(vae)] if timed else [None, None]
        config = vae.config
        off = distance(list(found.sharpness.values()))
        rows.append(
            (name, zoom, scale_factor(vae), config.latent_channels, mean[0], mean[1], *mean[3:], off, mean[2],
             1000 * made, 1000 * real, *seconds)
        )  # fmt: skip
    octaves = [f"octave {number}" for number in range(1, OCTAVES + 1)]
    return Report(
        "What the autoencoder preserves",
        {**facts, "images": len(samples), "features": extractor.title, "digest": extractor.digest},
        ("autoencoder", "zoom", "factor", "C", "PSNR, dB", "gradient", *octaves, "octaves off", "fine",
         "kernel distance", "real", "float32, s", "bfloat16, s"),
        tuple(rows),
        NOTES,
    )  # fmt: skip


def kernel_distances(
    originals: Sequence[Pixels], outputs: Sequence[Pixels], extractor: Extractor, seed: int = 0
) -> tuple[float, float]:
    """Return the kernel distance of reconstructions, and of originals, of one half of the images to the other half.

    Never of an image to its own reconstruction, which would be nearer than two different images.
    """
    groups = [index for index, image in enumerate(originals) for _ in windows(image)]
    if len(groups) < LEAST or len(originals) < 2:
        raise UserError(
            f"{len(originals)} images with {len(groups)} windows of {WINDOW} pixels; a kernel distance between halves "
            f"needs two images and {LEAST} windows"
        )
    real = extractor([window for image in originals for window in windows(image)])
    made = extractor([window for image in outputs for window in windows(image)])
    rng, found = np.random.default_rng(seed), []
    for _ in range(HALVINGS):
        half = set(rng.permutation(len(originals))[: len(originals) // 2].tolist())
        first = np.array([group in half for group in groups])
        size = int(min(first.sum(), (~first).sum()))
        found.append([
            kid(one[first], real[~first], subsets=1, subset_size=size, seed=seed).mean for one in (made, real)
        ])  # fmt: skip
    reconstructed, floor = np.mean(found, axis=0)
    return float(reconstructed), float(floor)


def windows(image: Pixels) -> list[Pixels]:
    """Return the windows of `WINDOW` pixels that cover (height, width, 3) `image` from its corner on."""
    height, width = (extent // WINDOW * WINDOW for extent in image.shape[:2])
    return [
        image[y : y + WINDOW, x : x + WINDOW] for y in range(0, height, WINDOW) for x in range(0, width, WINDOW)
    ]  # fmt: skip


@torch.no_grad()
def decoding(vae: AutoencoderKL) -> tuple[float, float]:
    """Return the seconds in which `vae` decodes 1024x1024 pixels: float32, and bfloat16 with channels last."""
    side, generator = DECODED // scale_factor(vae), torch.Generator().manual_seed(0)
    latents = torch.randn(1, vae.config.latent_channels, side, side, generator=generator).to(vae.device)
    plain = min(_seconds(vae, latents) for _ in range(2))
    narrow = AutoencoderKL.from_config(vae.config).eval()
    narrow.to(vae.device, torch.bfloat16, memory_format=torch.channels_last)
    latents = latents.to(torch.bfloat16, memory_format=torch.channels_last)
    return plain, min(_seconds(narrow, latents) for _ in range(2))


def _seconds(vae: AutoencoderKL, latents: torch.Tensor) -> float:
    started = time.monotonic()
    vae.decode(latents).sample[0, 0, 0, 0].item()  # which waits for a GPU
    return time.monotonic() - started
