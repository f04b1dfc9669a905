"""One file with the images and cells to train on, at their working scale, for copying to another machine."""

import io
import json
import shutil
import zipfile
from collections.abc import Sequence
from pathlib import Path

from PIL import Image as Pillow

from ..annotations import DataSet, Image
from ..errors import UserError
from ..io import atomic
from ..io.progress import meter
from . import file_names, image_files, split
from .formats import coco
from .sources import Source

PARTS = ("train", "val")
"""The packed parts: no other part of a set reaches the machine that trains."""
QUALITY = 92
"""Of WebP."""
LARGEST = 25_000_000
"""Bytes of a pack."""
UNPACKED = 1 << 30
"""Most bytes that are unpacked."""


def write(sources: Sequence[Source], data_root: Path, path: Path, quality: int = QUALITY) -> None:
    """Write the parts 'train' and 'val' of `sources` (folders below `data_root`) to `path`, images as WebP.

    Raises UserError if that is more than 25 MB.
    """
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as file:
        for source in sources:
            data, root = coco.read(data_root / source.root), data_root / source.root
            chosen = {name: split.part(data, name, root) for name in PARTS if name in split.names(data, root)}
            images = []
            with meter(f"packing {root.name}", sum(map(len, chosen.values()))) as bar:
                for image in (image for images_of in chosen.values() for image in images_of):
                    pixels = image_files.read(file_names.inside(data.folder, image.file_name), source.scale)
                    name = str(Path(image.file_name).with_suffix(".webp"))
                    encoded = io.BytesIO()
                    Pillow.fromarray(pixels).save(encoded, "WEBP", quality=quality)
                    file.writestr(f"{root.name}/images/{name}", encoded.getvalue())
                    cells = tuple(cell.scaled(source.scale) for cell in image.cells)
                    images.append(Image(name, pixels.shape[1], pixels.shape[0], cells, image.extra))
                    bar.advance()
            packed = DataSet(Path("images"), tuple(images), data.categories, data.licences, data.info)
            file.writestr(f"{root.name}/annotations.json", json.dumps(coco.encode(packed)))
            parts = {
                name: [str(Path(image.file_name).with_suffix(".webp")) for image in members]
                for name, members in chosen.items()
            }
            file.writestr(f"{root.name}/split.json", json.dumps(parts))
    if content.tell() > LARGEST:
        raise UserError(f"{path}: {content.tell()} bytes; at most {LARGEST} are expected: lower the quality")
    atomic.write_bytes(path, content.getvalue())


def read(path: Path, folder: Path) -> list[Source]:
    """Unpack the file at `path` to `folder`; return its sets, which have their working scale.

    Raises UserError for what is no pack.
    """
    try:
        with zipfile.ZipFile(path) as file:
            if sum(entry.file_size for entry in file.infolist()) > UNPACKED:
                raise UserError(f"{path}: unpacks to more than {UNPACKED} bytes")
            shutil.rmtree(folder, ignore_errors=True)
            file.extractall(folder)  # never outside of it
    except (OSError, zipfile.BadZipFile) as error:
        raise UserError(f"{path}: not a packed data file ({error})") from None
    found = sorted(entry.name for entry in folder.iterdir() if (entry / "annotations.json").is_file())
    if not found:
        raise UserError(f"{path}: contains no data set")
    return [Source(root=name) for name in found]
