"""A synthetic image that was made from a held-out one must not be trained on."""

from collections.abc import Sequence
from pathlib import Path

from .data import coco, split
from .errors import UserError
from .provenance import said
from .training.recipe import Source


def refuse(folder: Path, held: Sequence[Source], data_root: Path) -> None:
    """Raise UserError where an image of the synthetic set in `folder` was made from a picture of `held`.

    What was edited is known by the name in `provenance.jsonl`. That a generator was trained on held-out images is not
    seen here.
    """
    parts: dict[str, str] = {}
    for source in held:
        root = data_root / source.root
        pictures = split.part(coco.read(root), source.split, root)
        parts |= {picture.file_name: source.split for picture in pictures}
    bare = {Path(name).name: part for name, part in parts.items()}
    for record in said(folder).values():
        original = record.get("original")
        if not isinstance(original, str):
            continue
        # One side may have lost the folders of its names; where neither has, equal last parts say nothing.
        part = parts.get(original) or parts.get(Path(original).name) or ("/" not in original and bare.get(original))
        if part:
            raise UserError(f"{folder}: made from {original}, a {part} image; take it out, or hold out others")
