"""The data of a run: digests, so that a later call with other data is detected."""

import json
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path

from ..data import split
from ..data.formats import coco, findings
from ..data.read import read
from ..io import atomic
from ..provenance import RECORDS

FILE = "inputs.json"


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
    """Return the name of the first of the digests `wanted` that differs in `old`; empty if none does."""
    return next((f"another {name}" for name, value in wanted.items() if old.get(name) != value), "")
