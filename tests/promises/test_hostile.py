"""Input from strangers: never a traceback, a hang, a touch outside; no code from data; nothing whose size runs away."""

import json
import os
import pickle
import random
import re
import shutil
import socket
import subprocess
import sys
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

import configurations
import nasty
from conftest import write_fields
from cytosynth import config, provenance
from cytosynth.bethesda import ABNORMAL
from cytosynth.data import convert, file_names, image_files
from cytosynth.data.check import check
from cytosynth.data.formats import coco, cric
from cytosynth.errors import UsageError, UserError
from cytosynth.io import lock, plain, records, tensors
from cytosynth.normal.recipe import NormalRecipe

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = int(os.environ.get("CYTOSYNTH_EXAMPLES", "30"))
some = settings(max_examples=EXAMPLES, deadline=None, database=None, derandomize=True,
                suppress_health_check=list(HealthCheck))  # fmt: skip
fuzzed = pytest.mark.promise("Hostile or broken input")


@fuzzed
@pytest.mark.parametrize("name", nasty.NAMES)
@pytest.mark.slow
def test_mutated_files(name: str, tmp_path: Path) -> None:
    reader = nasty.reader(name)
    for seed in reader.seeds:
        reader.run(seed, tmp_path)
    rng = random.Random(7)
    for _ in range(EXAMPLES):
        data = reader.mutate(rng, rng.choice(reader.seeds))
        started = time.monotonic()
        with nasty.watch(tmp_path):
            reader.run(data, tmp_path)
        assert time.monotonic() - started < 10


@fuzzed
@pytest.mark.parametrize(("name", "seed", "value"), [
    ("VOC", 0, "<xmin>1"), ("VOC", 0, "LSIL"), ("VOC", 0, "<width>24"), ("YOLO", 2, "0.5"), ("YOLO", 0, "LSIL"),
    ("COCO", 0, "LSIL"), ("COCO", 0, "a.png"), ("COCO", 0, "5.5"), ("CRIC", 0, "HSIL"), ("CRIC", 1, "12"),
    ("CRIC", 0, "a.png"), ("folders", 2, "LSIL"),
])  # fmt: skip
def test_what_is_said_of_a_long_value_is_short(name: str, seed: int, value: str, tmp_path: Path) -> None:
    reader = nasty.reader(name)  # fails on a line of 5,000 characters
    reader.run(reader.seeds[seed].replace(value.encode(), value.encode()[:-1] + b"a" * 9000), tmp_path)


@fuzzed
@pytest.mark.parametrize("wrong", [
    {"seed": float("nan")}, {"key": "a"}, {"width": 1.5}, {"picture": {"a": float("inf")}}, {"picture": 3},
    {"room": 10**12}, {"room": -5}, {"room": 2.0},
    {"original": float("nan"), "original_sha256": "0"}, {"original": "a"}, {"cells": 3},
    {"cells": [{"bbox_xyxy": [9, 2, 1, 8], "category": "HSIL", "seed": 1}]},
    {"cells": [{"bbox_xyxy": [1, 2, 9, float("nan")], "category": "HSIL", "seed": 1}]},
])  # fmt: skip
def test_a_record_that_cannot_be_ours_is_not_gone_on_from(wrong: dict[str, object], tmp_path: Path) -> None:
    ours = {"file_name": "a.png", "origin": "synthetic", "seed": 1, "key": 0, "width": 32, "height": 32,
            "cells": [{"bbox_xyxy": [1, 2, 9, 8], "category": "HSIL", "seed": 1}]}  # fmt: skip
    (tmp_path / "images").mkdir()
    Image.new("RGB", (32, 32)).save(tmp_path / "images/a.png")
    provenance.write_records(tmp_path, [ours])
    assert provenance.read_records(tmp_path, ABNORMAL) == {"a.png": ours}
    provenance.write_records(tmp_path, [ours | wrong])
    assert provenance.read_records(tmp_path, ABNORMAL) == {}


@fuzzed
def test_lines_that_hold_no_value_are_dropped(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    assert list(plain.lines(path)) == []
    cut = json.dumps({"a": "ä"}, ensure_ascii=False).encode()[:-3]  # amid the letter
    path.write_bytes(
        b'\xef\xbb\xbf{"a": 1}\n\n\xff{}\n[NaN]\n"\\ud800"\n1%s\n%s\n{"b": 2}\n%s' % (b"0" * 30, b"[" * 9000, cut)
    )
    found = list(plain.lines(path))
    assert (found[0], found[2:], str(found[1])) == ({"a": 1}, [{"b": 2}], "[nan]")


@pytest.mark.promise("Generation survives being killed")
def test_a_line_that_a_kill_cut_short_is_gone_when_the_next_is_written(tmp_path: Path) -> None:
    path, whole = tmp_path / "a.jsonl", tmp_path / "whole.jsonl"
    values = [{"a": 1}, {"b": "ä" * 10_000}, {"c": 3}]
    for value in values:
        records.append_line(whole, value)
    expected = whole.read_bytes()
    first = expected.index(b"\n") + 1
    for length in (*range(first + 1), *range(first + 1, first + 30_000, 997), first + 4096, first + 8192):
        path.write_bytes(expected[:length])
        done = len(list(plain.lines(path)))
        for value in values[done:]:
            records.append_line(path, value)
        assert path.read_bytes() == expected, length


@fuzzed
def test_records_that_are_no_file_or_endless_end_in_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "provenance.jsonl"
    os.mkfifo(path)
    with pytest.raises(UserError, match=r"provenance.jsonl: not a regular file"):
        provenance.said(tmp_path)
    path.unlink()
    path.symlink_to("/dev/zero")
    with pytest.raises(UserError, match=r"provenance.jsonl: not a regular file"):
        provenance.said(tmp_path)
    path.unlink()
    with path.open("wb") as file:
        file.truncate(plain.MAX_BYTES + 1)
    with pytest.raises(UserError, match=r"provenance.jsonl: larger than 512 MiB"):
        provenance.said(tmp_path)
    monkeypatch.setattr(plain, "MAX_PARSED", 10_000)
    for many in ("[" + "[]," * 100 + "0]\n", '{"a": 1}\n' * 100, "\n" * 100):
        path.write_text(many)
        with pytest.raises(UserError, match=r"provenance.jsonl: its values would take more than"):
            provenance.said(tmp_path)


@fuzzed
@pytest.mark.slow
def test_every_value_in_a_models_configuration_runs_or_is_one_line(tiny: Path, tmp_path: Path) -> None:
    run = configurations.models(tiny, tmp_path)
    tried = random.Random(3).sample(configurations.cases(tmp_path), min(2 * EXAMPLES, 100))
    tried.append(configurations.Case("dinov2", "config.json", ("patch_size",), [64] * 9))
    assert list(configurations.problems(tmp_path, tried, run)) == []


leaves = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.sampled_from(nasty.NASTY)
anything = st.recursive(leaves, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner),
                        max_leaves=12)  # fmt: skip


def mostly(right: st.SearchStrategy) -> st.SearchStrategy:
    """Return what is right nine times in ten."""
    return st.integers(0, 9).flatmap(lambda n: right if n else anything)


ids = mostly(st.integers(0, 3))
images = st.fixed_dictionaries(
    {"id": ids, "file_name": mostly(st.sampled_from(["a.png", "b.jpg"])), "width": mostly(st.just(24)),
     "height": mostly(st.just(16))}, optional={"slide": anything, "license": anything},
)  # fmt: skip
boxes = st.fixed_dictionaries(
    {"id": ids, "image_id": ids, "category_id": ids,
     "bbox": mostly(st.lists(st.floats(0, 30), min_size=4, max_size=4))},
    optional={"score": mostly(st.floats(0, 1)), "nucleus": anything, "segmentation": anything},
)  # fmt: skip
names = st.fixed_dictionaries({"id": ids, "name": mostly(st.sampled_from(["LSIL", "HSIL"]))})
documents = st.fixed_dictionaries(
    {"images": mostly(st.lists(mostly(images), max_size=4)),
     "categories": mostly(st.lists(mostly(names), max_size=3)),
     "annotations": mostly(st.lists(mostly(boxes), max_size=4))}, optional={"info": anything, "licenses": anything},
)  # fmt: skip


@fuzzed
def test_the_watch_sees_a_touch_of_any_kind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inside, theirs = tmp_path / "in", tmp_path / "theirs"
    inside.mkdir()
    theirs.write_text("theirs")
    (inside / "link").symlink_to(theirs)
    (inside / nasty.OUTSIDE).write_text("theirs")
    (inside / "known").symlink_to(inside / nasty.OUTSIDE)
    monkeypatch.chdir(inside)
    touches: list[Callable[[], object]] = [
        theirs.read_bytes, (inside / "link").read_bytes, lambda: Path("../theirs").read_bytes(),
        (inside / "known").read_bytes, lambda: (inside / "link").write_text("ours"),
        lambda: os.truncate(inside / "link", 0), lambda: (inside / "link").chmod(0o600),
        lambda: os.link(theirs, inside / "hard"), lambda: theirs.rename(inside / "stolen"),
        lambda: (inside / nasty.OUTSIDE).rename(tmp_path / "out"), lambda: os.waitpid(os.fork() or os._exit(0), 0),
        lambda: subprocess.run(["true"], check=True), lambda: pickle.loads(pickle.dumps(Path)),
        lambda: socket.socket().bind(("127.0.0.1", 0)),
    ]  # fmt: skip
    for number, touch in enumerate(touches):
        with pytest.raises(AssertionError), nasty.watch(inside):
            touch()
        assert nasty.touched, number
    with nasty.watch(inside):  # and nothing else
        (inside / "own").write_text("own")
        (inside / "link").unlink()
        (inside / "folder").mkdir()
        shutil.rmtree(inside / "folder")
        np.random.default_rng(0)


@fuzzed
@some
@given(document=documents)
@pytest.mark.slow
def test_coco_documents(document: object, tmp_path_factory: pytest.TempPathFactory) -> None:
    sandbox = tmp_path_factory.getbasetemp() / "coco-documents"
    reader = READER.setdefault("coco", nasty.reader("COCO"))
    if not sandbox.exists():
        sandbox.mkdir()
        reader.run(reader.seeds[0], sandbox)
    with nasty.watch(sandbox):
        reader.run(b"c" + json.dumps(document).encode(), sandbox)


READER: dict[str, nasty.Reader] = {}


@fuzzed
@some
@given(value=anything, key=st.sampled_from(list(NormalRecipe.model_fields)))
def test_recipes(value: object, key: str) -> None:
    base = NormalRecipe()
    try:
        changed = config.override(base, [f"{key}={json.dumps(value)}"])
    except UserError as error:
        assert len(str(error)) < 1000
        return
    again = config.validated(NormalRecipe, plain.from_yaml(config.dump(changed)), "again")
    assert str(again) == str(changed), "what is taken is written and read as it is"


@fuzzed
def test_large_and_deep_files_are_refused_in_bounded_time(tmp_path: Path) -> None:
    write_fields(tmp_path / "set", 2)
    whole = json.loads((tmp_path / "set/annotations.json").read_text())
    for place in ("images", "annotations", "info", "licenses"):
        for depth in (plain.MAX_DEPTH, 900):
            content = json.loads(json.dumps(whole))
            deep: object = 1
            for _ in range(depth):
                deep = [deep]
            (content[place][0] if isinstance(content[place], list) else content[place])["x"] = deep
            (tmp_path / "set/annotations.json").write_text(json.dumps(content))
            started = time.monotonic()
            with pytest.raises(UserError, match="nested too deeply"):
                convert.convert(tmp_path / "set", tmp_path / "out", None, "coco")
            assert time.monotonic() - started < 5
    assert coco.category("x" * 1000) == "x" * 1000
    with pytest.raises(ValueError, match="too long"):
        coco.category("x" * 1001)
    many = {"images": [], "annotations": [{"id": n, "image_id": 1, "category_id": "x"} for n in range(20_000)],
            "categories": [{"id": n, "name": f"n{n}"} for n in range(20_000)]}  # fmt: skip
    many["images"] = [{"id": 1, "file_name": "a.png", "width": 1, "height": 1}]
    (tmp_path / "set/annotations.json").write_text(json.dumps(many))
    started = time.monotonic()
    problems: list[str] = []
    coco.read(tmp_path / "set", problems.append)
    assert len(problems) == 20_000
    assert max(map(len, problems)) < 400
    assert time.monotonic() - started < 60
    many = {
        "images": [{"id": 1, "file_name": "x" * 100_000, "width": 1, "height": 1}],
        "categories": [],
        "annotations": [],
    }
    (tmp_path / "set/annotations.json").write_text(json.dumps(many))
    problem, *_ = check(tmp_path / "set")
    assert "longer than files can be called" in problem and len(problem) < 400
    with pytest.raises(ValueError, match="more than 3 GiB"):
        plain.from_json("[" + "[]," * (plain.MAX_PARSED // 140 + 1) + "0]")
    four_million = plain.MAX_PARSED // 4_000_000
    box = '{"id":1,"image_id":1,"category_id":1,"bbox":[1.5,2.5,3.5,4.5],"area":1.5,"iscrowd":0},'
    assert 240 * box.count("{") + 100 * box.count("[") + 40 * box.count(",") < four_million
    with (tmp_path / "set/annotations.json").open("wb") as file:
        file.truncate(plain.MAX_BYTES + 1)
    with pytest.raises(UserError, match="larger than 512 MiB"):
        coco.read(tmp_path / "set")


@fuzzed
def test_a_table_is_read_row_by_row_and_bounded(tmp_path: Path) -> None:
    Image.new("RGB", (24, 16)).save(tmp_path / "a.png")
    table = tmp_path / "classifications.csv"
    head, row = "image_filename,bethesda_system,nucleus_x,nucleus_y", "\na.png,HSIL,10,12"
    table.write_text(head + row * 3)
    assert len(convert.read(tmp_path, "cric").images[0].cells) == 3
    for text, why in (
        (head + row * (cric.MAX_ROWS + 1), "more than 200,000 rows"), ("," * 200 + row, "more than 100 columns"),
        (head + "\n" + "x" * 200_000, "field larger"), (head + " " * cric.MAX_TABLE, "larger than 16 MiB"),
    ):  # fmt: skip
        table.write_text(text)
        with pytest.raises(UserError, match=why):
            convert.read(tmp_path, "cric")


@fuzzed
@pytest.mark.parametrize("kind", ["coco", "yolo", "voc"])
def test_an_image_cut_in_half_is_not_converted(kind: str, tmp_path: Path) -> None:
    write_fields(tmp_path / "first", 1)
    convert.convert(tmp_path / "first", tmp_path / "set", None, kind)
    (image,) = (tmp_path / "set").rglob("*.png")
    image.write_bytes(image.read_bytes()[: image.stat().st_size // 2])
    with pytest.raises(UserError, match=f"{image.name}: (truncated|not a readable image)"):
        convert.convert(tmp_path / "set", tmp_path / "out", None, "coco")
    assert not (tmp_path / "out").exists()


@pytest.mark.promise("Paths stay inside")
@pytest.mark.parametrize("kind", ["yolo", "voc"])
def test_labels_are_not_followed_out_of_their_folder(kind: str, tmp_path: Path) -> None:
    write_fields(tmp_path / "first", 1)
    convert.convert(tmp_path / "first", tmp_path / "set", None, kind)
    (label,) = (path for path in (tmp_path / "set").rglob("*") if path.parent.name in ("labels", "Annotations"))
    label.rename(tmp_path / "secret")
    label.symlink_to("../../secret")
    with (tmp_path / "secret").open("a") as file:
        file.write("password\n")
    problem, *others = check(tmp_path / "set")
    assert "a link that leaves" in problem
    assert [line.partition(": ")[2] for line in others] == ["not in the annotations"] * (kind == "voc")
    with pytest.raises(UserError, match="a link that leaves"):
        convert.convert(tmp_path / "set", tmp_path / "out", None, "coco")


@fuzzed
@pytest.mark.parametrize(
    "text",
    ["a: &a [x]\nb: [*a, *a]", "names: !!python/object/apply:os.system [touch hit]",
     "names: !!python/name:os.system ''", "- !!map {? {a} : b}", "a: !!binary aGVsbG8=", "[" * 3000,
     "names: " + "x" * 300_000, "names: {0: a}\nversion: 0x" + "f" * 5000],
)  # fmt: skip
def test_yaml_is_plain_or_refused(text: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"not plain YAML|plain values|larger than|more than 64 bits"):
        plain.from_yaml(text)
    (tmp_path / "images").mkdir()
    (tmp_path / "data.yaml").write_text(text)
    with pytest.raises(UserError, match="no 'names' in it"):
        convert.read(tmp_path, "yolo")


@pytest.mark.promise("Paths stay inside")
@pytest.mark.parametrize("kind", ["yolo", "voc"])
def test_a_file_next_to_a_set_overwrites_no_field_of_it(kind: str, tmp_path: Path) -> None:
    write_fields(tmp_path / "first", 1)
    convert.convert(tmp_path / "first", tmp_path / "set", None, kind)
    side = json.loads((tmp_path / "set/dataset.json").read_text())
    (entry,) = side["images"].values()
    entry["extra"] = {"file_name": "../../x.png", "id": 77, "width": -1, "height": "x", "slide": 3}
    for cell in entry["cells"]:
        cell["extra"] = {
            "bbox": "evil",
            "image_id": "nobody",
            "id": -1,
            "category_id": [],
            "score": "x",
            "nucleus": [1e300, 0],
            "kept": 1,
        }
    (tmp_path / "set/dataset.json").write_text(json.dumps(side))
    convert.convert(tmp_path / "set", tmp_path / "out", None, "coco")
    first, again = (convert.read(tmp_path / name).images[0] for name in ("first", "out"))
    assert (again.file_name, again.width, again.height) == (first.file_name, first.width, first.height)
    assert again.extra["slide"] == 3
    assert [c.category for c in again.cells] == [c.category for c in first.cells]
    for cell, whole in zip(again.cells, first.cells, strict=True):
        assert cell.box == pytest.approx(whole.box, abs=0.01)
        assert cell.extra["kept"] == 1
        assert "nucleus" not in cell.extra


ESCAPES = (
    "../outside.png", "a/../../outside.png", "/etc/passwd", "C:\\x.png", "C:x.png", "\\\\host\\x.png", "a\0b.png", "",
    ".", "..", "a/..", "images/", "con", "CON.png", "nul.png", "x/aux.txt", "COM1.png", "lpt9", "a\nb.png",
    "\x1b[2Jb.png", "\ud800.png", "x" * 300 + ".png", "link.png", "loop.png", "pipe.png", "folder/outside.png",
)  # fmt: skip


@pytest.mark.promise("Paths stay inside")
@pytest.mark.parametrize("name", ESCAPES)
def test_a_name_that_leaves_its_folder(name: str, tmp_path: Path) -> None:
    root = tmp_path / "set"
    write_fields(root, 1)
    Image.new("RGB", (20, 20)).save(tmp_path / "outside.png")
    (root / "images/link.png").symlink_to(tmp_path / "outside.png")
    (root / "images/folder").symlink_to(tmp_path)
    (root / "images/loop.png").symlink_to("loop.png")
    os.mkfifo(root / "images/pipe.png")
    with pytest.raises(image_files.ImageProblem):
        image_files.size(file_names.inside(root / "images", name))
    content = json.loads((root / "annotations.json").read_text())
    content["images"].append({"id": 99, "file_name": name, "width": 20, "height": 20})
    (root / "annotations.json").write_text(json.dumps(content))
    with nasty.watch(tmp_path):
        assert len(check(root)) == 1
        for target in ("coco", "yolo", "voc"):
            with pytest.raises(UserError):
                convert.convert(root, tmp_path / "out", None, target)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["outside.png", "set"]


@pytest.mark.promise("Paths stay inside")
def test_nothing_is_written_through_a_link(tmp_path: Path) -> None:
    from cytosynth.io import atomic
    from cytosynth.io.records import append_line

    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_text("theirs")
    out = tmp_path / "out"
    out.mkdir()
    for name in ("provenance.jsonl", ".lock", "annotations.json"):
        (out / name).symlink_to(outside / "file")
    with pytest.raises(OSError, match="symbolic links"):
        append_line(out / "provenance.jsonl", {"a": 1})
    with pytest.raises(OSError, match="symbolic links"), lock.only(out):
        pass
    atomic.write_json(out / "annotations.json", {})
    assert not (out / "annotations.json").is_symlink()
    (out / "checkpoints").symlink_to(outside)
    (outside / ".x.part").write_text("theirs")
    atomic.clean(out / "checkpoints")
    assert {path.name: path.read_text() for path in outside.iterdir()} == {"file": "theirs", ".x.part": "theirs"}


@pytest.mark.promise("Paths stay inside")
@pytest.mark.parametrize("name", ["checkpoints", "previews", ".fields", "pictures"])
def test_a_link_in_a_runs_folder_is_refused(name: str, tmp_path: Path) -> None:
    outside, out = tmp_path / "outside", tmp_path / "out"
    (outside / "step-mine").mkdir(parents=True)
    out.mkdir()
    (out / name).symlink_to(outside)
    for place in (out / name, out / "trainings/real"):
        shutil.rmtree(out)
        place.parent.mkdir(parents=True)
        (out / "recipe.yaml").touch()
        place.symlink_to(outside)
        with pytest.raises(UserError, match=f"{place.name}: is a link"), lock.run(out, "recipe.yaml"):
            (place / "mine").touch()
    shutil.rmtree(out)
    out.mkdir()
    (out / name).symlink_to(outside)
    with pytest.raises(UserError, match=f"{name}: is a link"), lock.run(out, "recipe.yaml"):
        (out / name / "mine").touch()
    assert [path.name for path in outside.iterdir()] == ["step-mine"]
    assert not (out / ".lock").exists()


@pytest.mark.promise("Paths stay inside")
def test_what_looks_half_written_is_removed_in_runs_alone(tmp_path: Path) -> None:
    """A folder that is no run keeps all, and so does a run below it that another process is at."""
    (tmp_path / ".thesis.part").mkdir()
    (tmp_path / ".recipe.yaml.7.part").touch()
    with lock.run(tmp_path, "recipe.yaml"):
        assert (tmp_path / ".thesis.part").exists()
        assert not (tmp_path / ".recipe.yaml.7.part").exists(), "of the mark itself, which is written first"
    for name in ("deep", "busy", ".held"):
        (tmp_path / name).mkdir()
        (tmp_path / name / ".db.12.part").write_text("theirs")
    with pytest.raises(UsageError, match="already contains other files"), lock.run(tmp_path, "recipe.yaml"):
        pass
    assert (tmp_path / ".thesis.part").exists() and (tmp_path / "deep/.db.12.part").exists()
    (tmp_path / "recipe.yaml").touch()
    (tmp_path / "deep/.lock").touch()
    with lock.only(tmp_path / "busy"), lock.run(tmp_path, "recipe.yaml"):
        assert (tmp_path / "busy/.db.12.part").exists()
    assert not (tmp_path / "deep/.db.12.part").exists(), "a lock that nobody holds"
    assert not (tmp_path / ".thesis.part").exists()


class Bomb:
    """Runs a command when it is unpickled."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (self.command,)


@pytest.mark.promise("No code runs from data")
@pytest.mark.parametrize("suffix", [".pt", ".pth", ".bin", ".CKPT", ".pkl", ".pickle", ".safetensors"])
def test_a_pickle_is_refused_wherever_weights_are_read(suffix: str, tiny: Path, tmp_path: Path) -> None:
    import pickle

    from cytosynth.adapters.load import merge
    from cytosynth.cell.edit import CellEditor
    from cytosynth.classifier.model import CellClassifier
    from cytosynth.detection import model as detectors
    from cytosynth.detection.backbones import resnet
    from cytosynth.evaluate.networks import cytology_resnet50, dinov2
    from cytosynth.foundation.load import load
    from cytosynth.imagenet import weights as networks

    bomb = pickle.dumps(Bomb(f"touch {tmp_path}/hit"))
    file = tmp_path / f"weights{suffix}"
    file.write_bytes(bomb)
    model = load(str(tiny / "foundation"))
    for part, name in (("unet", "diffusion_pytorch_model"), ("text_encoder", "model")):
        shutil.copytree(tiny / "foundation", tmp_path / part)
        for old in (tmp_path / part / part).glob("*.safetensors"):
            old.unlink()
        (tmp_path / part / part / f"{name}{suffix}").write_bytes(bomb)
    folders = {}
    for name, source, weights in (("cell", "cell", "diffusion_pytorch_model"), ("detector", "detector", "model")):
        folders[name] = tmp_path / name
        shutil.copytree(tiny / source, folders[name])
        for old in folders[name].glob("*.safetensors"):
            old.unlink()
        (folders[name] / f"{weights}{suffix}").write_bytes(bomb)
    classifier = {
        "architecture": "resnet50",
        "classes": ["NILM", "LSIL"],
        "size": 32,
        "mean": [0.5] * 3,
        "std": [0.5] * 3,
    }
    for name, values in (("classifier", classifier),
                         ("dino", {"model_type": "dinov2", "hidden_size": 8, "num_attention_heads": 1,
                                   "num_hidden_layers": 1})):  # fmt: skip
        folders[name] = tmp_path / name
        folders[name].mkdir()
        (folders[name] / "config.json").write_text(json.dumps(values))
        (folders[name] / f"model{suffix}").write_bytes(bomb)
    attempts: dict[str, Callable[[], object]] = {
        "one reader": lambda: tensors.read(file),
        "foundation file": lambda: load(str(file)),
        "foundation folder": lambda: load(str(tmp_path / "unet")),
        "text encoder": lambda: load(str(tmp_path / "text_encoder")),
        "adapter": lambda: merge(model, file),
        "synthesizer": lambda: CellEditor.load(str(tiny / "foundation"), str(folders["cell"])),
        "detector": lambda: detectors.load(folders["detector"]),
        "backbone": lambda: resnet.read(file),
        "classifier": lambda: CellClassifier.load(folders["classifier"]),
        "dinov2": lambda: dinov2.load(folders["dino"]),
        "features": lambda: cytology_resnet50.load(folders["classifier"]),
        "feature network": lambda: networks.read(file, "0" * 64),
    }
    for name, attempt in attempts.items():
        with pytest.raises(UserError) as caught:
            attempt()
        if suffix != ".safetensors":
            assert "can run code when" in str(caught.value), name
            assert "weights_only=True" in str(caught.value), f"{name}: how to convert is said"
    assert not (tmp_path / "hit").exists()


@pytest.mark.promise("No code runs from data")
def test_the_advised_conversion_works_and_nothing_trusts_remote_code(tmp_path: Path) -> None:
    import torch

    torch.save({"state_dict": {"a": torch.arange(6).reshape(2, 3).T, "step": 3}}, tmp_path / "IN")
    command = tensors.CONVERT.partition('python -c "')[2].rstrip('"')
    subprocess.run([sys.executable, "-c", command], cwd=tmp_path, check=True)
    read = tensors.read(tmp_path / "OUT.safetensors")
    assert torch.equal(read["a"], torch.arange(6).reshape(2, 3).T)
    for path in (ROOT / "src").rglob("*.py"):
        text = path.read_text()
        assert "trust_remote_code=True" not in text
        assert "yaml.load(" not in text.replace("yaml.load(content, _Plain)", ""), path
        assert "unsafe_load" not in text and not re.search(r"(?<![.\w])(eval|exec)\(", text), path


def bomb(path: Path, side: int, rows: int | None = None) -> None:
    """Write a PNG of `side` x `side` white pixels, a thousandth of its size, or of the first `rows` of them."""
    header = b"IHDR" + side.to_bytes(4, "big") * 2 + bytes([8, 6, 0, 0, 0])
    packer = zlib.compressobj(1)
    row = b"\0" + b"\xff" * (4 * side)
    body = b"".join(packer.compress(row) for _ in range(rows or side)) + packer.flush()
    content = b"\x89PNG\r\n\x1a\n"
    for chunk in (header, b"IDAT" + body, b"IEND"):
        content += (len(chunk) - 4).to_bytes(4, "big") + chunk + zlib.crc32(chunk).to_bytes(4, "big")
    path.write_bytes(content)


MEASURED = """
import resource, sys
from pathlib import Path
from cytosynth.data import image_files as images
from cytosynth.errors import UserError
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    print(images.read(Path(sys.argv[1])).shape)
except UserError as error:
    print(error)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


def measured(path: Path) -> tuple[str, int]:
    """Return what reading `path` says, and by how many MiB the process grew."""
    run = subprocess.run([sys.executable, "-c", MEASURED, str(path)], capture_output=True, text=True, check=True)
    said, grown = run.stdout.splitlines()
    return said, int(grown)


@pytest.mark.promise("Bombs")
def test_image_bombs(tmp_path: Path) -> None:
    bomb(tmp_path / "large.png", 20_000, rows=10)
    said, grown = measured(tmp_path / "large.png")
    assert "pixels, more than 100,000,000" in said or "decompression bomb" in said
    assert grown < 50, "refused by its header"
    bomb(tmp_path / "largest.png", 10_000)
    said, grown = measured(tmp_path / "largest.png")
    assert said == "(10000, 10000, 3)", "the largest that is read, with transparency"
    assert grown < 1024
    Image.linear_gradient("L").resize((3000, 3000)).convert("RGB").save(tmp_path / "turned.jpg", exif=_turned(6))
    said, grown = measured(tmp_path / "turned.jpg")
    assert said == "(3000, 3000, 3)"
    assert grown * 2**20 < 10.5 * 3000**2, "bytes a pixel, by which the largest takes less than a gigabyte"
    with (tmp_path / "sparse.jpg").open("wb") as file:
        file.write(nasty.image("JPEG"))
        file.truncate(image_files.MAX_FILE)
    said, grown = measured(tmp_path / "sparse.jpg")
    assert said == "(16, 24, 3)"
    assert grown < 40, "read in blocks to count its scans"
    with (tmp_path / "sparse.jpg").open("ab") as file:
        file.truncate(image_files.MAX_FILE + 1)
    with pytest.raises(image_files.ImageProblem, match="bytes, more than"):
        image_files.read(tmp_path / "sparse.jpg")


@pytest.mark.promise("Bombs")
def test_more_scans_than_a_jpeg_has_are_refused_in_an_mpo_too(tmp_path: Path) -> None:
    pixels = Image.effect_noise((64, 64), 50).convert("RGB")
    pixels.save(tmp_path / "JPEG", "JPEG", progressive=True)
    pixels.save(tmp_path / "MPO", "MPO", progressive=True, save_all=True, append_images=[pixels])
    for kind in ("JPEG", "MPO"):
        content = (tmp_path / kind).read_bytes()
        assert Image.open(tmp_path / kind).format == kind
        assert image_files.read(tmp_path / kind).shape == (64, 64, 3)
        end = content.index(b"\xff\xd9")
        start = content.rindex(b"\xff\xda", 0, end)
        (tmp_path / "scans.jpg").write_bytes(content[:start] + content[start:end] * 500 + content[end:])
        assert Image.open(tmp_path / "scans.jpg").format == kind
        with pytest.raises(image_files.ImageProblem, match="more than 100 scans"):
            image_files.read(tmp_path / "scans.jpg")


@pytest.mark.promise("Bombs")
def test_what_its_decoder_would_hold_counts_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for kind, mode, side, options in (
        ("WEBP", "RGB", 8000, {"quality": 1, "method": 0}), ("JPEG", "CMYK", 9200, {"progressive": True}),
        ("TIFF", "CMYK", 9200, {"compression": "tiff_lzw", "exif": _turned(6)}),
    ):  # fmt: skip
        Image.new(mode, (16, 16)).save(tmp_path / "small", kind, **options)
        with Image.open(tmp_path / "small") as image:
            image._size = (side, side)
            assert image_files.memory_needed(image, 0) > image_files.MAX_MEMORY
            image._size = (side - 1000, side - 1000)
            assert image_files.memory_needed(image, 0) < image_files.MAX_MEMORY
    (tmp_path / "tile.tif").write_bytes(nasty.image("TIFF"))
    with Image.open(tmp_path / "tile.tif") as image:
        image.tag_v2[322] = image.tag_v2[323] = 24_000
        assert image_files.memory_needed(image, 0) > image_files.MAX_MEMORY, "a small image in a tile that is not"
    image_files.read(tmp_path / "tile.tif")
    monkeypatch.setattr(image_files, "MAX_MEMORY", 1000)
    for use in (image_files.read, image_files.size):
        with pytest.raises(image_files.ImageProblem, match=r"decoding needs .* bytes, more than 1,000"):
            use(tmp_path / "tile.tif")


def _turned(turn: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = turn
    return exif


@pytest.mark.promise("Bombs")
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "WEBP"])
@pytest.mark.parametrize("turn", range(1, 9))
def test_size_and_pixels_agree_on_turned_images(kind: str, turn: int, tmp_path: Path) -> None:
    path = tmp_path / "a.img"
    path.write_bytes(nasty.image(kind, exif=_turned(turn)))
    width, height = image_files.size(path)
    pixels = image_files.read(path)
    assert pixels.shape == (height, width, 3)
    with Image.open(path) as image:
        assert np.array_equal(pixels, np.asarray(ImageOps.exif_transpose(image)))
    assert (width, height) == ((16, 24) if turn > 4 else (24, 16))
