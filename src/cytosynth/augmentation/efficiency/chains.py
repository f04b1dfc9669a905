"""Nested subsets of a lab's images: a chain is one random order, and each of its subsets contains the smaller ones."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ...annotations import DataSet, Image
from ...data import file_names
from ...data.formats import coco, findings
from ...data.sources import Source
from ...errors import UsageError
from ...io import atomic
from ...provenance import said, write_records

FOLDER = "subsets"


def draw(images: Sequence[Image], sizes: Sequence[int], seed: int) -> dict[int, list[Image]]:
    """Return the subset of each of `sizes` of one chain, those of smaller ones within those of larger ones.

    Each has normal images (all cells NILM) in the same proportion as the whole, at least one, and at least one image
    with abnormal cells. Raises UsageError if there are too few images for a size.
    """
    if max(sizes) > len(images):
        raise UsageError(f"sizes: {max(sizes)} images requested, but there are only {len(images)}")
    kinds: tuple[list[Image], list[Image]] = ([], [])
    for image in images:
        kinds[not image.normal].append(image)
    normal, abnormal = kinds
    if not normal or not abnormal:
        raise UsageError("real: images both with and without abnormal cells are needed for the subsets")
    rng = np.random.default_rng([seed, 71])
    orders = [[kind[index] for index in rng.permutation(len(kind))] for kind in kinds]
    found = {}
    for size in sizes:
        least = max(1, size - len(abnormal))
        number = min(max(round(size * len(normal) / len(images)), least), len(normal), size - 1)
        found[size] = orders[0][:number] + orders[1][: size - number]
    return found


def subset(
    source: Source,
    sizes: Sequence[int],
    place: tuple[int, int],
    seed: int,
    run: Path,
    data_root: Path,
    without: frozenset[str] = frozenset(),
) -> Path:
    """Return the folder of the data set of a chain and N (`place`), which is made in `run` if missing.

    A subset of all images is shared by all chains.

    Args:
        source: the images that subsets are sampled from, except those named in `without`.
        sizes: of all subsets of the chain.
        place: number of the chain, and N.
        seed: of the first chain.
        run: folder.
        data_root: that `source` is below.
        without: file names.
    """
    chain, size = place
    data = source.read(data_root, findings.ignore)
    images = [image for image in source.chosen(data, data_root) if image.file_name not in without]
    name = "all" if size == len(images) else f"chain-{chain}/n-{size}"
    out = run / FOLDER / name
    if not (out / coco.FILE).exists():
        chosen = list(images) if name == "all" else draw(images, sizes, seed + chain)[size]
        write(data, chosen, out)
    return out


def write(data: DataSet, chosen: Sequence[Image], out: Path) -> None:
    """Write the images `chosen` of `data`, the same bytes, with their cells as the data set `out`."""
    known = said(data.folder.parent)
    with atomic.folder(out) as part:
        for image in chosen:
            content = file_names.inside(data.folder, image.file_name).read_bytes()
            atomic.write_bytes(part / "images" / image.file_name, content)
        names = {image.file_name for image in chosen}
        records = [record for name, record in sorted(known.items()) if name in names]
        if records:
            write_records(part, records)
        coco.write(DataSet(part / "images", tuple(chosen), data.categories, data.licences, data.info), part)
