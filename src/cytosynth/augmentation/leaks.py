"""Leak checks: a held-out image must not be trained on, neither directly nor as the original of a synthetic image."""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from ..annotations import Image
from ..data import file_names, image_files, split
from ..data.formats import findings
from ..data.sources import Source
from ..data.sources import part as part_of
from ..errors import UsageError, UserError
from ..io.progress import console
from ..provenance import said
from . import seen


def apart(what: str, fitted: Sequence[Source], held: Sequence[Source], data_root: Path) -> None:
    """Raise UsageError if an image or slide of `fitted`, which are for `what`, is in one of the parts `held` too."""
    taken = {key: source.split for source in held for key in _keys(source, data_root)}
    for source in fitted:
        for key in sorted(_keys(source, data_root)):
            if key in taken:
                root, _, name = key
                raise UsageError(f"{what}: {name} of {root} is also a {taken[key]} image; choose disjoint parts")


def refuse(folder: Path, held: Sequence[Source], data_root: Path) -> None:
    """Raise UserError if an image of the synthetic set in `folder` was made from an image of `held`.

    The originals are named in `provenance.jsonl`: by hash or, if none is recorded, by name. Whether a generator was
    trained on held-out images is not checked here.
    """
    records = said(folder).values()
    edited: list[Mapping[str, Any]] = [record for record in records if isinstance(record.get("original"), str)]
    edited += [origin for record in records for origin in pasted(record)]
    if not edited:
        return
    by_hash, by_name = _held(tuple(held), data_root)
    bare = {Path(name).name: part for name, part in by_name.items()}
    alike: set[str] = set()
    for record in edited:
        original, digest = record["original"], record.get("original_sha256")
        # One side may have lost the folders of its names; where neither has, equal last parts say nothing.
        named = (
            by_name.get(original) or by_name.get(Path(original).name) or ("/" not in original and bare.get(original))
        )
        part = by_hash.get(digest) if isinstance(digest, str) and digest else named
        if part:
            raise UserError(f"{folder}: was made from {original}, a {part} image; remove it, or hold out other images")
        if named:
            alike.add(original)
    if alike:
        console.print(
            f"{folder}: {len(alike)} originals are called like held-out images ({min(alike)}) and are other files",
            soft_wrap=True,
        )


def unlike(what: str, fitted: Source, held: Source, data_root: Path) -> None:
    """Raise UsageError if a file of `fitted`, which is for `what`, is also one of `held`, under any name."""
    own, others = seen.digests(fitted, data_root), seen.digests(held, data_root)
    for digest in sorted(own.keys() & others.keys()):
        raise UsageError(f"{what}: {own[digest]} is the file of {others[digest]}, a {held.split} image; take one out")


def pasted(record: Mapping[str, Any]) -> list[dict[str, str]]:
    """Return the originals of the cells that were pasted into the image of `record`, named as those of images are."""
    cells = record.get("cells")
    origins = [
        cell["pasted_from"]
        for cell in (cells if isinstance(cells, list) else [])
        if isinstance(cell, dict) and isinstance(cell.get("pasted_from"), dict)
    ]
    return [
        {"original": one["file_name"], "original_sha256": one.get("sha256", "")}
        for one in origins
        if isinstance(one.get("file_name"), str)
    ]


def unseen(models: Mapping[str, str], held: Sequence[Source], data_root: Path) -> None:
    """Check that no model was trained or selected on an image of the parts `held`, by the digests of the files.

    Args:
        models: name of the model of each role, as the pipeline takes them; what has no weights is passed over.
        held: parts that no model may have seen.
        data_root: folder that they, and what recipes of runs name, are below.

    Raises UserError for a model that was, and for one whose training images are unknown.
    """
    by_hash, _ = _held(tuple(held), data_root)
    for role, name in models.items():
        known = seen.of_model(name, role, data_root)
        if known is None:
            raise UserError(
                f"{name}: which images this {role} was trained on is not known; {seen.FILE} beside its weights, or the "
                "recipe.yaml of its run with its data below --data-root, says so (`cytosynth evaluate seen` writes it)"
            )
        common = sorted(known.keys() & by_hash.keys())
        if common:
            raise UserError(f"{name}: this {role} was trained or chosen on {known[common[0]]}, which is held out here")


def _images(source: Source, data_root: Path) -> tuple[Image, ...]:
    return part_of(source, data_root)


def _keys(source: Source, data_root: Path) -> set[tuple[str, str, str]]:
    """Return folder, kind and name of each image and each slide of `source`."""
    root = (data_root / source.root).resolve()
    place = str(root.parent if root.is_file() else root)
    found = set()
    for image in _images(source, data_root):
        found |= {(place, "image", image.file_name), (place, "group", split.group(image))}
    return found


@lru_cache(maxsize=4)
def _held(held: tuple[Source, ...], data_root: Path) -> tuple[dict[str, str], dict[str, str]]:
    """Return the part of each image of `held` by the hash of its file, and by its name."""
    by_hash, by_name = {}, {}
    for source in held:
        folder = source.read(data_root, findings.ignore).folder
        for image in _images(source, data_root):
            by_name[image.file_name] = source.split
            by_hash[image_files.fingerprint(file_names.inside(folder, image.file_name))] = source.split
    by_hash.pop("", None)
    return by_hash, by_name
