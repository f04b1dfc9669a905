"""Data sets of any size, image by image: COCO in parts, WebDataset, Parquet."""

import io
import json
import tarfile
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow.parquet
import pytest
from PIL import Image as PILImage

from cytosynth import devices
from cytosynth.annotations import Cell, DataSet, Image
from cytosynth.data import sources, streaming
from cytosynth.data.check import check
from cytosynth.data.formats import coco, coco_parts, packed, parquet, webdataset
from cytosynth.data.sources import Source
from cytosynth.errors import FormatProblem, UsageError, UserError
from cytosynth.evaluate import image_set
from cytosynth.io import atomic
from cytosynth.io.seen import seen

PACKED = ("webdataset", "parquet")
LICENCE = {"id": 1, "name": "CC BY 4.0", "url": "https://creativecommons.org/licenses/by/4.0/"}


def write_set(root: Path, count: int) -> DataSet:
    """Write `count` images of 16 x 12 pixels, two cells on each, in two folders, with a split."""
    rng = np.random.default_rng(0)
    images = []
    for number in range(count):
        name = f"{'a' if number % 2 else 'b'}/image {number}.{'jpg' if number % 3 else 'png'}"
        (root / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        PILImage.fromarray(rng.integers(0, 255, (12, 16, 3), dtype=np.uint8)).save(root / "images" / name)
        x = number % 4
        cells = (
            Cell((x, 1.0, x + 6.5, 8.0), "HSIL", extra={"nucleus": [x + 3.0, 4.0]}),
            Cell((0, 0, 3, 3), "NILM", 0.25),
        )
        extra = {"license": 1, "slide": f"s{number // 2}", "image_level_label": "HSIL"}
        images.append(Image(name, 16, 12, cells, extra))
    data = DataSet(root / "images", tuple(images), ("NILM", "HSIL"), (LICENCE,), {"synthetic": True})
    coco.write(data, root)
    names = [image.file_name for image in images]
    atomic.write_json(root / "split.json", {"train": names[:-4], "val": names[-4:-2], "test": names[-2:]})
    return data


@pytest.fixture
def small_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of few images, so that a small set has several."""
    monkeypatch.setattr(packed, "IMAGES", 4)
    monkeypatch.setattr(parquet, "GROUP", 3)
    monkeypatch.setattr(coco_parts, "IMAGES", 4)
    monkeypatch.setattr(coco_parts, "LARGEST", 8)


@pytest.mark.parametrize("kind", PACKED)
def test_there_and_back_loses_nothing(kind: str, small_files: None, tmp_path: Path) -> None:
    write_set(tmp_path / "set", 10)
    written = streaming.convert(tmp_path / "set", tmp_path / "packed", None, kind)
    assert (written.images, written.cells) == (10, 20)
    assert len(list((tmp_path / "packed").glob("00000[012].*"))) == 3
    found = streaming.opened(tmp_path / "packed")
    given = coco.read(tmp_path / "set")
    assert [entry.image for entry in found] == list(given.images)
    assert [found[number].content() for number in (9, 0, 5)] == [
        given.path(given.images[number]).read_bytes() for number in (9, 0, 5)
    ]
    assert found.about == replace(given, images=(), folder=found.about.folder)
    assert list(streaming.check(tmp_path / "packed")) == []
    # Ids are those of the single file, wherever it is written.
    streaming.convert(tmp_path / "packed", tmp_path / "again", None, "coco")
    parts = [json.loads(file.read_text()) for file in coco.parts(tmp_path / "again")]
    one = json.loads((tmp_path / "set/annotations.json").read_text())
    for key in ("images", "annotations"):
        assert [entry for part in parts for entry in part[key]] == one[key]
    assert (tmp_path / "again/split.json").read_bytes() == (tmp_path / "set/split.json").read_bytes()
    assert coco.read(tmp_path / "again").images == given.images
    assert list(streaming.check(tmp_path / "again")) == check(tmp_path / "set") == []
    # The bytes do not depend on when, or from what, they are written.
    streaming.convert(tmp_path / "again", tmp_path / "third", None, kind)
    for file in (tmp_path / "packed").iterdir():
        assert (tmp_path / "third" / file.name).read_bytes() == file.read_bytes()


def test_webdataset_is_plain_tar_and_parquet_has_the_usual_columns(tmp_path: Path) -> None:
    data = write_set(tmp_path / "set", 2)
    streaming.convert(tmp_path / "set", tmp_path / "w", None, "webdataset")
    with tarfile.open(tmp_path / "w/000000.tar") as tar:
        assert tar.getnames() == ["000000001.png", "000000001.json", "000000002.jpg", "000000002.json"]
        said = json.load(tar.extractfile("000000002.json"))
        assert said["file_name"] == "a/image 1.jpg"
        assert [entry["id"] for entry in said["annotations"]] == [3, 4]
    streaming.convert(tmp_path / "set", tmp_path / "p", None, "parquet")
    rows = pyarrow.parquet.read_table(tmp_path / "p/000000.parquet").to_pylist()
    assert [row["image_id"] for row in rows] == [1, 2]
    assert rows[1]["image"] == {"bytes": data.path(data.images[1]).read_bytes(), "path": "a/image 1.jpg"}
    assert rows[1]["objects"]["category"] == ["HSIL", "NILM"]
    assert rows[1]["objects"]["bbox"] == [[1.0, 1.0, 6.5, 7.0], [0.0, 0.0, 3.0, 3.0]]


@pytest.mark.parametrize("kind", PACKED)
def test_training_and_measuring_read_what_they_read_from_files(kind: str, small_files: None, tmp_path: Path) -> None:
    write_set(tmp_path / "set", 10)
    streaming.convert(tmp_path / "set", tmp_path / "packed", None, kind)
    for part in ("train", "test", "all"):
        wanted = sources.load([Source(root="set", split=part, scale=0.5)], tmp_path)
        found = sources.load([Source(root="packed", split=part, scale=0.5)], tmp_path)
        both = sources.load([Source(root=name, split=part, scale=0.5) for name in ("set", "packed")], tmp_path)
        assert len(found) == len(wanted) == len(both) / 2
        for one, other, third in zip(wanted, found, list(both)[len(wanted) :], strict=True):
            assert (one.name, one.cells, one.label, one.size) == (other.name, other.cells, other.label, other.size)
            assert np.array_equal(one.pixels, other.pixels)
            assert np.array_equal(one.pixels, third.pixels)
        assert both[-1].name == wanted[-1].name
        ours, theirs = (image_set.gather(tmp_path / name, part, 0.5) for name in ("packed", "set"))
        assert ours.groups == theirs.groups
        assert ours.keys() == theirs.keys(), "features are cached under the same names"
        assert all(map(np.array_equal, ours, theirs))
    assert len(sources.held_out([Source(root="packed")], tmp_path)) == 2
    with pytest.raises(UserError, match=r"no part 'x'; the parts are test, train, val"):
        sources.load([Source(root="packed", split="x")], tmp_path)


def test_a_part_by_hash_is_the_same_packed(small_files: None, tmp_path: Path) -> None:
    write_set(tmp_path / "set", 10)
    (tmp_path / "set/split.json").unlink()
    streaming.convert(tmp_path / "set", tmp_path / "w", None, "webdataset")
    for part in ("train", "val", "test"):
        names = [
            [sample.name for sample in sources.load([Source(root=root, split=part)], tmp_path, required=False)]
            for root in ("set", "w")
        ]
        assert names[0] == names[1]


@pytest.mark.parametrize("kind", PACKED)
def test_what_is_wrong_is_said(kind: str, small_files: None, tmp_path: Path) -> None:
    data = write_set(tmp_path / "set", 5)
    broken = data.path(data.images[2])
    whole = broken.read_bytes()
    broken.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"image 2.jpg: truncated"):
        streaming.convert(tmp_path / "set", tmp_path / "x", None, kind)
    assert not (tmp_path / "x").exists()
    wrong = replace(data, images=(replace(data.images[0], width=17), *data.images[1:]))
    coco.write(wrong, tmp_path / "set")
    broken.write_bytes(whole)
    with pytest.raises(UserError, match=r"image 0.png: is 16x12, annotated as 17x12"):
        streaming.convert(tmp_path / "set", tmp_path / "x", None, kind)
    coco.write(replace(data, images=(*data.images, data.images[1])), tmp_path / "set")
    with pytest.raises(UserError, match=r"a/image 1.jpg is listed twice"):
        streaming.convert(tmp_path / "set", tmp_path / "x", None, kind)
    coco.write(data, tmp_path / "set")
    streaming.convert(tmp_path / "set", tmp_path / "x", None, kind)
    with pytest.raises(UserError, match="already exists; give a new folder"):
        streaming.convert(tmp_path / "set", tmp_path / "x", None, kind)
    with pytest.raises(UsageError, match=r"--rename LSIL: unknown category; .* has 'HSIL', 'NILM'"):
        streaming.convert(tmp_path / "x", tmp_path / "y", None, "coco", {"LSIL": "HSIL"})
    with pytest.raises(UsageError, match="convert it to coco first"):
        streaming.convert(tmp_path / "x", tmp_path / "y", None, "voc")
    second = tmp_path / "x" / f"000001.{globals()[kind].SUFFIX}"
    second.write_bytes(second.read_bytes()[:600])
    with pytest.raises(FormatProblem, match="000001"):
        list(streaming.opened(tmp_path / "x"))
    second.rename(second.with_stem("000002"))
    with pytest.raises(FormatProblem, match=r"000001.* is missing, but 000002"):
        streaming.opened(tmp_path / "x")


def tar(path: Path, members: dict[str, bytes]) -> None:
    with tarfile.open(path, "w") as file:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            if name.endswith("@"):
                info.type, info.linkname, info.size = tarfile.SYMTYPE, "/etc/passwd", 0
            file.addfile(info, io.BytesIO(content))


def entry(**changes: object) -> bytes:
    said = {"id": 1, "file_name": "a.png", "width": 1, "height": 1, "annotations": []}
    return json.dumps(said | changes).encode()


@pytest.mark.parametrize(
    ("members", "complaint"),
    [
        ({"a.png": b""}, "a.json is missing"),
        ({"a.json": b"{}"}, "expected an image, followed by its .json"),
        ({"a.png": b"", "b.json": b"{}"}, "expected an image, followed by its .json"),
        ({"a.png@": b""}, "is not a file"),
        ({"a.png": b"", "a.json": b"[]"}, "a JSON object is expected, found list"),
        ({"a.png": b"", "a.json": b"{"}, "not readable JSON"),
        ({"a.png": b"", "a.json": b"\xff"}, "not readable JSON"),
        ({"a.png": b"", "a.json": b" " * (5 << 20)}, "larger than 4 MiB"),
        ({"a.png": b"", "a.json": b"{}"}, "images.0.: no 'id'|the list 'annotations' is missing"),
        ({"a.png": b"", "a.json": entry(file_name="../a.png")}, "leaves its folder"),
        ({"a.png": b"", "a.json": entry(width=1e12)}, "beyond 1e\\+09 pixels"),
        ({"a.png": b"", "a.json": entry(annotations=[{"image_id": 2}])}, "no image of id 2"),
    ],
)  # fmt: skip
def test_hostile_tar_files(members: dict[str, bytes], complaint: str, tmp_path: Path) -> None:
    atomic.write_json(tmp_path / "about.json", {"images": [], "annotations": [], "categories": []})
    tar(tmp_path / "000000.tar", members)
    with pytest.raises(FormatProblem, match=complaint):
        list(streaming.opened(tmp_path))


def test_a_bomb_in_a_tar_is_refused_as_in_a_file(tmp_path: Path) -> None:
    atomic.write_json(tmp_path / "about.json", {"images": [], "annotations": [], "categories": []})
    bomb = io.BytesIO()
    PILImage.new("1", (60_000, 60_000)).save(bomb, "PNG")
    tar(tmp_path / "000000.tar", {"a.png": bomb.getvalue(), "a.json": entry(width=60_000, height=60_000)})
    (problem,) = streaming.check(tmp_path)
    assert "bomb" in problem
    assert webdataset.WebDataset(tmp_path)[0].image.width == 60_000


def test_what_was_seen_is_found_again() -> None:
    with seen() as names:
        assert names.first("a", "one") is None
        assert names.first("b", "two") is None
        assert names.first("a", "three") == "one"


def test_a_finished_set_is_packed_once_and_anew_when_it_grew(tmp_path: Path) -> None:
    data = write_set(tmp_path / "set", 5)
    streaming.pack(tmp_path / "set", None)
    assert not (tmp_path / "set/parquet").exists()
    streaming.pack(tmp_path / "set", "parquet")
    first = (tmp_path / "set/parquet/000000.parquet").stat().st_mtime_ns
    streaming.pack(tmp_path / "set", "parquet")
    assert (tmp_path / "set/parquet/000000.parquet").stat().st_mtime_ns == first
    coco.write(replace(data, images=data.images[:3]), tmp_path / "set")
    streaming.pack(tmp_path / "set", "parquet")
    assert [entry.image for entry in streaming.opened(tmp_path / "set/parquet")] == list(
        coco.read(tmp_path / "set").images
    )


@pytest.mark.parametrize(("system", "unit"), [("linux", 1024), ("darwin", 1)])
def test_memory_is_counted_in_the_unit_of_the_system(system: str, unit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """`getrusage` says KiB on Linux and bytes on macOS (its manual pages)."""
    monkeypatch.setattr(devices.sys, "platform", system)
    monkeypatch.setattr(devices.resource, "getrusage", lambda _who: SimpleNamespace(ru_maxrss=3000))
    assert devices.peak_memory() == 3000 * unit
