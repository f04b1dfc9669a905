"""The distance of generated images to real ones, compared with that of real ones to each other (Table I)."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..data.image_files import Pixels
from ..errors import UserError
from ..io.progress import console
from ..io.report import Report
from . import distance, sheet
from .image_set import ImageSet
from .networks.extractor import Extractor, Features
from .networks.features import cached
from .statistics import Estimate

ENOUGH = 2048
"""Number of images below which a Fréchet distance of 2048 dimensions is unreliable."""
FEWEST = 10
NEIGHBOURS = 5
COLUMNS = (
    "features", "measure", "better", "generated", "generated low", "generated high",
    "floor", "floor low", "floor high", "n",
)  # fmt: skip


class _Set(NamedTuple):
    """The images of one side of a comparison with their features."""

    images: ImageSet
    features: Features


def compare(
    generated: ImageSet,
    real: ImageSet,
    extractors: Sequence[Extractor],
    cache: Path,
    *,
    count: int | None = None,
    seed: int = 0,
    draws: int = 100,
    sheets: Path | None = None,
) -> Report:
    """Return fidelity and diversity of `generated` images against `real` ones, with the real-vs-real floor.

    The real set is divided in two halves that share no image (or slide). Generated images are compared with the
    first half, and the second half with the first: three sets of the same number of images, as many as each has.

    Args:
        generated: images to measure. real: images to compare with.
        extractors: feature networks; the first one also chooses the images of the sheets.
        cache: folder of the features.
        count: maximum number of images in each of the three sets. seed: of halves, choices and resampling. draws:
        bootstrap resamples for the interval of a Fréchet distance; 0: no interval.
        sheets: folder for `least_real.png` and `least_covered.png`.

    Raises UserError when fewer than 10 images would be compared.
    """
    rng = np.random.default_rng(seed)
    first, second = real.halves(rng)
    number = min(len(generated), len(first), len(second), *([count] if count else []))
    if number < FEWEST:
        raise UserError(
            f"{number} images a side ({len(generated)} generated, {len(real)} real in two halves of whole images); "
            f"at least {FEWEST} are needed; cut each image into several with --window"
        )
    sides = [images.sample(number, rng) for images in (generated, first, second)]
    rows: list[tuple[str | float | int | None, ...]] = []
    for extractor in extractors:
        made, reference, other = (_Set(images, cached(extractor, images, cache)) for images in sides)
        measured = _measures(extractor, made, reference, draws, seed)
        floor = _measures(extractor, other, reference, draws, seed)
        for (measure, better, value), (_, _, least) in zip(measured, floor, strict=True):
            rows.append((extractor.name, measure, better, *value, *least, number))
        if sheets and extractor is extractors[0]:
            _write_sheets(made, reference, sheets)
    warnings = tuple(_warnings(generated, real, number))
    for warning in warnings:
        console.print(f"warning: {warning}", soft_wrap=True)
    facts = {
        "generated": generated.source, "generated_images": len(generated), "real": real.source,
        "real_images": len(real), "images_a_side": number, "scale_of_real": real.scale,
        "extractors": {extractor.name: extractor.digest for extractor in extractors}, "seed": seed,
        "resamplings": draws, "neighbours": NEIGHBOURS,
    }  # fmt: skip
    title = f"{generated.source} against {real.source}: {number} generated, {number} real and {number} other real"
    return Report(title, facts, COLUMNS, tuple(rows), (*_reading(number), *warnings))


def _measures(
    extractor: Extractor, generated: _Set, real: _Set, draws: int, seed: int
) -> Iterator[tuple[str, str, Estimate]]:
    """Yield name, better direction and estimate of each measure of `generated` against `real`."""
    a, b = generated.features, real.features
    spread = distance.frechet_interval(a, b, generated.images.groups, real.images.groups, draws, seed) if draws else ()
    yield extractor.frechet, "lower", Estimate(distance.frechet(a, b), *spread)
    kernel = distance.kid(a, b, seed=seed)
    yield extractor.kernel, "lower", Estimate(kernel.mean, *kernel.interval)
    manifold = distance.prdc(a, b, NEIGHBOURS)
    for name, value in manifold._asdict().items():
        yield name, "higher", Estimate(value)


def _warnings(generated: ImageSet, real: ImageSet, number: int) -> Iterator[str]:
    if number < ENOUGH:
        yield (
            f"{number} images a side, fewer than {ENOUGH:,}: Fréchet distances are too high by an unknown amount and "
            "not comparable with those at another number; compare with the floor"
        )
    for images in (generated, real):
        if images.lossy:
            yield (
                f"{images.source}: {images.lossy} of {images.files} files are JPEG or WebP; compression affects "
                "all of these measures"
            )
    if len(generated.sizes | real.sizes) > 1:
        yield "the images differ in size, and so perhaps in field of view; --window N cuts all to N x N pixels"


def _reading(number: int) -> Iterator[str]:
    yield (
        "floor: distance between two halves of the real images, at the same number of images; no generator can "
        "be expected to do better"
    )
    yield (
        "low and high: for a Fréchet distance the 95 % interval from resampling whole images; for a kernel distance "
        f"the middle 95 % of 100 subsets of {min(1000, number // 2)} images"
    )


def _write_sheets(made: _Set, reference: _Set, folder: Path) -> None:
    """Write the generated images furthest from any real one, and the real ones furthest from any generated."""
    for name, ours, theirs in (("least_real", made, reference), ("least_covered", reference, made)):
        _, distances = distance.nearest(ours.features, theirs.features)
        worst = np.argsort(-distances)[:16]
        shown: list[tuple[Pixels, str]] = [
            (ours.images[int(index)], f"{ours.images.windows[index].name} {distances[index]:.3g}") for index in worst
        ]
        sheet.write(folder / f"{name}.png", shown, columns=4)
