"""Small files for copying a trained model to another machine: half precision, at most 15 MB each.

They contain all files of the model's folder: tensors in the shards, text (configuration, tokenizer) in the header of
the first.
"""

import json
from collections.abc import Sequence
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import load_file, save, save_file
from torch import Tensor

from ...errors import UserError
from ...io import atomic, tensors

LARGEST = 15_000_000
"""Bytes of tensors in a shard."""
BETWEEN = "//"
"""In the name of a tensor, between its file and its key."""


def write(folder: Path, out: Path, name: str, largest: int = LARGEST) -> list[Path]:
    """Write the model in `folder` to `out`/`name`.NN.safetensors, floats in half precision; return the files.

    Raises UserError if a weight is too large for half precision, or a single one for a shard.
    """
    texts, rows = dict[str, str](), list[tuple[str, Tensor]]()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        file = path.relative_to(folder).as_posix()
        if path.suffix == tensors.SUFFIX:
            rows += [(f"{file}{BETWEEN}{key}", _half(value, path)) for key, value in sorted(load_file(path).items())]
        else:
            texts[file] = path.read_text("utf-8")
    shards: list[dict[str, Tensor]] = [{}]
    for key, value in rows:
        if value.nbytes > largest:
            raise UserError(f"{folder}: {key} has {value.nbytes} bytes; a shard holds {largest}")
        if sum(kept.nbytes for kept in shards[-1].values()) + value.nbytes > largest:
            shards.append({})
        shards[-1][key] = value
    paths = []
    for number, shard in enumerate(shards, 1):
        header = {"files": json.dumps(texts) if number == 1 else "{}", "shards": str(len(shards))}
        paths.append(out / f"{name}.{number:02d}{tensors.SUFFIX}")
        atomic.write_bytes(paths[-1], save(shard, header))
    return paths


def found(out: Path, name: str) -> list[Path]:
    """Return the shards of `name` in the folder `out`; none where it has none.

    Raises UserError if one is missing or cannot be read.
    """
    paths = sorted(out.glob(f"{name}.[0-9][0-9]{tensors.SUFFIX}"))
    if paths and len(paths) != int(_header(paths[0]).get("shards", "0")):
        raise UserError(f"{paths[0]}: {len(paths)} of its shards found, {_header(paths[0]).get('shards')} expected")
    return paths


def read(paths: Sequence[Path], folder: Path) -> Path:
    """Write the model in the shards at `paths` to `folder`, its weights as they are; return `folder`.

    Raises UserError for a file that would lie outside of it.
    """
    files: dict[str, dict[str, Tensor]] = {}
    with atomic.folder(folder) as part:
        for path in paths:
            for file, text in json.loads(_header(path)["files"]).items():
                _inside(part, file, path).write_text(text)
            for key, value in tensors.read(path).items():
                file, _, inner = key.partition(BETWEEN)
                files.setdefault(file, {})[inner] = value
        for file, weights in files.items():
            save_file(weights, _inside(part, file, paths[0]), metadata={"format": "pt"})
    return folder


def _half(value: Tensor, path: Path) -> Tensor:
    if not value.is_floating_point():
        return value
    half = value.half()
    if not bool(half.isfinite().all()):
        raise UserError(f"{path}: a weight is not finite in half precision (largest {float(value.abs().max()):.3g})")
    return half


def _header(path: Path) -> dict[str, str]:
    try:
        with safe_open(path, framework="pt") as file:
            return dict(file.metadata() or {})
    except (OSError, ValueError, RuntimeError) as error:
        raise UserError(f"{path}: not a shard ({' '.join(str(error).split())[:120]})") from None


def _inside(folder: Path, file: str, source: Path) -> Path:
    path = folder / file
    if not path.resolve().is_relative_to(folder.resolve()) or not file:
        raise UserError(f"{source}: refers to a file outside the model's folder ({file[:80]!r})")
    path.parent.mkdir(parents=True, exist_ok=True)
    return path
