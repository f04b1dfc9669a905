"""Whether generated images are copies of training images, measured against new real images."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest

from ..data import augment
from ..data.image_files import Pixels
from ..errors import UserError
from ..io.report import Report, Value, write_csv
from . import align, distance, sheet
from .image_set import ImageSet
from .networks.extractor import Extractor
from .networks.features import cached
from .statistics import middle, resamples

LEVEL = 0.01
"""Share of new real images that may count as copies."""
SHOWN = 8
COLUMNS = (
    "measure", "limit", "copies", "share", "share low", "share high", "held-out share", "nearer than held-out",
    "nearer low", "nearer high", "generated", "held-out",
)  # fmt: skip


class Nearest(NamedTuple):
    """The nearest training image of each generated and of each held-out one, by one measure.

    Attributes:
        name: of the measure.
        generated: distance of each generated image to the training set.
        held_out: the same of real images that were not trained on.
    """

    name: str
    generated: NDArray[np.float64]
    held_out: NDArray[np.float64]


def measure(
    generated: ImageSet,
    training: ImageSet,
    held_out: ImageSet,
    extractor: Extractor,
    cache: Path,
    *,
    count: int | None = None,
    seed: int = 0,
    draws: int = 1000,
    out: Path | None = None,
) -> Report:
    """Return how many of the `generated` images are nearer to a `training` image than almost all new real ones.

    Distances are taken in the features of `extractor`, and in pixels (1 - correlation) after the best of all turns
    and shifts. A copy is an image nearer to the training set than 99 % of the `held_out` real images are.

    Args:
        generated: images to measure. training: images that their generator was trained on.
        held_out: real images of the same kind that it was not trained on.
        extractor: feature network.
        cache: folder of the features.
        count: maximum number of generated and of held-out images. seed: of their choice and of resampling. draws:
        bootstrap resamples for the interval of `nearer than held-out`. out: folder for sheets of the nearest pairs,
        histograms and `nearest.csv`.

    Raises UserError when a held-out image is a training image.
    """
    _refuse_overlap(training, held_out)
    rng = np.random.default_rng(seed)
    generated, held_out = (
        images.sample(min(len(images), count or len(images)), rng) for images in (generated, held_out)
    )
    known = cached(extractor, training, cache)
    neighbours, near = distance.nearest(cached(extractor, generated, cache), known)
    _, near_held_out = distance.nearest(cached(extractor, held_out, cache), known)
    fields = training.whole()
    places = align.search(generated, fields, extractor.device)
    baseline = align.search(held_out, fields, extractor.device)
    measures = [
        Nearest(f"features ({extractor.name})", near, near_held_out),
        Nearest("pixels", np.array([1 - p.similarity for p in places]), np.array([1 - p.similarity for p in baseline])),
    ]
    if out:
        pairs = [
            [(generated[index], training[int(neighbours[index])]) for index in np.argsort(near)[:SHOWN]],
            [_aligned(generated[index], fields, places[index]) for index in np.argsort(measures[1].generated)[:SHOWN]],
        ]
        for which, shown, file in zip(measures, pairs, ("features", "pixels"), strict=True):
            _write_pairs(which, generated, shown, out / f"worst_{file}.png")
            label = f"distance to the nearest training image, {which.name}"
            series = {"generated": which.generated, "held-out real": which.held_out}
            sheet.histogram(out / f"distances_{file}.png", series, label, limit(which.held_out))
        _write_nearest(out / "nearest.csv", generated, training, neighbours, near, fields, places)
    facts = {
        "generated": generated.source, "training": training.source, "training_windows": len(training),
        "training_images": len(fields), "held_out": held_out.source, "extractor": extractor.name,
        "extractor_digest": extractor.digest, "seed": seed, "resamplings": draws,
    }  # fmt: skip
    rows = tuple(_row(which, generated.groups, held_out.groups, draws, seed) for which in measures)
    title = f"Memorisation: {generated.source} against {training.source}"
    return Report(title, facts, COLUMNS, rows, _notes(len(held_out)))


def limit(held_out: NDArray[np.float64]) -> float:
    """Return the distance below which an image counts as a copy: at most 1 % of new real images lie there."""
    return float(np.sort(held_out)[int(LEVEL * len(held_out))])


def nearer(generated: NDArray[np.float64], held_out: NDArray[np.float64]) -> float:
    """Return the chance that a generated image is nearer to the training set than a new real one; 0.5: alike."""
    return distance.auc(-generated, -held_out)


def _row(
    which: Nearest, groups: Sequence[str], held_out_groups: Sequence[str], draws: int, seed: int
) -> tuple[Value, ...]:
    bound = limit(which.held_out)
    copies = int((which.generated < bound).sum())
    exact = binomtest(copies, len(which.generated)).proportion_ci(method="exact")
    chosen = resamples([groups, held_out_groups], draws, seed)
    low, high = map(float, middle([nearer(which.generated[ours], which.held_out[theirs]) for ours, theirs in chosen]))
    return (
        which.name, bound, copies, copies / len(which.generated), float(exact.low), float(exact.high),
        float((which.held_out < bound).mean()), nearer(which.generated, which.held_out), low, high,
        len(which.generated), len(which.held_out),
    )  # fmt: skip


def _refuse_overlap(training: ImageSet, held_out: ImageSet) -> None:
    known = set(training.whole().keys())
    for window, key in zip(held_out.whole().windows, held_out.whole().keys(), strict=True):
        if key in known:
            raise UserError(f"{window.path}: held out, and the same as a training image; give disjoint sets")


def _aligned(image: Pixels, fields: ImageSet, place: align.Place) -> tuple[Pixels, Pixels]:
    """Return the centre of `image`, rotated, and the place in the field where it was found."""
    x, y = place.corner
    found = fields[place.field][y : y + place.side, x : x + place.side]
    return augment.d4(align.centre(image), place.turn), found


def _write_pairs(which: Nearest, generated: ImageSet, pairs: Sequence[tuple[Pixels, Pixels]], path: Path) -> None:
    """Write the generated images nearest to the training set, each next to what it is near to, nearest first."""
    bound = limit(which.held_out)
    shown = []
    for index, (ours, theirs) in zip(np.argsort(which.generated), pairs, strict=False):
        value = which.generated[index]
        verdict = "copy" if value < bound else "no copy"
        shown += [(ours, generated.windows[int(index)].name), (theirs, f"training: {value:.3g}, {verdict}")]
    sheet.write(path, shown, columns=4)


def _write_nearest(
    path: Path, generated: ImageSet, training: ImageSet, neighbours: NDArray[np.int64], near: NDArray[np.float64],
    fields: ImageSet, places: Sequence[align.Place],
) -> None:  # fmt: skip
    columns = (
        "generated", "x", "y", "nearest by features", "distance", "nearest by pixels", "similarity", "turn",
        "found x", "found y",
    )  # fmt: skip
    rows = [
        (
            window.name, *window.corner, training.windows[int(neighbour)].name, float(value),
            fields.windows[place.field].name, place.similarity, place.turn, *place.corner,
        )
        for window, neighbour, value, place in zip(generated.windows, neighbours, near, places, strict=True)
    ]  # fmt: skip
    write_csv(path, columns, rows)


def _notes(held_out: int) -> tuple[str, ...]:
    return (
        f"limit: the distance that at most {LEVEL:.0%} of the {held_out} held-out real images fall short of; copies: "
        "generated images below it; share low and high: exact 95 % interval, as if images were independent",
        "nearer than held-out: the chance that a generated image lies nearer to the training set than a new real one "
        "does; 0.5: as near; low and high: 95 % interval from resampling whole images",
        f"pixels: 1 - correlation of the middle {align.PART / align.SIDE:.0%} with the best place in any training "
        f"image, over eight rotations and flips and all shifts, at {align.SIDE} pixels per image",
        *(
            [f"with {held_out} held-out images the limit is the nearest of them; nothing more precise can be said"]
            if held_out * LEVEL < 1
            else []
        ),
    )
