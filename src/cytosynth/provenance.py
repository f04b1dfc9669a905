"""Marking what is synthetic: inside each PNG, and in `provenance.jsonl`, one line per image."""

import io
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from PIL import Image, PngImagePlugin
from pydantic import AfterValidator, BaseModel, Field, ValidationError, model_validator

from . import __version__
from .data import file_names, image_files
from .data.annotated_images import AnnotatedImage
from .data.formats import coco_parts
from .data.image_files import Pixels
from .io import atomic, plain
from .io.records import line

RECORDS = "provenance.jsonl"
CHUNK = "cytosynth"
"""Text chunk of a PNG that contains its image's record."""
PARTS = "provenance"
"""Folder of the files `000000.jsonl` ... of the records of a set that is too large for one."""
LARGEST = 1e9
"""Pixels that the side of a box may be away."""
MOST_ROOM = 100_000
"""Cells of an image that can be edited, far above what a detector finds in the largest."""
NOTICE = "Synthetic cervical cytology made by CytoSynth. Not for diagnosis."
OTHER, MIXED, PASTED = "other", "mixed", "pasted"
NOTICES = {
    "synthetic": NOTICE,
    "real-to-synthetic": "Real cervical cytology whose marked cells CytoSynth made synthetic. Not for diagnosis.",
    PASTED: "Real cervical cytology into which CytoSynth pasted real cells of other images. Not for diagnosis.",
    OTHER: "Synthetic cervical cytology of several origins, chosen by CytoSynth. Not for diagnosis.",
    MIXED: "Real and synthetic cervical cytology together; CytoSynth made the synthetic part. Not for diagnosis.",
}
ANCESTORS = "ancestors"
"""Field of a record: SHA-256 of all images that its originals were made from, where these are synthetic themselves."""
SOURCE_TYPE = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
COMPOSITE = "http://cv.iptc.org/newscodes/digitalsourcetype/compositeCapture"
"""Of images that were put together from real ones alone."""
XMP = """<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
<rdf:Description rdf:about="" xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/"
 xmlns:dc="http://purl.org/dc/elements/1.1/" xmlns:xmp="http://ns.adobe.com/xap/1.0/">
<Iptc4xmpExt:DigitalSourceType>{source}</Iptc4xmpExt:DigitalSourceType>
<xmp:CreatorTool>CytoSynth {version}</xmp:CreatorTool>
<dc:description><rdf:Alt><rdf:li xml:lang="x-default">{notice}</rdf:li></rdf:Alt></dc:description>
</rdf:Description></rdf:RDF></x:xmpmeta><?xpacket end="w"?>"""


def sides(box: Sequence[float]) -> Sequence[float]:
    """Return the xyxy of a `box`; raise ValueError where it is none."""
    if len(box) != 4 or not all(abs(side) < LARGEST for side in box) or box[0] >= box[2] or box[1] >= box[3]:
        raise ValueError("not the sides of a box")
    return box


Box = Annotated[list[float], AfterValidator(sides)]
"""xyxy, as JSON has it."""
Room = Annotated[int, Field(ge=0, le=MOST_ROOM)]
"""How many cells of an image can be edited."""


class Attempt(BaseModel, strict=True):
    """What the gate found wrong with an edit."""

    reasons: list[str]


class EditedCell(BaseModel, strict=True):
    """A cell in a record, with the attempts at it if there was a gate."""

    bbox_xyxy: Box
    category: str
    seed: int
    attempts: list[Attempt] = []


class KeptCell(BaseModel, strict=True):
    """A real abnormal cell in a record, as it was annotated."""

    bbox_xyxy: Box
    category: str


class Shown(BaseModel, strict=True):
    """Size and boxes of an image whose appearance was changed, as it is on disk."""

    width: int
    height: int
    boxes: list[Annotated[list[float], Field(min_length=4, max_length=4)]]


class Record(BaseModel, strict=True):
    """The fields of an image's record that are read again; the record has more."""

    file_name: str
    origin: Any
    seed: int
    key: int
    width: int
    height: int
    cells: list[EditedCell]
    rejected: list[EditedCell] = []
    kept: list[KeptCell] = []
    left_out: list[KeptCell] = []
    shown: Shown | None = None
    room: Room = 0
    picture: Annotated[dict[str, Any], AfterValidator(plain.checked)] = {}
    original: str = Field(default="", description="name, in its set, of the image that was edited")
    original_sha256: str = ""

    @model_validator(mode="after")
    def _together(self) -> "Record":
        said = self.model_fields_set
        if "original" in said and "original_sha256" not in said:
            raise ValueError("an original without its hash")
        if "rejected" in said and any("attempts" not in cell.model_fields_set for cell in self.cells + self.rejected):
            raise ValueError("a gated cell without attempts")
        if self.shown and len(self.shown.boxes) != len(self.cells) + len(self.kept):
            raise ValueError("shown: another number of boxes than of cells")
        return self


def png(pixels: Pixels, record: dict[str, Any]) -> bytes:
    """Return `pixels` as a PNG that says it is synthetic and carries `record`, the same bytes every time.

    Text chunks `Description`, `Software` and `cytosynth` (JSON), and an XMP packet whose IPTC
    `DigitalSourceType` is trainedAlgorithmicMedia, or compositeCapture where real cells were pasted.
    """
    chunks = PngImagePlugin.PngInfo()
    notice = NOTICES[record["origin"]]
    chunks.add_text("Description", notice)
    chunks.add_text("Software", f"CytoSynth {__version__}")
    chunks.add_itxt(CHUNK, json.dumps(record, sort_keys=True, ensure_ascii=False))
    source = COMPOSITE if record["origin"] == PASTED else SOURCE_TYPE
    packet = XMP.format(source=source, version=__version__, notice=notice)
    chunks.add_itxt("XML:com.adobe.xmp", packet)
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, "PNG", pnginfo=chunks, compress_level=6)
    return buffer.getvalue()


def read_records(out: Path, categories: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return the records that a run with `categories` wrote for the images of `out`, by name, to continue from."""
    return {
        name: record
        for name, record in said(out).items()
        if whole(record, categories) and (out / "images" / name).exists()
    }


def said(out: Path) -> dict[str, dict[str, Any]]:
    """Return all records of images of `out`, by name, including those with fewer fields than this program writes.

    A line that a kill cut short, and one without the name of an image inside, is dropped. Raises UserError as
    `plain.lines` does.
    """
    records = {}
    for record in chain.from_iterable(map(plain.lines, files(out))):
        name = record.get("file_name") if isinstance(record, dict) else None
        if isinstance(name, str) and not file_names.unsafe(name):
            records[name] = record
    return records


def inside(path: Path, content: bytes | None = None) -> dict[str, Any] | None:
    """Return the record in the PNG file at `path`, or in its `content`; None for an image that this program did not
    make."""
    try:
        record = plain.checked(plain.from_json(image_files.note(path, CHUNK, content)))
    except ValueError:
        return None
    return record if isinstance(record, dict) and isinstance(record.get("origin"), str) else None


def of_images(root: Path, images: Iterable[AnnotatedImage]) -> dict[str, dict[str, Any]]:
    """Return all records of the set at `root`, by name, and of those of its `images` without one what their files say.

    A copy in another format has no `provenance.jsonl`, but the same files.
    """
    records = said(root if root.is_dir() else root.parent)
    for one in images:
        name = one.image.file_name
        if name not in records:
            found = inside(one.path, one.content() if one.member else None)
            if found is not None:
                records[name] = found | {"file_name": name}
    return records


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


def ancestors(record: Mapping[str, Any]) -> list[str]:
    """Return the SHA-256 of all images that the image of `record` was made from, at every level, in order."""
    earlier = record.get(ANCESTORS)
    found = [record.get("original_sha256"), *(one["original_sha256"] for one in pasted(record))]
    found += earlier if isinstance(earlier, list) else []
    return sorted({digest for digest in found if isinstance(digest, str) and digest})


def descent(originals: Iterable[Mapping[str, Any] | None]) -> dict[str, list[str]]:
    """Return the field of the record of an image made from images with the records `originals` (None: a real image).

    Empty if all of these are real.
    """
    made = [record for record in originals if record is not None]
    return {ANCESTORS: sorted({digest for record in made for digest in ancestors(record)})} if made else {}


def whole(record: Any, categories: Sequence[str]) -> bool:
    """Return whether the fields of `record` that are read again are valid for cells of `categories`."""
    return problem(record, categories) is None


def problem(record: Any, categories: Sequence[str] | None = None) -> str | None:
    """Return the field of `record` that cannot be read again, why, and its value; None if all can.

    Of cells in other than `categories` as well, if these are given.
    """
    try:
        found = Record.model_validate(record)
    except ValidationError as error:
        first = error.errors()[0]
        where = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"]).lstrip(".")
        given = f" (got {repr(first['input'])[:60]})" if where and first["type"] != "missing" else ""
        return f"{where}: {first['msg'].removeprefix('Value error, ').lower()}{given}".removeprefix(": ")
    names = [cell.category for cell in (*found.cells, *found.rejected)]
    other = next((name for name in names if categories is not None and name not in categories), None)
    return None if other is None else f"unknown category {other[:40]!r}"


def write_records(out: Path, records: Collection[Mapping[str, Any]]) -> None:
    """Rewrite all `records`, in their order; in parts if the set is so large that its annotations are."""
    if len(records) <= coco_parts.LARGEST:
        atomic.write_text(out / RECORDS, "".join(map(line, records)))
        return
    rest = iter(records)
    for number in range(-(-len(records) // coco_parts.IMAGES)):
        part = "".join(map(line, islice(rest, coco_parts.IMAGES)))
        atomic.write_text(out / PARTS / f"{number:06d}.jsonl", part)
    (out / RECORDS).unlink(missing_ok=True)


def files(out: Path) -> list[Path]:
    """Return the files of the records of `out`: parts, and what was written since."""
    return [*sorted((out / PARTS).glob("*.jsonl")), out / RECORDS]


def as_read(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return `record` as it will be read again, its keys in order, so that a continued run gives the same bytes."""
    return dict(json.loads(line(record)))


def short(name: str) -> str:
    """Return the last part of a local path, marked as such; the name of a bundled model or a hub id as it is."""
    return f"own:{plain.last(name)}" if Path(name).exists() else name
