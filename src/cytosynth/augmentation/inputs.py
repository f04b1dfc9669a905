"""The data of a run: digests, so that a later call with other data is detected."""

import json
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path

from ..data import file_names, image_files, split, streaming
from ..data.formats import coco, findings
from ..data.read import read
from ..detection import transfer
from ..io import atomic
from ..provenance import RECORDS

FILE = "inputs.json"
IMAGES = "images of the "
"""Begins the name of the digest of the image files of a set."""
BEGINS = "detector that "
"""Begins the name of the digest of initial weights."""


def of(sets: Mapping[str, Path]) -> dict[str, str]:
    """Return the digests of the data sets at `sets`, by name: of their annotations, and of their image files."""
    files = {root: images(root) for root in set(sets.values())}
    return {name: annotations(root) for name, root in sets.items()} | {
        f"{IMAGES}{name}": files[root] for name, root in sets.items()
    }


def begun(weights: Mapping[str, object]) -> dict[str, str]:
    """Return the digests of those of `weights`, by who begins from them ('R'), that are detectors."""
    found = {name: transfer.identity(said) for name, said in weights.items() if isinstance(said, str) and said}
    return {f"{BEGINS}{name} begins from": digest for name, digest in found.items() if digest}


def images(root: Path) -> str:
    """Return 16 hexadecimal digits that identify the image files of the data set at `root`; all are read."""
    if streaming.kind(root) in streaming.PACKED:
        files = {path.name: path for path in root.iterdir() if path.is_file()}
    else:
        data = read(root, note=findings.ignore)
        files = {image.file_name: file_names.inside(data.folder, image.file_name) for image in data.images}
    said = [[name, image_files.fingerprint(path)] for name, path in sorted(files.items())]
    return sha256(json.dumps(said).encode()).hexdigest()[:16]


def annotations(root: Path) -> str:
    """Return 16 hexadecimal digits that identify annotations, split and records of the data set at `root`.

    Images are not read.
    """
    if root.is_dir() and not (root / coco.FILE).exists():
        data = read(root, note=findings.ignore)
        said = json.dumps([coco.encode(data), data.parts], sort_keys=True)
        return sha256(said.encode()).hexdigest()[:16]
    names = (root.name, split.FILE) if root.is_file() else (coco.FILE, split.FILE, RECORDS)
    return digest(root.parent if root.is_file() else root, names)


def digest(folder: Path, names: Sequence[str]) -> str:
    """Return 16 hexadecimal digits over the files `names` of `folder`, some of which may be missing."""
    return sha256(" ".join(atomic.fingerprint(folder / name) for name in names).encode()).hexdigest()[:16]


def difference(old: Mapping[str, str], wanted: Mapping[str, str]) -> str:
    """Return the name of the first of the digests `wanted` that differs in `old`; empty if none does.

    Earlier versions kept none of image files and initial weights: those of their runs are not compared.
    """
    for name, value in wanted.items():
        if old.get(name, value if name.startswith((IMAGES, BEGINS)) else None) != value:
            return f"{'other' if name.startswith(IMAGES) else 'another'} {name}"
    return ""
