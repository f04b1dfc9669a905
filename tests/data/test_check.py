import json
import os
import re
import subprocess
import sys
import zlib
from pathlib import Path

import pytest
from PIL import Image

from conftest import write_fields
from cytosynth.data.check import check
from cytosynth.data.formats import coco
from cytosynth.errors import FormatProblem


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    root = tmp_path / "set"
    write_fields(root)
    content = json.loads((root / "annotations.json").read_text())
    images, annotations = content["images"], content["annotations"]
    (root / "images/field_2.png").unlink()
    whole = (root / "images/field_3.png").read_bytes()
    (root / "images/field_3.png").write_bytes(whole[: len(whole) // 2])
    (root / "images/field_4.png").write_bytes(b"no image at all")
    (root / "images/copy.png").write_bytes((root / "images/field_0.png").read_bytes())
    bomb(root / "images/bomb.png")
    outside = tmp_path / "outside.png"
    Image.new("RGB", (20, 20)).save(outside)
    (root / "images/link.png").symlink_to(outside)
    extra = [("copy.png", 320, 288), ("bomb.png", 60000, 60000), ("link.png", 20, 20), ("../outside.png", 20, 20),
             ("/etc/passwd", 20, 20), ("C:\\x.png", 20, 20)]  # fmt: skip
    for number, (name, width, height) in enumerate(extra, 100):
        images.append({"id": number, "file_name": name, "width": width, "height": height})
    images[5]["width"] = 999
    images.append({"id": 1, "file_name": "again.png", "width": 5, "height": 5})
    images.append({"id": 300, "file_name": "no size.png"})
    boxes = [[300, 0, 50, 20], [5, 5, 0, 10], [float("nan"), 0, 5, 5], [1, 2, 3], annotations[0]["bbox"]]
    category = annotations[0]["category_id"]
    for number, box in enumerate(boxes, 1000):
        annotations.append({"id": number, "image_id": 1, "category_id": category, "bbox": box})
    annotations.append({"id": 2000, "image_id": 1, "category_id": 77, "bbox": [1, 1, 2, 2]})
    annotations.append({"id": 2001, "image_id": 888, "category_id": 1, "bbox": [1, 1, 2, 2]})
    annotations.append({"id": 2001, "image_id": 1, "category_id": 1, "bbox": [3, 1, 2, 2]})
    (root / "annotations.json").write_text(json.dumps(content))
    return root


def bomb(path: Path) -> None:
    """Write the header of a PNG of 60000 x 60000 pixels."""
    header = b"IHDR" + (60000).to_bytes(4, "big") * 2 + bytes([8, 2, 0, 0, 0])
    chunk = (13).to_bytes(4, "big") + header + zlib.crc32(header).to_bytes(4, "big")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk + (9).to_bytes(4, "big") + b"IDAT" + bytes(13))


def test_everything_wrong_is_listed_in_one_pass(broken: Path) -> None:
    text = "\n".join(check(broken))
    for expected in (
        "field_2.png: no such file",
        "field_3.png: truncated",
        "field_4.png: not a readable image",
        "copy.png: duplicate of field_0.png",
        "bomb.png: a decompression bomb",
        "link.png: is a link that leaves",
        "'../outside.png': leaves its folder",
        "'/etc/passwd': absolute",
        "with a backslash or a drive letter",
        "field_5.png: is 320x288, annotated as 999x288",
        "id 1 is used twice",
        "images[13]: no 'width'",
        "outside the image of 320x288",
        "no area (0 x 10)",
        "is not finite",
        "not enough values to unpack",
        "duplicate of another box",
        "unknown category 77",
        "no image of id 888",
        "id 2001 is used twice",
    ):
        assert expected in text, f"{expected!r} is missing in:\n{text}"


def test_a_sound_set_has_no_problem_in_any_format(fields: Path, tmp_path: Path) -> None:
    from cytosynth.data import convert

    assert check(fields / "drawn") == []
    for kind in ("yolo", "voc"):
        convert.convert(fields / "drawn", tmp_path / kind, None, kind)
        assert check(tmp_path / kind) == []


@pytest.mark.parametrize(
    ("place", "value", "problem"),
    [
        (("info", "x"), float("nan"), "annotations.json: info: nan is not finite"),
        (("info", "x"), "\ud800", "annotations.json: info: 'utf-8' codec can't encode"),
        (("licenses", 0, "name"), float("nan"), "annotations.json: licenses[0]: nan is not finite"),
        (("licenses", 0, "id"), [], "annotations.json: licenses[0]: id: a number or name is expected, found a list"),
        (
            ("annotations", 0, "score"),
            float("nan"),
            "annotations.json: annotations[0] (field_0.png): score nan is not finite",
        ),
        (
            ("annotations", 0, "score"),
            "-inf",
            "annotations.json: annotations[0] (field_0.png): score -inf is not finite",
        ),
    ],
)
def test_what_is_said_besides_the_boxes_is_checked_before_a_run_begins(
    place: tuple[str | int, ...], value: object, problem: str, tmp_path: Path
) -> None:
    write_fields(tmp_path / "set", 1)
    content = json.loads((tmp_path / "set/annotations.json").read_text())
    inner = content
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    (tmp_path / "set/annotations.json").write_text(json.dumps(content))
    (found,) = check(tmp_path / "set")
    assert problem in found
    with pytest.raises(FormatProblem, match=re.escape(problem)):
        coco.read(tmp_path / "set")
    left = coco.read(tmp_path / "set", [].append)
    coco.write(left, tmp_path / "out")
    assert check(tmp_path / "set") == [found], "nothing else is lost"
    assert len(left.images[0].cells) == 5 - ("score" in place)


def test_a_folder_whose_name_is_not_utf8_is_checked_and_named(tmp_path: Path) -> None:
    root = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9"))
    write_fields(root, 1)
    command = [sys.executable, "-m", "cytosynth", "check", str(root)]
    strict = os.environ | {"PYTHONIOENCODING": "utf-8:strict"}
    ended = subprocess.run(command, capture_output=True, text=True, env=strict)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.endswith("caf\\udce9: coco, 1 image, 5 cells, 0 problems\n")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "not readable JSON"),
        ("[]", "a JSON object is expected"),
        ("{}", "the list 'images' is missing"),
        ("[" * 100_000, "not readable JSON"),
        ('{"images": [3], "annotations": [null], "categories": ["x"]}', "images[0]"),
        (
            '{"images": [], "annotations": [], "categories": [{"id": 1, "name": "HSIL "}]}',
            "categories[0]: the name 'HSIL ' begins or ends with a space",
        ),
    ],
)
def test_annotation_files_that_are_none(tmp_path: Path, text: str, problem: str) -> None:
    (tmp_path / "annotations.json").write_text(text)
    assert problem in "\n".join(check(tmp_path))
