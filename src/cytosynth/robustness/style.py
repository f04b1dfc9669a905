"""Whether a style brings generated images nearer to a centre: distance and a linear probe, before and after.

The fields of the style and the fields for comparison are different images, and of different slides if these are known.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..annotations import Cell
from ..data.image_files import Pixels
from ..detection.external import Finder
from ..errors import UserError
from ..evaluate import probe
from ..evaluate.networks.extractor import Extractor
from ..evaluate.statistics import estimates, members
from ..io.progress import meter
from ..io.report import Report, Value
from ..variation.style import Style, restyled
from .measures import called

Features = NDArray[np.float64]
NONE = np.zeros((0, 4))


@dataclass(frozen=True)
class Group:
    """Images with the group of each: slide, or image; windows of one group are not independent."""

    images: Sequence[Pixels]
    groups: Sequence[str]


@dataclass(frozen=True)
class Windows:
    """Features of windows (n, dimension) and the group of each."""

    features: Features
    groups: Sequence[str]


@dataclass(frozen=True)
class Cells:
    """The annotated cells of the generated images, and a detector that classifies them.

    Attributes:
        truth: by image.
        finder: that knows their categories.
        threshold: score from which a detection counts.
    """

    truth: Sequence[Sequence[Cell]]
    finder: Finder
    threshold: float = 0.3


def measure(
    generated: Group, style: Group, reference: Group, extractor: Extractor, side: int, draws: int, seed: int,
    cells: Cells | None = None,
) -> Report:  # fmt: skip
    """Return how far `generated` images lie from `reference` before and after they take the style of `style`.

    Distances are the unbiased kernel distance (KID) between features of windows of `side` pixels. The share of the gap
    closed is (before - after) / (before - floor), where the floor is the distance of the style's own fields. With
    `cells`, also how many a detector calls by their category before and after. Raises UserError if style and
    reference share a group, which would measure copying.
    """
    both = set(style.groups) & set(reference.groups)
    if both:
        raise UserError(f"{min(both)[:80]}: is used both for the style and for the comparison; give different images")
    taken = Style.of(list(style.images)[:: max(1, len(style.images) // 50)][:50])
    after = []
    with meter("restyling", len(generated.images)) as bar:
        for number, (pixels, name) in enumerate(zip(generated.images, generated.groups, strict=True)):
            after.append(restyled(pixels, NONE, taken, 0.49, seed, f"{name}#{number}")[0].pixels)
            bar.advance()
    sets = [
        windows(Group(images, groups), extractor, side)
        for images, groups in (
            (generated.images, generated.groups), (after, generated.groups), (style.images, style.groups),
            (reference.images, reference.groups),
        )
    ]  # fmt: skip
    named = agreement(cells, generated, after, draws, seed) if cells else []
    return _report(sets, extractor, side, draws, seed, named)


def halves(group: Group) -> tuple[Group, Group]:
    """Return two parts of `group` that share no slide or image: these are assigned alternately, by name.

    Raises UserError if there is only one.
    """
    names = sorted(set(group.groups))
    if len(names) < 2:
        raise UserError(f"{names[0][:80]}: all fields are of one slide or image; two are needed to divide them")

    def part(number: int) -> Group:
        own = set(names[number::2])
        chosen = [index for index, name in enumerate(group.groups) if name in own]
        return Group([group.images[index] for index in chosen], [group.groups[index] for index in chosen])

    return part(0), part(1)


def agreement(
    cells: Cells, generated: Group, after: Sequence[Pixels], draws: int, seed: int
) -> list[tuple[Value, ...]]:
    """Return how many annotated cells a detector calls by their category, before and after, and the difference."""
    calls = []
    for name, images in (("before", generated.images), ("after", after)):
        shown = zip(generated.groups, images, strict=True)
        found = cells.finder.find_all(shown, len(images), cells.threshold, name)
        calls.append(called(cells.truth, found, cells.threshold))
    right = [
        np.array([[first == c.category, second == c.category, 1] for c, first, second in zip(*image, strict=True)])
        for image in zip(cells.truth, *calls, strict=True)
        if image[0]
    ]
    counts = np.array([one.sum(axis=0) for one in right], dtype=np.float64)

    def shares(chosen: NDArray[np.int64]) -> list[float]:
        first, second, total = counts[chosen].sum(axis=0)
        return [first / total, second / total, (second - first) / total]

    right_shares = estimates(shares, [range(len(counts))], draws, seed, centred=False)
    titles = ("called by their category, before", "called by their category, after", "difference")
    return [
        (f"cells {title} ({int(counts[:, 2].sum())})", str(estimate))
        for title, estimate in zip(titles, right_shares, strict=True)
    ]


def windows(images: Group, extractor: Extractor, side: int) -> Windows:
    """Return features of all windows of `side` pixels side by side; raise UserError if images are smaller."""
    cut, groups = [], []
    for pixels, group in zip(images.images, images.groups, strict=True):
        height, width = pixels.shape[:2]
        for y in range(0, height - side + 1, side):
            for x in range(0, width - side + 1, side):
                cut.append(pixels[y : y + side, x : x + side])
                groups.append(group)
    if not cut:
        raise UserError(f"no image of at least {side} x {side} pixels; set a smaller window")
    found = []
    with meter("features", len(cut)) as bar:
        for start in range(0, len(cut), 16):
            part = np.stack(cut[start : start + 16])
            found.append(extractor(part))
            bar.advance(amount=len(part))
    return Windows(np.concatenate(found).astype(np.float64), groups)


def kernel_distance(a: Features, b: Features) -> float:
    """Return the unbiased squared maximum mean discrepancy with the cubic kernel of KID (Bińkowski et al. 2018)."""
    n, m, d = len(a), len(b), a.shape[1]
    own_a, own_b, across = ((x @ y.T / d + 1) ** 3 for x, y in ((a, a), (b, b), (a, b)))
    within = (own_a.sum() - np.trace(own_a)) / (n * (n - 1)) + (own_b.sum() - np.trace(own_b)) / (m * (m - 1))
    return float(within - 2 * across.mean())


def separation(a: Windows, b: Windows, draws: int) -> str:
    """Return the area under the curve of a linear probe that separates `a` from `b`, with its interval.

    No group is in both. '-' where there are too few groups for it.
    """
    features = np.concatenate([a.features, b.features])
    groups = [*(f"a {name}" for name in a.groups), *(f"b {name}" for name in b.groups)]
    found = probe.probe(features, np.arange(len(features)) >= len(a.features), groups)
    return str(probe.separation([found], groups, draws) or "-")


def _report(
    sets: Sequence[Windows], extractor: Extractor, side: int, draws: int, seed: int, named: Sequence[tuple[Value, ...]]
) -> Report:
    before, after, own, reference = sets

    def values(*chosen: NDArray[np.int64]) -> list[float]:
        parts = [one.features[indices] for one, indices in zip(sets, chosen, strict=True)]
        far, near, floor = (kernel_distance(one, parts[3]) for one in parts[:3])
        return [far, near, floor, (far - near) / (far - max(floor, 0.0))]

    moved = (True, True, True, False)  # not the ratio: repeated images raise both of its sides
    found = estimates(values, [one.groups for one in sets], draws, seed, centred=moved)
    table: list[tuple[Value, ...]] = [
        (f"{extractor.kernel}, before", str(found[0])), (f"{extractor.kernel}, after", str(found[1])),
        (f"{extractor.kernel}, floor: the style's fields", str(found[2])), ("share of the gap closed", str(found[3])),
        ("linear probe, before", separation(before, reference, draws)),
        ("linear probe, after", separation(after, reference, draws)),
        ("linear probe, floor", separation(own, reference, draws)),
        *named,
    ]  # fmt: skip
    facts = {
        "windows of generated images": len(before.features), "windows of the style": len(own.features),
        "windows of reference images": len(reference.features), "images": len(members(before.groups)),
        "groups of the style": len(members(own.groups)), "groups of the reference": len(members(reference.groups)),
        "window": side, "draws": draws, "seed": seed,
    }  # fmt: skip
    notes = (
        "95 % intervals from resamples of whole groups (images or slides), centred on the value, except for the share",
        "probe: area under the curve of a logistic regression on groups that it never saw; 0.5: generated and real "
        "images cannot be distinguished; its interval is of the fitted probe as it is",
        "the style changes stain, focus, noise and scale; what cells there are, and how many, it cannot change",
    )
    return Report("Style of a centre", facts, ("measure", "value"), tuple(table), notes)


def grouped(files: Sequence[tuple[str, Path]], separator: str | None) -> list[str]:
    """Return the group of each of `files`: its name, or the part before `separator`, which names the slide."""
    return [name.split(separator)[0] if separator else name for name, _ in files]
