"""Marking what is synthetic: inside each PNG, and in `provenance.jsonl`, one line per image."""

import io
import json
from collections.abc import Collection, Mapping, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, PngImagePlugin

from . import __version__
from .data import file_names
from .data.formats import coco_parts
from .data.image_files import Pixels
from .io import atomic, plain
from .io.records import line

RECORDS = "provenance.jsonl"
PARTS = "provenance"
"""Folder of the files `000000.jsonl` ... of the records of a set that is too large for one."""
REQUIRED = frozenset({"file_name", "origin", "seed", "key", "width", "height", "cells"})
ORIGINAL = ("original", "original_sha256")
"""The image that was edited: its name in its set, and its hash."""
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


def png(pixels: Pixels, record: dict[str, Any]) -> bytes:
    """Return `pixels` as a PNG that says it is synthetic and carries `record`, the same bytes every time.

    Text chunks `Description`, `Software` and `cytosynth` (JSON), and an XMP packet whose IPTC
    `DigitalSourceType` is trainedAlgorithmicMedia, or compositeCapture where real cells were pasted.
    """
    chunks = PngImagePlugin.PngInfo()
    notice = NOTICES[record["origin"]]
    chunks.add_text("Description", notice)
    chunks.add_text("Software", f"CytoSynth {__version__}")
    chunks.add_itxt("cytosynth", json.dumps(record, sort_keys=True, ensure_ascii=False))
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
    """Return all records of images of `out`, by name, even if they have fewer fields than this program writes.

    A line that a kill cut short, and one without the name of an image inside, is dropped. Raises UserError as
    `plain.lines` does.
    """
    records = {}
    for record in chain.from_iterable(map(plain.lines, files(out))):
        name = record.get("file_name") if isinstance(record, dict) else None
        if isinstance(name, str) and not file_names.unsafe(name):
            records[name] = record
    return records


def whole(record: Mapping[str, Any], categories: Sequence[str]) -> bool:
    """Return whether `record` is one that this program wrote, as far as what is read of it goes."""
    cells, rejected = record.get("cells"), record.get("rejected", [])
    return (
        record.keys() >= REQUIRED
        and ("original" not in record or all(isinstance(record.get(key), str) for key in ORIGINAL))
        and all(isinstance(record.get(key, 0), int) for key in ("seed", "key", "width", "height"))
        and is_room(record.get("room", 0))
        and isinstance(record.get("picture", {}), dict)
        and _finite(record.get("picture", {}))
        and isinstance(cells, list)
        and isinstance(rejected, list)
        and all(_whole_cell(cell, categories, "rejected" in record) for cell in (*cells, *rejected))
    )


def _whole_cell(cell: Any, categories: Sequence[str], gated: bool) -> bool:
    """Return whether `cell` is one of a record of this program, with the attempts at it where it was `gated`."""
    if not isinstance(cell, dict) or cell.get("category") not in categories or not isinstance(cell.get("seed"), int):
        return False
    attempts = cell.get("attempts", [] if not gated else None)
    return (
        is_box(cell.get("bbox_xyxy"))
        and isinstance(attempts, list)
        and all(isinstance(a, dict) and isinstance(a.get("reasons"), list) for a in attempts)
        and all(isinstance(reason, str) for a in attempts for reason in a["reasons"])
    )


def is_box(value: Any) -> bool:
    """Return whether `value` is the xyxy of a box, as JSON has it."""
    return (
        isinstance(value, list)
        and len(value) == 4
        and all(isinstance(side, int | float) and abs(side) < 1e9 for side in value)
        and value[0] < value[2]
        and value[1] < value[3]
    )


def is_room(value: Any) -> bool:
    """Return whether `value` can be how many cells of an image can be edited."""
    return isinstance(value, int) and 0 <= value <= MOST_ROOM


def _finite(value: Any) -> bool:
    """Return whether `value` can be part of an annotation file, which has no NaN."""
    try:
        plain.checked(value)
    except ValueError:
        return False
    return True


def write_records(out: Path, records: Collection[Mapping[str, Any]]) -> None:
    """Rewrite all `records`, in their order; where a set is so large that its annotations are, in parts too."""
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
    """Return `record` as it will be read again, its keys in order: a continued run may not tell them apart."""
    return dict(json.loads(line(record)))


def short(name: str) -> str:
    """Return the last part of a local path, marked as such; the name of a bundled model or a hub id as it is."""
    return f"own:{plain.last(name)}" if Path(name).exists() else name
