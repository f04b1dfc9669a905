"""The image files that a model was trained and selected on, by digest, to check that none is held out."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ..data import file_names, image_files, split
from ..data.annotated_images import AnnotatedImage
from ..data.formats import findings
from ..data.sources import Source
from ..errors import UserError
from ..foundation.names import BUNDLED
from ..io import atomic, plain
from ..io.bundled import PREPARATIONS, RECIPE, WEIGHTS, model_folder
from ..provenance import ancestors, of_images

FILE = "seen_images.txt"
"""File next to a model's weights, or in the folder above: a line for each image file, as `sha256sum` writes it."""
LINE = re.compile(r"([0-9a-f]{64})  (.+)")
WEIGHTLESS = frozenset({"none", "nucleus"})
"""Names that mean no model."""
FOUNDATION = ("autoencoder", "decoder", "text", "denoiser")
"""The runs of a foundation's parts, next to each other: all of them count."""
CHOSEN_ON = "val"
"""The part on which trainings select their best weights."""


def digests(source: Source, data_root: Path) -> dict[str, str]:
    """Return the names (`set/file`) of the image files of `source` by SHA-256, and of what synthetic ones were made
    from.
    """
    data = source.read(data_root, findings.ignore)
    label = plain.last(source.root)
    images = [
        AnnotatedImage(image, file_names.inside(data.folder, image.file_name))
        for image in source.chosen(data, data_root)
    ]
    records = of_images(data_root / source.root, images)
    found: dict[str, str] = {}
    earlier: dict[str, str] = {}
    for one in images:
        name = one.image.file_name
        digest = image_files.fingerprint(one.path)
        if digest:
            found[digest] = f"{label}/{name}"
        earlier |= dict.fromkeys(ancestors(records.get(name, {})), f"an original of {label}/{name}")
    return earlier | found


def of_model(name: str, role: str, data_root: Path) -> dict[str, str] | None:
    """Return the images that the model `name` of `role` has seen, names by SHA-256; None if unknown.

    They are listed in its `FILE`, else derived from the recipes of its run: of the data sets named there, which are
    below `data_root`, the parts trained on and, for divided sets, the part used for selection; of distilled weights
    also from those of their teachers, of a detector from those of the one that it began from. A model of a hub, which
    is public and older than the data here, has seen none.
    """
    if name in WEIGHTLESS or (name not in PREPARATIONS.values() and not Path(name).exists()):
        return {}
    folder = model_folder(name, "classifier" if role == "gate" else role.replace("fast_", "fast/"))
    for place in (folder, folder.parent, *([folder.parent.parent] if name in PREPARATIONS.values() else [])):
        if (place / FILE).is_file():
            return read(place / FILE)
    run = folder.parent if folder.name in WEIGHTS else folder
    recipes = [run / RECIPE]
    if run.name in FOUNDATION:
        recipes += [run.parent / part / RECIPE for part in FOUNDATION if part != run.name]
    if not recipes[0].is_file():
        return None
    found: dict[str, str] = {}
    for path in filter(Path.is_file, recipes):
        for source in sources(path):
            try:
                found |= digests(source, data_root)
                if source.split == "train" and CHOSEN_ON in _parts(source, data_root):
                    found |= digests(source.model_copy(update={"split": CHOSEN_ON}), data_root)
            except UserError:
                return None
    for teacher, name_of in _teachers(recipes[0]).items():
        taught = of_model(name_of, teacher, data_root)
        if taught is None:
            return None
        found |= taught
    return found


def _teachers(recipe: Path) -> dict[str, str]:
    """Return the models by role from which the run of `recipe` distilled or began; none if it did not.

    A file of initial weights is taken to be public, as those of ImageNet are.
    """
    values: Any = plain.from_yaml(plain.text(recipe))
    if isinstance(values, dict) and values.get("kind") == "detector":
        begins = str(values.get("weights"))
        return {"detector": begins} if begins == BUNDLED or Path(begins).is_dir() else {}
    if not isinstance(values, dict) or not str(values.get("kind")).startswith("distill-"):
        return {}
    return {role: str(values[role]) for role in ("foundation", "normal", "cell") if role in values}


def sources(recipe: Path) -> list[Source]:
    """Return the data sets that the `recipe` of a training run names under `data` and, of a detector, `synthetic`."""
    values: Any = plain.from_yaml(plain.text(recipe))
    said = values if isinstance(values, dict) else {}
    try:
        return [Source.model_validate(one) for key in ("data", "synthetic") for one in said.get(key) or []]
    except (ValidationError, TypeError):
        raise UserError(f"{recipe}: data: not a list of data sets (root, scale, split)") from None


def read(path: Path) -> dict[str, str]:
    """Return the names by SHA-256 that the file at `path` lists; raise UserError for an invalid line."""
    found = {}
    for number, line in enumerate(plain.text(path).splitlines(), 1):
        match = LINE.fullmatch(line)
        if match is None:
            raise UserError(f"{path}: line {number}: not a SHA-256, two blanks and a name")
        found[match[1]] = match[2]
    return found


def write(path: Path, known: Sequence[dict[str, str]]) -> int:
    """Write all names by SHA-256 of `known` to `path`, in the order of their names; return how many there are."""
    together = {digest: name for one in known for digest, name in one.items()}
    lines = sorted((name, digest) for digest, name in together.items())
    atomic.write_text(path, "".join(f"{digest}  {name}\n" for name, digest in lines))
    return len(lines)


def _parts(source: Source, data_root: Path) -> list[str]:
    return split.names(source.read(data_root, findings.ignore), data_root / source.root)
