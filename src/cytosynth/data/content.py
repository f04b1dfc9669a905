"""The content of the data of a run, as a digest, so that a continued run never mixes results of two data sets."""

import json
from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256
from pathlib import Path

import numpy as np

from ..config import pin
from .sources import Sample

FILE = "data.json"
"""The digests of the data with which a run was started."""


def digest(samples: Iterable[Sample]) -> str:
    """Return 16 hexadecimal digits that identify `samples`: names, pixels, cells and labels, in their order."""
    whole = sha256()
    for sample in samples:
        pixels = np.ascontiguousarray(sample.pixels)
        whole.update(_said(sample, pixels.shape))
        whole.update(pixels.data)
    return whole.hexdigest()[:16]


def listing(samples: Iterable[Sample]) -> str:
    """Return 16 hexadecimal digits that identify names, sizes, cells and labels of `samples`; no pixels are read."""
    whole = sha256()
    for sample in samples:
        whole.update(_said(sample, sample.size))
    return whole.hexdigest()[:16]


def _said(sample: Sample, shape: Sequence[int]) -> bytes:
    cells = [[*map(float, cell.box), cell.category, cell.crowd] for cell in sample.cells]
    return json.dumps([sample.name, shape, cells, sample.label]).encode()


def of_keys(keys: Iterable[str]) -> str:
    """Return 16 hexadecimal digits that identify images with these `keys` of their content, in their order."""
    return sha256(" ".join(keys).encode()).hexdigest()[:16]


def pinned(digests: Mapping[str, str], run: Path, begun: bool = True) -> None:
    """Note the `digests` of the data in the folder `run`, by what they are of ('images').

    Raises UsageError if it was started with other data and has `begun`. Names that are not noted there, as earlier
    versions noted fewer, are not compared.
    """

    def differs(old: Mapping[str, str], new: Mapping[str, str]) -> str:
        return next((f"other {name} or boxes" for name, value in new.items() if old.get(name, value) != value), "")

    pin(digests, run / FILE, differs, begun)
