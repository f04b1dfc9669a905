"""What strangers could send: readers to try it on, mutations that make it, and a watch on what the readers touch."""

import contextlib
import copy
import io
import json
import os
import random
import shutil
import struct
import sys
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from cytosynth import config
from cytosynth.data import convert, file_names, image_files
from cytosynth.data.check import check
from cytosynth.errors import UserError

Run = Callable[[bytes, Path], None]
NASTY: list[Any] = [
    None, True, False, 0, -1, 1, 2**31, 2**63, 10**40, -(10**40), 1e308, -1e308, 1e-320, float("nan"), float("inf"),
    "", "a", "\0", "\ud800", "é", "a" * 5000, "[/red]", "\x1b[2J", "../x", "/etc/passwd", "C:\\x", "con", "NUL.png",
    ".", "..", "a/../b", "a.png", "b.jpg", "link.png", "pipe.png", "loop.png", "images", "'", "%s", "{0}", [], {}, [[]],
    [None], ["a"], {"a": 1}, {"id": 1}, [1, 2, 3, 4], [0, 0, 1e308, 1e308], [-1e308, 0, 1e308, 1], "1", "1e999",
    "٣", "0x10",
]  # fmt: skip
"""Values that some reader somewhere takes badly."""


def image(kind: str, size: tuple[int, int] = (24, 16), mode: str = "RGB", **options: Any) -> bytes:
    """Return a small image file."""
    pixels = np.random.default_rng(0).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(buffer, kind, **options)
    return buffer.getvalue()


@dataclass(frozen=True)
class Reader:
    """A reader to be tried: whole files that it takes, what calls it on a mutated one, and its own mutation."""

    seeds: tuple[bytes, ...]
    run: Run
    mutate: Callable[[random.Random, bytes], bytes]


# ---------------------------------------------------------------- mutations


def mutate_bytes(rng: random.Random, data: bytes) -> bytes:
    """Return `data` with a few bytes changed, cut, doubled or put in."""
    content = bytearray(data or b"\0")
    for _ in range(rng.randint(1, 6)):
        at = rng.randrange(len(content) + 1)
        what = rng.randrange(7)
        if what == 0 and at < len(content):
            content[at] ^= 1 << rng.randrange(8)
        elif what == 1 and at < len(content):
            content[at] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))
        elif what == 2:
            del content[at : at + rng.choice((1, 4, 16, len(content)))]
        elif what == 3:
            content[at:at] = content[at : at + rng.randint(1, 64)]
        elif what == 4:
            content[at:at] = rng.randbytes(rng.randint(1, 8))
        elif what == 5:
            content[at : at + 4] = struct.pack(rng.choice("<>") + "I", rng.choice((0, 1, 2**31, 2**32 - 1, 65535)))
        else:
            content[at:at] = rng.choice(
                (b"[" * 50, b"{", b'"', b"\\u0000", b"&a", b"*a", b"<", b"nan", b"1e999", b"\n")
            )
        content = content or bytearray(b"\0")
    return bytes(content[:20_000])


def mutate_json(rng: random.Random, data: bytes) -> bytes:
    """Return the JSON text `data` with a few of its values replaced, removed, doubled, or nested."""
    try:
        return _mutate_json(rng, [json.loads(data)])
    except (ValueError, RecursionError):
        return mutate_bytes(rng, data)


def _mutate_json(rng: random.Random, value: list[Any]) -> bytes:
    for _ in range(rng.randint(1, 4)):
        holder: Any = value
        for _ in range(rng.randint(0, 6)):
            inner = holder if isinstance(holder, dict | list) else None
            keys = list(inner) if isinstance(inner, dict) else list(range(len(inner))) if inner else []
            keys = [key for key in keys if isinstance(inner[key], dict | list) and inner[key]] if inner else []
            if not keys:
                break
            holder = holder[rng.choice(keys)]
        keys = list(holder) if isinstance(holder, dict) else list(range(len(holder)))
        if not keys:
            continue
        key, what = rng.choice(keys), rng.randrange(8)
        if what < 4:
            holder[key] = copy.deepcopy(rng.choice(NASTY))
        elif what == 4:
            del holder[key]
        elif what == 5 and isinstance(holder, list):
            holder.append(copy.deepcopy(holder[key]))
        elif what == 6:
            for _ in range(rng.choice((3, 70, 400))):
                holder[key] = [holder[key]] if rng.random() < 0.5 else {"a": holder[key]}
        elif isinstance(holder, dict):
            new = rng.choice((*NASTY[10:30], "id", "file_name"))
            holder[str(new)] = holder.pop(key)
    return json.dumps(value[0] if value else None).encode()[:50_000]


def either(first: Callable[[random.Random, bytes], bytes]) -> Callable[[random.Random, bytes], bytes]:
    """Return a mutation that is `first` two times in three, and of bytes else."""
    return lambda rng, data: first(rng, data) if rng.random() < 0.67 else mutate_bytes(rng, data)


def tagged(mutations: dict[bytes, Callable[[random.Random, bytes], bytes]]) -> Callable[[random.Random, bytes], bytes]:
    """Return a mutation of files that begin with one of the tags, which stays."""
    return lambda rng, data: data[:1] + mutations.get(data[:1], mutate_bytes)(rng, data[1:])


def mutate_png(rng: random.Random, data: bytes) -> bytes:
    """Return the PNG `data` with chunks changed, moved, doubled, their checksums right again."""
    chunks, at = [], 8
    while at + 8 <= len(data):
        (length,) = struct.unpack(">I", data[at : at + 4])
        chunks.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + length]))
        at += 12 + length
    if not chunks or len(chunks) > 100:
        return mutate_bytes(rng, data)
    for _ in range(rng.randint(1, 3)):
        index, what = rng.randrange(len(chunks)), rng.randrange(4)
        name, body = chunks[index]
        if what == 0:
            chunks[index] = (name, mutate_bytes(rng, body))
        elif what == 1:
            chunks.insert(index, chunks[rng.randrange(len(chunks))])
        elif what == 2:
            extra = rng.choice((b"eXIf", b"iCCP", b"zTXt", b"iTXt", b"tRNS", b"PLTE", b"acTL", b"fcTL", b"fdAT"))
            chunks.insert(index, (extra, mutate_bytes(rng, zlib.compress(b"a" * 100))))
        elif len(chunks) > 1:
            del chunks[index]
    out = data[:8]
    for name, body in chunks:
        out += struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
    return out[:50_000]


def mutate_tensors(rng: random.Random, data: bytes) -> bytes:
    """Return the safetensors file `data` with its header changed as JSON, its length right again."""
    (length,) = struct.unpack("<Q", data[:8].ljust(8, b"\0"))
    header, body = data[8 : 8 + min(length, 1 << 20)], data[8 + min(length, 1 << 20) :]
    if rng.random() < 0.3:
        return mutate_bytes(rng, data)
    new = mutate_json(rng, header) if rng.random() < 0.8 else mutate_bytes(rng, header)
    return struct.pack("<Q", len(new)) + new + (body if rng.random() < 0.8 else mutate_bytes(rng, body))


# ---------------------------------------------------------------- readers


def exercise(root: Path, kind: str, data: bytes, targets: tuple[str, ...] = ("coco", "yolo", "voc")) -> None:
    """Check the data set at `root` and convert it; what can be converted can be read again, image by image."""
    out = root.with_name("out")
    with contextlib.suppress(UserError):
        for line in check(root, kind):
            assert len(line) < 5000, line[:200]
    if not targets:
        return
    target = targets[zlib.crc32(data) % len(targets)]
    shutil.rmtree(out, ignore_errors=True)
    try:
        convert.convert(root, out, kind, target)
    except UserError as error:
        assert len(str(error)) < 5000
        assert not out.exists()
        return
    again = convert.read(out, target)
    for entry in again.images:
        assert file_names.inside(again.folder, entry.file_name).is_file()


def _tree(root: Path, files: dict[str, bytes]) -> None:
    shutil.rmtree(root, ignore_errors=True)
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)


def _data_set(kind: str, files: dict[str, bytes], tags: dict[bytes, str], *, one_in: int = 1) -> Run:
    """Return what puts a mutated file in its place among `files` and reads the whole as `kind`.

    `tags` says by the first byte which file it is. It is converted too; only `one_in` of them where that is slow.
    """
    made: set[Path] = set()

    def run(data: bytes, sandbox: Path) -> None:
        root = sandbox / "set"
        if root not in made:
            _tree(root, files)
            made.add(root)
        if not (sandbox / OUTSIDE).exists():  # at the first call, which is not watched
            (sandbox / OUTSIDE).write_bytes(b"theirs")
        for folder in ("images", "JPEGImages"):
            place = root / folder
            if place.is_dir() and not (place / "loop.png").is_symlink():
                (place / "loop.png").symlink_to("loop.png")
                (place / "link.png").symlink_to(sandbox / OUTSIDE)
                os.mkfifo(place / "pipe.png")
        name = tags.get(data[:1])
        if name is None:
            return
        theirs = _state(sandbox / OUTSIDE)
        before = (root / name).read_bytes() if (root / name).exists() else None
        (root / name).write_bytes(data[1:])
        try:
            exercise(root, kind, data, ("coco", "yolo", "voc") if zlib.crc32(data[::-1]) % one_in == 0 else ())
        finally:
            (root / name).unlink()
            if before is not None:
                (root / name).write_bytes(before)
        assert _state(sandbox / OUTSIDE) == theirs, "changed by a library that Python does not watch"

    return run


def _state(path: Path) -> tuple[int, int, int]:
    """Return what changes with the file at `path`, which is not opened."""
    state = path.stat()
    return state.st_ino, state.st_size, state.st_mtime_ns


def _coco() -> dict[str, Any]:
    entries = [{"id": 1, "file_name": "a.png", "width": 24, "height": 16, "slide": "s1"},
               {"id": 2, "file_name": "b.jpg", "width": 24, "height": 16, "image_level_label": "LSIL"}]  # fmt: skip
    boxes = [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 2, 5.5, 6], "area": 33, "iscrowd": 0, "score": 0.5},
             {"id": 2, "image_id": 2, "category_id": 2, "bbox": [3, 2, 5, 6], "nucleus": [4, 5],
              "segmentation": [[1, 2, 3, 4, 5, 6]]}]  # fmt: skip
    return {
        "info": {"description": "x"}, "licenses": [{"id": 1, "name": "CC BY 4.0", "url": "u"}], "images": entries,
        "annotations": boxes, "categories": [{"id": 1, "name": "LSIL"}, {"id": 2, "name": "hsil"}],
    }  # fmt: skip


XML = (
    "<annotation><filename>a.png</filename><source><database>d</database></source><size><width>24</width>"
    "<height>16</height><depth>3</depth></size><object><name>LSIL</name><bndbox><xmin>1</xmin><ymin>2.5</ymin>"
    "<xmax>9</xmax><ymax>8</ymax></bndbox></object></annotation>"
)


def data_sets() -> dict[str, Reader]:
    """Return the readers of annotation files."""
    png, jpg = image("PNG"), image("JPEG")
    both = {"images/a.png": png, "images/b.jpg": jpg}
    coco = json.dumps(_coco()).encode()
    split = json.dumps({"train": ["a.png"], "val": ["b.jpg"]}).encode()
    said = {"extra": {"slide": 1}, "cells": [{"extra": {"nucleus": [1, 2]}, "score": 0.5}]}
    side = {"info": {"a": 1}, "licenses": [{"id": 1}], "categories": ["LSIL"], "images": {"a.png": said}}
    sidecar = json.dumps(side).encode()
    own = {"file_name": "../../x.png", "id": 77, "width": -1, "height": "x"}
    of_cell = {
        "bbox": "evil",
        "image_id": "nobody",
        "category_id": [],
        "score": "x",
        "area": "x",
        "nucleus": [1e300, 0],
    }
    side["images"] = {"a.png": {"extra": own, "cells": [{"extra": of_cell}, {"extra": of_cell}]}}
    evil = json.dumps(side).encode()
    yaml = b"path: .\ntrain: images\nnames: {0: LSIL, 1: HSIL}\nlicense: CC BY 4.0\n"
    label = b"0 0.5 0.5 0.2 0.4 0.9\n1 0.1 0.1 0.1 0.1\n"
    long = yaml + b"version: 0x" + b"f" * 5000
    yolo = {**both, "data.yaml": yaml, "labels/a.txt": label, "dataset.json": sidecar, "split.json": split}
    cells = [{"cell_id": 7, "bethesda_system": "HSIL", "nucleus_x": 10, "nucleus_y": 12}]
    cric = json.dumps(
        [{"image_id": 1, "image_name": "a.png", "image_doi": "10.1/a", "classifications": cells}]
    ).encode()
    table = b"image_id,image_filename,image_doi,cell_id,bethesda_system,nucleus_x,nucleus_y\n1,a.png,d,7,HSIL,10,12\n"
    loose = {"a.png": png, "b.jpg": jpg}
    other, xml = mutate_bytes, XML.encode()
    return {
        "COCO": Reader(
            (b"c" + coco, b"s" + split),
            _data_set("coco", {**both, "annotations.json": coco, "split.json": split},
                      {b"c": "annotations.json", b"s": "split.json"}),
            tagged({b"c": either(mutate_json), b"s": either(mutate_json)}),
        ),
        "YOLO": Reader(
            (b"y" + yaml, b"y" + long, b"l" + label, b"d" + sidecar, b"d" + evil, b"s" + split),
            _data_set("yolo", yolo, {b"y": "data.yaml", b"l": "labels/a.txt", b"d": "dataset.json",
                                     b"s": "split.json"}),
            tagged({b"d": either(mutate_json), b"s": either(mutate_json), b"y": _yaml_mutation}),
        ),
        "VOC": Reader(
            (b"x" + xml, b"d" + sidecar, b"d" + evil),
            _data_set("voc", {"JPEGImages/a.png": png, "Annotations/a.xml": xml, "dataset.json": sidecar},
                      {b"x": "Annotations/a.xml", b"d": "dataset.json"}),
            tagged({b"d": either(mutate_json), b"x": _xml_mutation}),
        ),
        "Roboflow COCO": Reader(
            (b"t" + coco, b"v" + coco),
            _data_set("coco", {"train/a.png": png, "valid/b.jpg": jpg, "train/_annotations.coco.json": coco,
                               "valid/_annotations.coco.json": coco},
                      {b"t": "train/_annotations.coco.json", b"v": "valid/_annotations.coco.json"}),
            tagged({b"t": either(mutate_json), b"v": either(mutate_json)}),
        ),
        "LabelImg YOLO": Reader(
            (b"kLSIL\nHSIL\n", b"l" + label, b"l0 0.1 0.1 0.5 0.1 0.5 0.5 0.1 0.5 0.9\n", b"p./a.png\n../b.jpg\n"),
            _data_set("yolo", {"a.png": png, "b.jpg": jpg, "a.txt": label, "classes.txt": b"LSIL\nHSIL\n",
                               "train.txt": b"a.png\n"},
                      {b"k": "classes.txt", b"l": "a.txt", b"p": "train.txt"}),
            tagged({}),
        ),
        "CRIC": Reader(
            (b"j" + cric, b"t" + table),
            _cric({b"j": _data_set("cric", {**loose, "classifications.json": cric}, {b"j": "classifications.json"}),
                   b"t": _data_set("cric", {**loose, "classifications.csv": table}, {b"t": "classifications.csv"})}),
            tagged({b"j": either(mutate_json), b"t": other}),
        ),
        "Comparison Detector": Reader(
            (b"c" + coco,), _data_set("comparison-detector", {**both, "annotations.json": coco},
                                      {b"c": "annotations.json"}, one_in=10),
            tagged({b"c": either(mutate_json)}),
        ),
        "folders": Reader(
            (b"a" + png, b"b" + jpg, b"nLSIL/c.png\nHSIL/d.jpg\n\xff/e.png\n.x/f.png\n" + b"y" * 200 + b"/g.png",
             b"nLSIL/c.png\n\xff/"),
            _folders(_data_set("folders", {"LSIL/a.png": png, "HSIL/b.jpg": jpg},
                               {b"a": "LSIL/a.png", b"b": "HSIL/b.jpg"}), png),
            tagged({b"a": either(mutate_png)}),
        ),
    }  # fmt: skip


def _folders(run_file: Run, png: bytes) -> Run:
    """Return what reads a mutated image in its folder, or (first byte `n`) the image `png` under mutated names."""

    def run(data: bytes, sandbox: Path) -> None:
        if data[:1] != b"n":
            run_file(data, sandbox)
            return
        root = sandbox / "names"
        shutil.rmtree(root, ignore_errors=True)
        root.mkdir()
        for name in data[1:].split(b"\n"):
            path = os.path.join(os.fsencode(root), name)  # noqa: PTH118
            if name.startswith(b"/") or b".." in name:
                continue
            with contextlib.suppress(OSError, ValueError):
                os.makedirs(os.path.dirname(path), exist_ok=True)  # noqa: PTH103, PTH120
                with open(path, "wb") as file:  # noqa: PTH123
                    file.write(png)
        exercise(root, "folders", data)

    return run


def _cric(runs: dict[bytes, Run]) -> Run:
    def run(data: bytes, sandbox: Path) -> None:
        if data[:1] in runs:
            inner = sandbox / data[:1].decode()
            inner.mkdir(exist_ok=True)
            runs[data[:1]](data, inner)

    return run


def _yaml_mutation(rng: random.Random, data: bytes) -> bytes:
    if rng.random() < 0.5:
        return mutate_bytes(rng, data)
    lines = data.split(b"\n")
    value = rng.choice(NASTY)
    spelled = rng.choice((
        b"!!python/name:os.system x", b"&a [*a]", b"&a [1]\nb: *a", b"2001-13-77", b"!!binary x", b"!!set {a}",
        b"1:60:60", b"!!float x", b"? a", b"| \n  x", b".nan", b"0o9", b"{" * 200, repr(value).encode(errors="replace"),
    ))  # fmt: skip
    at = rng.randrange(len(lines))
    lines[at] = lines[at].split(b":")[0] + b": " + spelled
    return b"\n".join(lines)


def _xml_mutation(rng: random.Random, data: bytes) -> bytes:
    if rng.random() < 0.5:
        return mutate_bytes(rng, data)
    head = rng.choice((
        b"", b'<?xml version="1.0" encoding="x"?>', b'<?xml version="1.0" encoding="utf-16"?>',
        b'<!DOCTYPE a SYSTEM "/etc/passwd">', b'<!DOCTYPE a [<!ENTITY x "y">]>', b"<a>" * 3000,
    ))  # fmt: skip
    value = str(rng.choice(NASTY)).encode(errors="replace").replace(b"<", b"&lt;")
    parts = data.split(b">")
    at = rng.randrange(len(parts))
    parts[at] = value + parts[at][parts[at].find(b"<") :]
    return head + b">".join(parts)


def _image(suffix: str) -> Run:
    def run(data: bytes, sandbox: Path) -> None:
        path = sandbox / f"a{suffix}"
        path.write_bytes(data)
        with contextlib.suppress(UserError):
            width, height = image_files.size(path)
            assert width * height <= image_files.MAX_PIXELS
            if width * height <= 4_000_000:
                pixels = image_files.read(path)
                assert pixels.shape == (height, width, 3)
                image_files.read(path, 0.5)

    return run


def images() -> dict[str, Reader]:
    """Return the readers of image files."""
    exif = Image.Exif()
    exif[0x0112] = 6
    png = (*(image("PNG", mode=mode) for mode in ("RGB", "RGBA", "L", "P", "1")), image("PNG", exif=exif))
    turned = Image.Exif()
    turned[0x0112] = 8
    jpeg = (
        image("JPEG"),
        image("JPEG", progressive=True),
        image("JPEG", mode="CMYK"),
        image("JPEG", exif=exif),
    )
    tiff = tuple(
        image("TIFF", mode=mode, compression=how)
        for mode, how in (("RGB", None), ("RGBA", "tiff_lzw"), ("L", "tiff_deflate"), ("1", "group4"), ("RGB", "jpeg"),
                          ("P", "packbits"), ("CMYK", "tiff_adobe_deflate"))
    )  # fmt: skip
    tiff += (image("TIFF", exif=turned),)
    return {
        "PNG": Reader(png, _image(".png"), either(mutate_png)),
        "JPEG": Reader(jpeg, _image(".jpg"), mutate_bytes),
        "TIFF": Reader(tiff, _image(".tif"), mutate_bytes),
        "BMP and WebP": Reader(
            (image("BMP"), image("WEBP"), image("WEBP", lossless=True)), _image(".png"), mutate_bytes
        ),
    }


def _plan(data: bytes, sandbox: Path) -> None:
    from cytosynth.synthesis import fitting, plan

    path = sandbox / "plan.json"
    path.write_bytes(data)
    with contextlib.suppress(UserError):
        read = plan.read(path)
        fitting.fit(read, path, {image.file_name: (320, 320) for image in read.images}, 1.5)


def _recipe(data: bytes, sandbox: Path) -> None:
    data = data[:6000]  # PyYAML is slow
    from cytosynth.normal.recipe import NormalRecipe
    from cytosynth.synthesis.resume import Pinned

    path = sandbox / "recipe.yaml"
    path.write_bytes(data)
    with contextlib.suppress(UserError):
        config.dump(config.read(Pinned, path))
    with contextlib.suppress(UserError):
        config.pin(NormalRecipe(), path)
    with contextlib.suppress(UserError, UnicodeDecodeError):
        config.dump(config.override(NormalRecipe(), ["data=" + data.decode(), data.decode()]))


def _records(data: bytes, sandbox: Path) -> None:
    from cytosynth.bethesda import ABNORMAL
    from cytosynth.provenance import read_records
    from cytosynth.synthesis.publish import About, publish
    from cytosynth.synthesis.settings import PipelineSettings

    (sandbox / "images").mkdir(exist_ok=True)
    (sandbox / "images/000000.png").write_bytes(image("PNG"))
    (sandbox / "provenance.jsonl").write_bytes(data)
    records = read_records(sandbox, ABNORMAL)
    for name, record in records.items():
        assert file_names.unsafe(name) is None
        assert record["file_name"] == name
    publish(sandbox, list(records.values()), PipelineSettings(), About("synthetic", {"gate": "a b"}))


def texts() -> dict[str, Reader]:
    """Return the readers of plans, recipes and records."""
    from cytosynth.config import dump
    from cytosynth.normal.recipe import NormalRecipe

    cell = {"bbox_xyxy": [10.0, 10.0, 50.0, 60.0], "category": "HSIL", "seed": 3}
    entry = {
        "file_name": "000000.png",
        "generated": {"seed": 1, "index": 0},
        "width": 320,
        "height": 320,
        "cells": [cell],
    }
    plan = {"version": 1, "settings": {}, "models": {"cell": "x"}, "images": [entry]}
    record = {
        "file_name": "000000.png",
        "origin": "synthetic",
        "width": 320,
        "height": 320,
        "cells": [cell],
        "seed": 1,
        "key": 0,
    }
    gated = {**cell, "attempts": [{"seed": 3, "reasons": ["seam"], "scores": {"seam": 2.0}}]}
    nowhere = {**cell, "bbox_xyxy": [float("nan")] * 4}
    changes: tuple[dict[str, Any], ...] = (
        {}, {"cells": [gated], "rejected": [gated]}, {"cells": [{}]}, {"rejected": [cell]}, {"original": "a.png"},
        {"picture": {"file_name": "../x.png"}}, {"picture": [1]}, {"cells": [nowhere]},
        {"cells": [{**cell, "category": []}]}, {"width": "x"},
    )  # fmt: skip
    records = tuple(json.dumps({**record, **change}).encode() + b"\n" for change in changes)
    recipe = dump(NormalRecipe()).encode()
    return {
        "plan": Reader((json.dumps(plan).encode(),), _plan, either(mutate_json)),
        "recipe": Reader((recipe, b"seed: 1\nrank: 4\n", b"seed: 0x1" + b"f" * 5000), _recipe, _yaml_mutation),
        "records": Reader(records, _records, either(mutate_json)),
    }


def weights() -> dict[str, Reader]:
    """Return the readers of weights and of what stands beside them."""
    import torch
    from safetensors.torch import save

    from cytosynth.adapters import load, lora_file
    from cytosynth.io import tensors
    from cytosynth.training import checkpoint

    lora = {
        "unet.down.attn2.to_q.lora_A.weight": torch.ones(2, 8), "unet.down.attn2.to_q.lora_B.weight": torch.ones(8, 2),
    }  # fmt: skip
    kohya = {
        "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_q.lora_down.weight": torch.ones(2, 8),
        "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_q.lora_up.weight": torch.ones(8, 2),
        "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_q.alpha": torch.tensor(2.0),
    }
    metadata = {"lora_adapter_metadata": json.dumps({"unet.lora_alpha": 4, "unet.alpha_pattern": {"to_q": 2}})}
    patterns: tuple[Any, ...] = ([1], {"(": 1}, {"(a+)+b": 1}, {"to_q": []})
    settings = [*({"unet.lora_alpha": alpha} for alpha in ("x", None, 10**400)),
                *({"unet.alpha_pattern": pattern} for pattern in patterns)]  # fmt: skip
    headers = [*map(json.dumps, settings), "[" * 100_000, "[[1, 2]]", "9" * 5000]
    hostile = [{"lora_adapter_metadata": header} for header in headers]
    peft = {"base_model.model.down.attn2.to_q.lora_A.weight": torch.ones(2, 8),
            "base_model.model.down.attn2.to_q.lora_B.weight": torch.ones(8, 2)}  # fmt: skip

    def run(data: bytes, sandbox: Path) -> None:
        path = sandbox / "a.safetensors"
        path.write_bytes(data)
        (sandbox / "adapter_config.json").write_text('{"lora_alpha": 4}')
        with contextlib.suppress(UserError):
            tensors.read(path)
        with contextlib.suppress(UserError):
            load.identified(path)
        with contextlib.suppress(UserError):
            lora_file.read(path, None)

    def saved(data: bytes, sandbox: Path) -> None:
        root = sandbox / "checkpoints"
        if not root.exists():
            state = checkpoint.Checkpoint(
                1, {"a": torch.ones(4)}, {"0.step": torch.ones(1)}, {}, {"sums": {"loss": 0.5}}
            )
            checkpoint.save(root, state, keep=2)
        state = checkpoint.Checkpoint(2, {"a": torch.ones(4)}, {"0.step": torch.ones(1)}, {}, {"sums": {"loss": 0.5}})
        checkpoint.save(root, state, keep=2)
        name = {b"s": "state.json", b"w": "weights.safetensors"}.get(data[:1])
        if name is None:
            return
        whole = (root / "step-00000002" / name).read_bytes()
        (root / "step-00000002" / name).write_bytes(data[1:])
        found, complaints = checkpoint.newest(root)
        same = data[1:] == whole or (name == "state.json" and _equal(data[1:], whole))
        assert found is not None and found.step == (2 if same else 1), complaints
        assert len(complaints) == (0 if same else 1)

    whole = json.dumps({"of_state": "0" * 64, "step": 2, "sha256": {"weights.safetensors": "0"}, "extra": {}})
    return {
        "safetensors": Reader(
            (save(lora, metadata), save(kohya), save(peft), save({"x": torch.ones(1, 4)}),
             *(save({name.replace("down", "a" * 40): lora[name] for name in lora}, said) for said in hostile),
             *(save({**kohya, name: torch.ones(2)}) for name in kohya),
             *(save({**kohya, name: torch.ones(0, 8)}) for name in kohya)), run, mutate_tensors
        ),
        "checkpoint": Reader(
            (b"s" + whole.encode(), b"w" + save({"a": torch.ones(4)})), saved,
            tagged({b"s": either(mutate_json), b"w": mutate_tensors}),
        ),
    }  # fmt: skip


def _equal(first: bytes, second: bytes) -> bool:
    try:
        return bool(json.loads(first) == json.loads(second))
    except (ValueError, RecursionError):
        return False


def reader(name: str) -> Reader:
    """Return the reader called `name`, one of NAMES; only those of weights import torch."""
    for group in (data_sets, images, texts):
        found = group()
        if name in found:
            return found[name]
    return weights()[name]


NAMES = ("COCO", "YOLO", "VOC", "Roboflow COCO", "LabelImg YOLO", "CRIC", "Comparison Detector", "folders", "PNG",
         "JPEG", "TIFF", "BMP and WebP", "plan", "recipe", "records", "safetensors", "checkpoint")  # fmt: skip


# ---------------------------------------------------------------- the watch

CHANGES = ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.truncate", "os.link", "os.symlink", "os.chmod",
           "os.chown", "os.utime", "os.setxattr")  # fmt: skip
FORBIDDEN = ("socket.connect", "socket.getaddrinfo", "socket.bind", "socket.sendto", "subprocess.Popen", "os.system",
             "os.exec", "os.posix_spawn", "os.fork", "os.forkpty", "pty.spawn", "pickle.find_class")  # fmt: skip
OWN = (sys.prefix, sys.base_prefix, "/usr", "/lib", "/proc", "/sys", "/dev/null")
OUTSIDE = "outside.png"
"""Name of the file that links out lead to; opening it is a touch wherever it lies."""
_watched: Path | None = None
_installed = False
touched: list[str] = []


@contextlib.contextmanager
def watch(sandbox: Path) -> Iterator[None]:
    """Note in `touched` what this process changes outside `sandbox`, reads of others' files, and any call out."""
    global _watched, _installed
    if not _installed:
        sys.addaudithook(_hook)
        _installed = True
    _watched = sandbox.resolve()
    touched.clear()
    try:
        yield
    finally:
        _watched = None
    assert not touched, touched[:5]


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if _watched is None:
        return
    if event in FORBIDDEN:
        touched.append(f"{event} {arguments!r}")
    elif event == "open" and isinstance(arguments[0], str | bytes):
        path, mode, flags = os.fsdecode(arguments[0]), arguments[1], arguments[2]
        writes = bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)) if isinstance(flags, int) else False
        if mode is None and not path.startswith("/") and not writes:
            return  # below an open folder: how shutil.rmtree goes down
        real = os.path.realpath(path)
        own = not writes and (real.startswith(OWN) or real.endswith((".py", ".pyc", ".so")))
        if not (_inside(real) or own) or os.path.basename(real) == OUTSIDE:  # noqa: PTH119
            touched.append(f"open {path} {flags}")
    elif event in CHANGES:
        places = {"os.rename": (0, 1), "os.link": (0, 1), "os.symlink": (1,)}.get(event, (0,))
        follows = event in ("os.truncate", "os.chmod", "os.utime")  # of a link, what is behind it is changed
        folder = arguments[-1]
        for path in (os.fsdecode(arguments[place]) for place in places if not isinstance(arguments[place], int)):
            if not path.startswith("/") and isinstance(folder, int) and folder > 0:
                path = os.path.join(os.readlink(f"/proc/self/fd/{folder}"), path)  # noqa: PTH118, PTH115
            parent, name = os.path.split(path)
            place = os.path.realpath(path) if follows else os.path.join(os.path.realpath(parent), name)  # noqa: PTH118
            if not _inside(place):
                touched.append(f"{event} {arguments!r}")


def _inside(real: str) -> bool:
    return real == str(_watched) or real.startswith(f"{_watched}/")
