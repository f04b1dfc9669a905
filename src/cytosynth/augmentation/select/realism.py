"""The distance of synthetic images to the real ones: between windows, in the features of a network."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...data.sources import Source
from ...evaluate import image_set
from ...evaluate.distance import neighbourhood
from ...evaluate.networks import features
from .candidates import Candidate, SyntheticSet
from .recipe import SelectRecipe


def measure(
    recipe: SelectRecipe, sets: Sequence[SyntheticSet], candidates: Sequence[Candidate], run: Path, data_root: Path,
    device: str,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:  # fmt: skip
    """Return the distance of each candidate to the real images, and that of each real image to the others.

    An image is cut into windows; the distance of a window is the mean over its nearest real windows, that of an image
    the mean over its windows. For an edited real image the original is excluded, since it would make the distance zero.
    Features are stored in `run`/features.
    """
    weights = Path(recipe.extractor_weights) if recipe.extractor_weights else None
    extractor = features.load(recipe.extractor, weights, device)
    cache = run / "features"
    real = [_windows(source, recipe.window, data_root) for source in recipe.real]
    known = np.concatenate([features.cached(extractor, part, cache) for part in real])
    names = [w.name for part in real for w in part.windows]
    groups = [w.group for part in real for w in part.windows]
    group_of = dict(zip(names, groups, strict=True))
    wanted = {one.key: group_of.get(one.original or "", "") for one in candidates}
    own, keys = [], []
    for one in sets:
        cut = image_set.gather(one.folder, "all", 1.0, recipe.window)
        chosen = [index for index, w in enumerate(cut.windows) if f"{one.label}/{w.name}" in wanted]
        own.append(features.cached(extractor, cut.chosen(chosen), cache))
        keys += [f"{one.label}/{cut.windows[index].name}" for index in chosen]
    k = recipe.neighbours
    far = neighbourhood(np.concatenate(own), known, k, [wanted[key] for key in keys], groups)
    floor = neighbourhood(known, known, k, groups, groups)
    return _mean(far, keys, [one.key for one in candidates]), _mean(floor, groups, list(dict.fromkeys(groups)))


def _windows(source: Source, window: int, data_root: Path) -> image_set.ImageSet:
    return image_set.gather(data_root / source.root, source.split, source.scale, window)


def _mean(values: NDArray[np.float64], keys: Sequence[str], wanted: Sequence[str]) -> NDArray[np.float64]:
    """Return the mean of the `values` of each of `wanted`."""
    members: dict[str, list[float]] = {}
    for key, value in zip(keys, values, strict=True):
        members.setdefault(key, []).append(float(value))
    return np.array([np.mean(members[key]) for key in wanted])
