"""Feature networks by name, and features of images stored on disk."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from ...data.image_files import Pixels
from ...devices import available
from ...errors import UserError
from ...io import atomic
from ...io.progress import meter
from ...io.tensors import weights_digest
from ...registry import EXTRACTORS
from ..image_set import ImageSet
from .extractor import BATCH, Extractor, Features
from .network import Network

SHARD = 256
"""Number of images in a file of the cache, which a killed run may lose."""


def load(name: str, weights: Path | None = None, device: str = "cpu") -> Extractor:
    """Return the feature network `name` of the registry, with its own weights or those at `weights`, on `device`.

    Raises UsageError for another name, EnvironmentProblem if its weights are not available, UserError for weights that
    do not fit.
    """
    reader: Callable[[Path | None], Network] = EXTRACTORS.load(name)
    place = available(device)
    found = reader(weights)
    module = found.module.requires_grad_(False).eval()
    digest = hashlib.sha256(f"{weights_digest(module)} {found.preprocessing}".encode()).hexdigest()[:16]
    return Extractor(name, found.title, found.dimension, digest, module.to(place), found.prepare, place)


def cached(extractor: Extractor, images: Sequence[Pixels] | ImageSet, folder: Path) -> Features:
    """Return the features (n, dimension) of `images`, each computed once and kept under `folder`.

    Files are named by the content of the images and the digest of the extractor; a killed run continues. Which images
    are known already changes nothing, to the bit on a CPU (`Extractor`).
    """
    own = folder / f"{extractor.name}-{extractor.digest}-{extractor.device.type}"
    keys = images.keys() if isinstance(images, ImageSet) else [_key(image) for image in images]
    known = _read(own, frozenset(keys))
    missing = [index for index, key in enumerate(keys) if key not in known]
    with meter(f"features ({extractor.name})", len(missing)) as bar:
        for shard in _parts(missing, SHARD):
            rows: dict[str, np.ndarray] = {}
            for batch in _parts(shard, BATCH):
                values = extractor([images[index] for index in batch])
                rows |= {keys[index]: value for index, value in zip(batch, values, strict=True)}
                bar.advance(amount=len(batch))
            name = hashlib.sha256(" ".join(rows).encode()).hexdigest()[:24]
            atomic.write_bytes(own / f"{name}.safetensors", save(rows))
            known |= rows
    return np.stack([known[key] for key in keys]).astype(np.float32)


def _key(pixels: Pixels) -> str:
    content = hashlib.sha256(str(pixels.shape).encode())
    content.update(np.ascontiguousarray(pixels).tobytes())
    return content.hexdigest()[:32]


def _read(folder: Path, wanted: frozenset[str]) -> dict[str, np.ndarray]:
    rows: dict[str, np.ndarray] = {}
    for path in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(path, framework="np") as file:
                rows |= {key: file.get_tensor(key) for key in wanted.intersection(file.keys())}
        except (SafetensorError, OSError):
            raise UserError(f"{path}: damaged; delete it, and the features are computed again") from None
    return rows


def _parts(indices: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    return (indices[start : start + size] for start in range(0, len(indices), size))
