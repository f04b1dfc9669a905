"""Leak checks: a held-out image must not be trained on, neither directly nor as the original of a synthetic image."""

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from ..annotations import Image
from ..data import file_names, image_files, split, streaming
from ..data.annotated_images import AnnotatedImage
from ..data.formats import coco, findings
from ..data.read import read
from ..data.slides import reader
from ..data.sources import Source
from ..data.sources import part as part_of
from ..detection import transfer
from ..detection.recipe import NO_WEIGHTS, TORCHVISION
from ..errors import UsageError, UserError
from ..io import atomic
from ..io.progress import console
from ..provenance import ANCESTORS, ancestors, of_images, pasted
from . import seen

PUBLIC = (NO_WEIGHTS, TORCHVISION, "imagenet")
"""Initial weights by name that saw no image of a lab."""
Record = Mapping[str, Any]
"""How an image was made, as `provenance.jsonl` has it."""


def apart(what: str, fitted: Sequence[Source], held: Sequence[Source], data_root: Path) -> None:
    """Raise UsageError if an image or slide of `fitted`, which are for `what`, is in one of the parts `held` too.

    Raises UserError if one of `fitted` is synthetic and was made from one of `held`, directly or not.
    """
    taken = {key: source.split for source in held for key in _keys(source, data_root)}
    for source in fitted:
        for key in sorted(_keys(source, data_root)):
            if key in taken:
                root, _, name = key
                raise UsageError(f"{what}: {name} of {root} is also a {taken[key]} image; choose disjoint parts")
    for source in fitted:
        data = source.read(data_root, findings.ignore)
        images = [
            AnnotatedImage(image, file_names.inside(data.folder, image.file_name))
            for image in source.chosen(data, data_root)
        ]
        known = of_images(data_root / source.root, images)
        own = [known[one.image.file_name] for one in images if one.image.file_name in known]
        _refuse(f"{what}: {data_root / source.root}", [*own, *_slides(images)], held, data_root)


def refuse(folder: Path, held: Sequence[Source], data_root: Path) -> None:
    """Raise UserError if an image of the synthetic set in `folder` was made from an image of `held`, directly or not.

    Its originals, and what these were made from, are named in `provenance.jsonl` or in the image's file: by hash or, if
    none is recorded, by name. Whether a generator was trained on held-out images is not checked here.
    """
    _refuse(str(folder), [*records(folder).values(), *_slides(_images_of(folder))], held, data_root)


def records(folder: Path) -> dict[str, dict[str, Any]]:
    """Return how the images of the data set in `folder` were made, by name, as far as it or their files say."""
    return of_images(folder, _images_of(folder))


def _refuse(what: str, made: Sequence[Record], held: Sequence[Source], data_root: Path) -> None:
    """Raise UserError, which begins with `what`, if an image with one of the records `made` is from one of `held`."""
    edited: list[Record] = [record for record in made if isinstance(record.get("original"), str)]
    edited += [origin for record in made for origin in pasted(record)]
    earlier = {digest for record in made for digest in ancestors(record)}
    if not (edited or earlier):
        return
    by_hash, by_name = _held(tuple(held), data_root)
    bare = {Path(name).name: part for name, (part, _) in by_name.items()}
    alike: set[str] = set()
    for record in edited:
        original, digest = record["original"], record.get("original_sha256")
        # One side may have lost the folders of its names; where neither has, equal last parts say nothing.
        like = by_name.get(original) or by_name.get(Path(original).name)
        named = like[0] if like else bare.get(original, "") if "/" not in original else ""
        if part := by_hash.get(digest, ("", ""))[0] if isinstance(digest, str) and digest else named:
            raise UserError(f"{what}: was made from {original}, a {part} image; remove it, or hold out other images")
        if named:
            alike.add(original)
    for part, name in sorted(by_hash[digest] for digest in earlier & by_hash.keys()):
        raise UserError(
            f"{what}: was made from images that were made from {name}, a {part} image; remove them, or hold out other "
            "images"
        )
    unknown = sum(ANCESTORS not in record and _synthetic(record.get("picture")) for record in made)
    if unknown:
        console.print(
            f"{what}: {unknown} images were made from synthetic ones by an earlier version, which did not record what "
            "these were made from; whether that was held out is not known",
            soft_wrap=True,
        )
    if alike:
        console.print(
            f"{what}: {len(alike)} originals are called like held-out images ({min(alike)}) and are other files",
            soft_wrap=True,
        )


def _synthetic(said: Any) -> bool:
    """Return whether the fields `said` of an image say that it is synthetic."""
    return isinstance(said, dict) and said.get("synthetic") is True


def _images_of(folder: Path) -> Sequence[AnnotatedImage]:
    """Return the images of the data set in `folder`, packed or not."""
    if streaming.kind(folder):
        return streaming.opened(folder)
    data = read(folder, note=findings.ignore)
    return [AnnotatedImage(image, file_names.inside(data.folder, image.file_name)) for image in data.images]


def _slides(images: Iterable[AnnotatedImage]) -> list[Record]:
    """Return what the annotations next to those of `images` that are edited slides say of their originals."""
    slides = [one.path for one in images if reader.is_slide(one.path)]
    found: list[Record] = []
    for folder in sorted({path.parent for path in slides if (path.parent / coco.FILE).is_file()}):
        names = {path.name for path in slides}
        listed = coco.read(folder, note=findings.ignore).images
        found += [image.extra for image in listed if image.file_name in names and _synthetic(image.extra)]
    return found


def unlike(what: str, fitted: Source, held: Source, data_root: Path) -> None:
    """Raise UsageError if a file of `fitted`, which is for `what`, is also one of `held`, under any name."""
    own, others = seen.digests(fitted, data_root), seen.digests(held, data_root)
    for digest in sorted(own.keys() & others.keys()):
        raise UsageError(f"{what}: {own[digest]} is the file of {others[digest]}, a {held.split} image; take one out")


def unseen(models: Mapping[str, str], held: Sequence[Source], data_root: Path) -> None:
    """Check that no model was trained or selected on an image of the parts `held`, by the digests of the files.

    Args:
        models: name of the model of each role, as the pipeline takes them; what has no weights is passed over.
        held: parts that no model may have seen.
        data_root: folder that they, and what recipes of runs name, are below.

    Raises UserError for a model that was, and for one whose training images are unknown.
    """
    for role, name in models.items():
        if common := shared(name, role, held, data_root):
            raise UserError(f"{name}: this {role} was trained or chosen on {common[0]}, which is held out here")


def shared(name: str, role: str, held: Sequence[Source], data_root: Path) -> list[str]:
    """Return the names of the images of `held` that the model `name` of `role` was trained or selected on.

    Raises UserError if its training images are unknown.
    """
    known = seen.of_model(name, role, data_root)
    if known is None:
        raise UserError(
            f"{name}: which images this {role} was trained on is not known; {seen.FILE} beside its weights, or the "
            "recipe.yaml of its run with its data below --data-root, says so (`cytosynth evaluate seen` writes it)"
        )
    by_hash, _ = _held(tuple(held), data_root)
    return [known[digest] for digest in sorted(known.keys() & by_hash.keys())]


def begun(weights: Iterable[object], held: Sequence[Source], data_root: Path) -> None:
    """Check that detectors can begin from `weights`, and that these have seen no image of the parts `held`.

    A file of weights is taken to be public. Raises UsageError where there is nothing to begin from, UserError as
    `unseen` does.
    """
    for name in {one for one in weights if isinstance(one, str) and one}:
        if transfer.is_detector(name):
            unseen({"detector": name}, held, data_root)
        elif name not in PUBLIC and not Path(name).is_file():
            raise UsageError(
                f"weights={name}: no detector there; give {', '.join(PUBLIC)}, bundled, the folder or run of a "
                "detector, or a file"
            )


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


Known = dict[str, tuple[str, str]]
"""Part and name of a held-out image, by hash or by name."""


@lru_cache(maxsize=4)
def _held(held: tuple[Source, ...], data_root: Path) -> tuple[Known, Known]:
    """Return part and name of each image of `held` by the hash of its file, and by its name."""
    by_hash, by_name = {}, {}
    for source in held:
        folder = source.read(data_root, findings.ignore).folder
        for image in _images(source, data_root):
            path = file_names.inside(folder, image.file_name)
            digest = atomic.fingerprint(path) if reader.is_slide(path) else image_files.fingerprint(path)
            by_hash[digest] = by_name[image.file_name] = (source.split, image.file_name)
    by_hash.pop("", None)
    return by_hash, by_name
