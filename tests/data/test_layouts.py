"""Data sets as the tools of real users write them: each is read right, or refused by a line that says what is there.

`tests/cases` holds small drawn data sets; `tests/cases/README.md` says which tool wrote which.
"""

import json
import re
import shutil
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as PILImage
from typer.testing import CliRunner

from cytosynth.annotations import Cell, DataSet, Image
from cytosynth.cli import app
from cytosynth.cli import data as _commands  # noqa: F401
from cytosynth.cli import info as _info  # noqa: F401
from cytosynth.data import convert, image_files, sources, split
from cytosynth.data.check import check
from cytosynth.data.formats import layouts
from cytosynth.data.formats.registration import Writer
from cytosynth.data.pseudonyms import Pseudonyms
from cytosynth.data.read import Place, guess, read
from cytosynth.data.sources import Source
from cytosynth.errors import FormatProblem, UserError

CASES = Path(__file__).parents[1] / "cases"
XYWH = [(100.0, 80.0, 130.0, 110.0)]
"""The one box of most cases, as COCO and VOC have it."""
YOLO = [(100.8, 81.6, 129.6, 110.4)]
"""The same, as YOLO has it: 1 0.36 0.4 0.09 0.12 of 320x240."""
ONE = {"a.jpg": XYWH}

READ: dict[str, tuple[str, dict[str, list[tuple[float, ...]]], dict[str, list[str]]]] = {
    "01_read_as_folders/labelme2coco": ("coco", {"raw/a.jpg": XYWH}, {}),
    "01_read_as_folders/roboflow_coco": (
        "coco", {"train/a.jpg": XYWH, "valid/a.jpg": XYWH}, {"train": ["train/a.jpg"], "val": ["valid/a.jpg"]},
    ),
    "01_read_as_folders/roboflow_voc": (
        "voc", {"train/a.jpg": XYWH, "valid/a.jpg": XYWH}, {"train": ["train/a.jpg"], "val": ["valid/a.jpg"]},
    ),
    "04_splits/coco": ("coco", {"a.jpg": XYWH, "b.jpg": XYWH}, {"train": ["a.jpg"], "val": ["b.jpg"]}),
    "04_splits/ultralytics": (
        "yolo", {"train/a.jpg": YOLO, "val/b.jpg": YOLO}, {"train": ["train/a.jpg"], "val": ["val/b.jpg"]},
    ),
    "04_splits/voc": ("voc", {"a.jpg": XYWH, "b.jpg": XYWH}, {"train": ["a.jpg"], "val": ["b.jpg"]}),
    "05_labels_unseen/txt_upper": ("yolo", {"A.JPG": YOLO}, {}),
    "05_labels_unseen/xml_upper": ("voc", {"a.jpg": XYWH, "b.jpg": XYWH}, {}),
    "07_convert_passes/difficult": ("voc", ONE, {}),
    "08_export_layouts/cvat_coco": ("coco", ONE, {}),
    "08_export_layouts/fiftyone_yolov5": ("yolo", {"val/a.jpg": YOLO}, {"val": ["val/a.jpg"]}),
    "08_export_layouts/labelimg_voc": ("voc", ONE, {}),
    "08_export_layouts/labelimg_yolo": ("yolo", {"a.jpg": YOLO}, {}),
    "08_export_layouts/labelstudio_coco": ("coco", {"images/1f-a.jpg": XYWH}, {}),
    "08_export_layouts/labelstudio_yolo": ("yolo", {"1f-a.jpg": YOLO}, {}),
    "09_yolo_lines/classes_txt": ("yolo", {"a.jpg": YOLO}, {}),
    "09_yolo_lines/float_class": ("yolo", {"a.jpg": YOLO}, {}),
    "09_yolo_lines/polygon": ("yolo", {"a.jpg": [(32.0, 24.0, 64.0, 72.0)]}, {}),
    "10_voc_files/declared": ("voc", {"Präp.jpg": XYWH}, {}),
    "10_voc_files/no_suffix": ("voc", ONE, {}),
    "10_voc_files/other_suffix": ("voc", ONE, {}),
}  # fmt: skip
"""Format, boxes of each image, and parts of each case that is to be read without a word."""


def boxes(data: DataSet) -> dict[str, list[tuple[float, ...]]]:
    return {image.file_name: [cell.box for cell in image.cells] for image in data.images}


def near(found: dict[str, Any], wanted: dict[str, Any], within: float = 0.01) -> None:
    assert found.keys() == wanted.keys()
    for name, boxes in wanted.items():
        assert np.allclose(np.array(found[name]), np.array(boxes), atol=within), name


@pytest.mark.parametrize("name", READ)
def test_each_layout_is_read_as_it_is_and_converted_with_its_parts(name: str, tmp_path: Path) -> None:
    kind, wanted, parts = READ[name]
    assert guess(CASES / name) == kind
    assert check(CASES / name) == []
    data = read(CASES / name)
    near(boxes(data), wanted)
    assert {cell.category for image in data.images for cell in image.cells} == {"HSIL"}
    assert {part: list(members) for part, members in data.parts.items()} == parts
    for target in ("coco", "yolo", "voc"):
        convert.convert(CASES / name, tmp_path / target, None, target)
        again = read(tmp_path / target)
        near(boxes(again), wanted)
        assert {part: list(members) for part, members in again.parts.items()} == parts
        if parts:
            assert json.loads((tmp_path / target / "split.json").read_text()) == parts
            (tmp_path / target / "split.json").unlink()
            if target != "coco":  # data.yaml and ImageSets say the same by themselves
                assert {part: list(members) for part, members in read(tmp_path / target).parts.items()} == parts
    for part, members in parts.items():
        assert [image.file_name for image in sources.part(Source(root=name, split=part), CASES)] == members


EXPORTS = {
    "datumaro_coco": ("coco", "images/train/a.jpg", "images/val/b.jpg", True),
    "datumaro_voc_detection": ("voc", "a.jpg", "b.jpg", True),
    "datumaro_yolo": ("yolo", "obj_train_data/a.jpg", "obj_val_data/b.jpg", True),
    "datumaro_yolo_ultralytics": ("yolo", "train/a.jpg", "val/b.jpg", True),
    "labelme2coco": ("coco", "raw/a.jpg", "raw/b.jpg", False),
    "labelme2coco_split": ("coco", "raw/a.jpg", "raw/b.jpg", True),
    "labelstudio_coco": ("coco", "1f-a.jpg", "1f-b.jpg", False),
    "labelstudio_voc": ("voc", "1f-a.jpg", "1f-b.jpg", False),
    "labelstudio_yolo": ("yolo", "1f-a.jpg", "1f-b.jpg", False),
    "supervision_coco": ("coco", "a.jpg", "b.jpg", False),
    "supervision_voc": ("voc", "a.jpg", "b.jpg", False),
    "supervision_yolo": ("yolo", "a.jpg", "b.jpg", False),
}
"""Format, the two images, and whether they are divided into `train` and `val`."""


@pytest.mark.parametrize("name", EXPORTS)
def test_what_the_tools_themselves_wrote_is_read(name: str) -> None:
    kind, first, second, divided = EXPORTS[name]
    root = CASES / "exports" / name
    assert guess(root) == kind
    assert check(root) == []
    data = read(root)
    found = {image.file_name: [(cell.category, cell.box) for cell in image.cells] for image in data.images}
    assert found.keys() == {first, second}
    assert [category for category, _ in found[first] + found[second]] == ["HSIL", "NILM", "HSIL"]
    wanted = [(10, 8, 34, 28), (20, 12, 44, 32), (2, 3, 12, 15)]
    off = 1.01 if name == "labelstudio_voc" else 0.01  # it cuts fractions off
    assert np.allclose([box for _, box in found[first] + found[second]], wanted, atol=off)
    assert data.parts == ({"train": (first,), "val": (second,)} if divided else {})
    assert all(data.path(image).is_file() for image in data.images)


LINES = {
    "02_nan_box/evaluate": "annotations[0] (a.jpg): box (nan, 80, nan, 110) is not finite",
    "02_nan_box/train": "annotations[0] (a.jpg): box (nan, 80, nan, 110) is not finite",
    "02_nan_box/far": "annotations[0] (a.jpg): box (5000, 4000, 5080, 4080) lies outside the image of 320x240",
    "02_nan_box/huge": "annotations[0] (a.jpg): box (-1e+08, -1e+08, 1e+08, 1e+08) lies outside the image of 320x240",
    "07_convert_passes/pixels": "labels/a.txt:1: '1 120 110 30 30' is in pixels; YOLO uses fractions of the image",
    "13_wrong_reasons/null_box": "bbox: four numbers are expected, found None",
}


@pytest.mark.parametrize("name", LINES)
def test_a_box_that_is_none_is_refused_by_every_command_that_reads_boxes(name: str, tmp_path: Path) -> None:
    (line,) = check(CASES / name)
    assert LINES[name] in line
    with pytest.raises(FormatProblem) as caught:
        convert.convert(CASES / name, tmp_path / "out", None, "coco")
    assert LINES[name] in str(caught.value)
    for training in (lambda: sources.load([Source(root=name, split="all")], CASES), lambda: read(CASES / name)):
        with pytest.raises(FormatProblem) as caught:
            training()
        assert LINES[name] in str(caught.value)


def test_a_box_that_passes_the_border_a_little_is_clipped_and_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    coco(tmp_path, [[-4, 10, 30, 30], [100, 200, 40, 44], [5, 5, 20, 20.3]], size=(320, 240))
    data = read(tmp_path)
    assert boxes(data) == {"a.png": [(0, 10, 26, 40), (100, 200, 140, 240), (5, 5, 25, 25.3)]}
    assert "boxes clipped to their image: 2, the first " in capsys.readouterr().err
    lines = check(tmp_path)
    assert len(lines) == 2
    assert all(line.endswith("(boxes clipped to their image)") for line in lines)
    done = convert.convert(tmp_path, tmp_path / "out", None, "coco")
    assert check(tmp_path / "out") == []
    entry = json.loads((tmp_path / "out/annotations.json").read_text())["annotations"][0]
    assert (entry["bbox"], entry["area"]) == ([0, 10, 26, 30], 26 * 30)
    assert len(done.images[0].cells) == 3


def coco(root: Path, found: list[list[float]], size: tuple[int, int], name: str = "a.png", **image: Any) -> None:
    (root / "images" / name).parent.mkdir(parents=True, exist_ok=True)
    PILImage.new("RGB", size, (200, 180, 190)).save(root / "images" / name)
    content = {
        "images": [{"id": 7, "file_name": name, "width": size[0], "height": size[1], **image}],
        "categories": [{"id": 3, "name": "HSIL"}],
        "annotations": [{"id": n, "image_id": 7, "category_id": 3, "bbox": box} for n, box in enumerate(found)],
    }
    (root / "annotations.json").write_text(json.dumps(content))


OTHER_LINES = {
    "05_labels_unseen/unlisted": "images/b.jpg: not in the annotations",
    "07_convert_passes/area_null": "annotations[0] (a.jpg): area None (values left out)",
    "13_wrong_reasons/colon": "file name '10:11.jpg': with a colon, which no file of Windows can have",
    "13_wrong_reasons/swapped_size": "is 320x240, annotated as 240x320; they are swapped",
    "14_ids_restart": "annotations[1]: id 1 is used twice",
}


@pytest.mark.parametrize("name", OTHER_LINES)
def test_what_is_corrected_or_left_has_a_line_with_the_true_reason(name: str) -> None:
    (line,) = check(CASES / name)
    assert OTHER_LINES[name] in line


def test_an_area_of_null_becomes_that_of_the_box_and_ids_are_numbered_anew(tmp_path: Path) -> None:
    from pycocotools.coco import COCO

    convert.convert(CASES / "07_convert_passes/area_null", tmp_path / "area", None, "coco")
    assert COCO(tmp_path / "area/annotations.json").anns[1]["area"] == 900
    convert.convert(CASES / "14_ids_restart", tmp_path / "ids", None, "coco")
    assert sorted(COCO(tmp_path / "ids/annotations.json").anns) == [1, 2]


def test_difficult_stays_through_every_format(tmp_path: Path) -> None:
    source = CASES / "07_convert_passes/difficult"
    for number, target in enumerate(("yolo", "coco", "voc")):
        convert.convert(source, tmp_path / target, None, target)
        source = tmp_path / target
        assert read(source).images[0].cells[0].extra["difficult"] == 1, number
    assert "<difficult>1</difficult>" in (tmp_path / "voc/Annotations/a.xml").read_text()


def test_folders_of_slides_are_no_classes(tmp_path: Path) -> None:
    for name in ("01_read_as_folders/per_slide", "15_nested_normals/slides"):
        with pytest.raises(UserError, match="hold images without annotations; --recursive"):
            guess(CASES / name)
        data = read(CASES / name, place=Place(recursive=True))
        assert len(data.images) == 2
        assert not data.categories
    named = CASES / "11_normal_folder/named"
    assert guess(named) == "folders"
    ended = CliRunner().invoke(app, ["convert", str(named), str(tmp_path / "out"), "--to", "coco"])
    assert "categories other than NILM, ASC-US, ASC-H, LSIL, HSIL: 'normal'" in ended.output


def test_a_flat_folder_of_images_is_a_set_without_cells(tmp_path: Path) -> None:
    (sample,) = sources.load([Source(root="11_normal_folder/flat")], CASES)
    assert (sample.name, sample.cells) == ("1.jpg", ())
    nested = Source(root="15_nested_normals/slides", recursive=True)
    assert [sample.name for sample in sources.load([nested], CASES)] == ["s1/1.jpg", "s2/1.jpg"]
    convert.convert(CASES / "11_normal_folder/flat", tmp_path / "out", None, "yolo")
    assert (tmp_path / "out/labels/1.txt").read_text() == ""


def test_annotations_and_images_may_lie_anywhere(tmp_path: Path) -> None:
    coco(tmp_path / "one", [[1, 2, 30, 40]], (64, 48))
    (tmp_path / "one/annotations.json").rename(tmp_path / "boxes.json")
    (tmp_path / "one/images").rename(tmp_path / "pictures")
    command = [
        "check",
        str(tmp_path),
        "--annotations",
        str(tmp_path / "boxes.json"),
        "--images",
        str(tmp_path / "pictures"),
    ]
    ended = CliRunner().invoke(app, command)
    assert ended.exit_code == 0, ended.output
    assert "coco, 1 image, 1 cell, 0 problems" in " ".join(ended.output.split())


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("names: NILM\n", ("NILM",)),
        ("names: [NILM, HSIL]\nnc: 2\n", ("NILM", "HSIL")),
        ("names: {0: NILM, 1: HSIL}\n", ("NILM", "HSIL")),
    ],
)
def test_names_of_classes(text: str, wanted: tuple[str, ...], tmp_path: Path) -> None:
    yolo(tmp_path, text, "0 0.5 0.5 0.2 0.2\n")
    data = read(tmp_path)
    assert data.categories == wanted
    assert data.images[0].cells[0].category == wanted[0]


def yolo(root: Path, yaml: str, label: str, name: str = "a") -> None:
    (root / "images").mkdir(exist_ok=True)
    (root / "labels").mkdir(exist_ok=True)
    PILImage.new("RGB", (100, 50)).save(root / f"images/{name}.png")
    (root / f"labels/{name}.txt").write_text(label)
    (root / "data.yaml").write_text(yaml)


def test_polygons_oriented_boxes_scores_and_poses(tmp_path: Path) -> None:
    lines = [
        "0 0.1 0.2 0.3 0.2 0.3 0.6 0.1 0.6",  # oriented box: four corners
        "0 0.5 0.5 0.2 0.2 0.75",  # score
        "0 0.1 0.1 0.2 0.1 0.2 0.4 0.9",  # polygon and score
        "1.0 0.5 0.5 0.2 0.2",
    ]
    yolo(tmp_path, "names: [NILM, HSIL]\n", "\n".join(lines))
    first, second, third, fourth = read(tmp_path).images[0].cells
    assert np.allclose(first.box, (10, 10, 30, 30))
    assert (second.score, third.score, fourth.category) == (0.75, 0.9, "HSIL")
    assert np.allclose(third.box, (10, 5, 20, 20))
    yolo(tmp_path, "names: [NILM]\nkpt_shape: [2, 3]\n", "0 0.5 0.5 0.2 0.2 0.1 0.1 2 0.2 0.2 2\n")
    assert np.allclose(read(tmp_path).images[0].cells[0].box, (40, 20, 60, 30))
    yolo(tmp_path, "names: NILM, HSIL\n", "0 0.5 0.5 0.2 0.2\n")
    with pytest.raises(FormatProblem, match=r"expected one name, or a list as \[NILM, HSIL\]"):
        read(tmp_path)


def test_yolo_11_of_cvat_and_a_moved_data_yaml(tmp_path: Path) -> None:
    (tmp_path / "obj_train_data").mkdir()
    for name in ("a", "b"):
        PILImage.new("RGB", (100, 50)).save(tmp_path / f"obj_train_data/{name}.png")
        (tmp_path / f"obj_train_data/{name}.txt").write_text("1 0.5 0.5 0.2 0.2\n")
    (tmp_path / "obj.names").write_text("NILM\nHSIL\n")
    (tmp_path / "obj.data").write_text("classes = 2\ntrain = data/train.txt\nnames = data/obj.names\n")
    (tmp_path / "train.txt").write_text("data/obj_train_data/a.png\n")
    (tmp_path / "valid.txt").write_text("data/obj_train_data/b.png\n")
    data = read(tmp_path)
    assert data.parts == {"train": ("obj_train_data/a.png",), "val": ("obj_train_data/b.png",)}
    assert [cell.category for image in data.images for cell in image.cells] == ["HSIL", "HSIL"]
    for name in ("obj.names", "obj.data", "train.txt", "valid.txt"):
        (tmp_path / name).unlink()
    (tmp_path / "data.yaml").write_text("path: D:\\\\sets\\\\mine\ntrain: ../obj_train_data\nnames: [NILM, HSIL]\n")
    assert read(tmp_path).parts == {"train": ("obj_train_data/a.png", "obj_train_data/b.png")}


def test_a_class_that_only_groups_others_is_none(tmp_path: Path) -> None:
    coco(tmp_path, [[1, 2, 30, 40]], (64, 48))
    content = json.loads((tmp_path / "annotations.json").read_text())
    content["categories"] = [
        {"id": 0, "name": "cells", "supercategory": "none"}, {"id": 3, "name": "HSIL", "supercategory": "cells"},
    ]  # fmt: skip
    (tmp_path / "annotations.json").write_text(json.dumps(content))
    assert read(tmp_path).categories == ("HSIL",)


def test_names_of_other_systems(tmp_path: Path) -> None:
    composed = unicodedata.normalize("NFC", "Präparat/ö.png")
    coco(tmp_path, [[1, 2, 30, 40]], (64, 48), unicodedata.normalize("NFD", composed))
    content = json.loads((tmp_path / "annotations.json").read_text())
    content["images"][0]["file_name"] = composed.replace("/", "\\")
    (tmp_path / "annotations.json").write_text(json.dumps(content))
    (tmp_path / "split.json").write_text(json.dumps({"train": [composed]}))
    for name in ("._a.png", "Thumbs.db", ".DS_Store", "__MACOSX/a.png"):
        (tmp_path / "images" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "images" / name).write_bytes(b"litter")
    assert check(tmp_path) == []
    data = read(tmp_path)
    assert len(split.part(data, "train", tmp_path)) == 1
    assert data.path(data.images[0]).is_file()


def test_voc_in_the_encoding_that_it_declares(tmp_path: Path) -> None:
    text = (CASES / "10_voc_files/declared/Annotations/a.xml").read_bytes().decode("latin-1")
    for number, encoding in enumerate(("gb2312", "utf-16", "windows-1252", "shift_jis")):
        root = tmp_path / str(number)
        (root / "Annotations").mkdir(parents=True)
        (root / "JPEGImages").mkdir()
        name = {"gb2312": "细胞", "shift_jis": "細胞", "utf-16": "Präp"}.get(encoding, "Präp")
        PILImage.new("RGB", (320, 240)).save(root / f"JPEGImages/{name}.png")
        own = text.replace("ISO-8859-1", encoding).replace("Präp.jpg", f"{name}.png")
        (root / "Annotations/a.xml").write_bytes(own.encode(encoding))
        assert boxes(read(root)) == {f"{name}.png": XYWH}, encoding
    for wrong in ("utf-7", "rot13", "zip", "unicode_escape", "nonesuch"):
        (root / "Annotations/a.xml").write_text(f'<?xml version="1.0" encoding="{wrong}"?><annotation/>')
        with pytest.raises(FormatProblem, match=f"unknown encoding '{wrong}'|'{wrong}' is not a text encoding"):
            read(root)


def test_only_files_of_supervision_count_from_one(tmp_path: Path) -> None:
    """The same corners, whose files say `roboflow.ai` in another folder, as Roboflow's own exports do."""
    for folder, wanted in (("VOC", (20, 12, 44, 32)), ("", (21, 13, 44, 32))):
        root = tmp_path / f"from {folder}"
        shutil.copytree(CASES / "exports/supervision_voc", root)
        for file in (root / "annotations").glob("*.xml"):
            file.write_text(file.read_text().replace("<folder>VOC</folder>", f"<folder>{folder}</folder>"))
        assert {image.file_name: image.cells[0].box for image in read(root).images}["b.jpg"] == wanted


def test_voc_without_a_size_takes_that_of_the_image(tmp_path: Path) -> None:
    text = (CASES / "10_voc_files/no_suffix/Annotations/a.xml").read_text()
    (tmp_path / "Annotations").mkdir()
    (tmp_path / "JPEGImages").mkdir()
    PILImage.new("RGB", (320, 240)).save(tmp_path / "JPEGImages/a.png")
    for own in (
        text.replace("<width>320</width>", "<width>0</width>"),
        text.partition("<size>")[0] + text.partition("</size>")[2],
    ):
        (tmp_path / "Annotations/a.xml").write_text(own)
        image = read(tmp_path).images[0]
        assert (image.width, image.height) == (320, 240)


def test_an_unknown_layout_gets_the_nearest_known_one(tmp_path: Path) -> None:
    yolo(tmp_path, "x: 1\n", "0 0.5 0.5 0.2 0.2\n")
    (tmp_path / "data.yaml").unlink()
    with pytest.raises(
        UserError, match=r"labels/a\.txt looks like a YOLO label, but its classes are missing"
    ) as caught:
        read(tmp_path)
    assert re.search(r"the nearest layout is Label Studio .*\(yolo\), but \S*classes.txt is missing", str(caught.value))
    (tmp_path / "labels/a.txt").unlink()
    for name, text, said in (
        (
            "images/a.json",
            '{"shapes": [], "imagePath": "a.png"}',
            "labelme's own format; convert it with labelme2coco",
        ),
        ("annotations.xml", "<?xml version='1.0'?><annotations><image/></annotations>", "CVAT's own format"),
        ("export.json", '[{"completed_by": 1}]', "Label Studio's own format; export as COCO, YOLO or Pascal VOC"),
    ):
        (tmp_path / name).write_text(text)
        with pytest.raises(UserError, match=said):
            guess(tmp_path)
        (tmp_path / name).unlink()


def test_every_format_has_a_tree_and_every_tree_a_reader() -> None:
    from cytosynth.data.formats import registration
    from cytosynth.registry import FORMATS_IN

    for kind, found in layouts.trees().items():
        assert registration.reader(kind)
        assert all(layout.tree for layout in found)
    assert set(layouts.trees()) == set(FORMATS_IN)


def test_the_page_of_formats_shows_every_tree() -> None:
    page = (CASES.parents[1] / "docs/formats.md").read_text()
    said = CliRunner().invoke(app, ["info", "formats"]).output
    for found in layouts.trees().values():
        for layout in found:
            tree = "\n".join(layout.tree)
            assert f"{layout.tool}\n\n```\n{tree}\n```" in page, layout.tool
            assert layout.tool in said


def read_made_up(root: Path, report: Any = None, note: Any = None) -> DataSet:
    return DataSet(root, (Image("a.png", 40, 30, (Cell((1, 2, 9, 8), "HSIL"),)),), ("HSIL",))


def write_made_up(data: DataSet, root: Path) -> None:
    (root / "cells.txt").write_text(str(sum(len(image.cells) for image in data.images)))


MADE_UP = Writer(write_made_up, images="pixels")


def test_a_format_from_outside_the_package_goes_through_the_command(tmp_path: Path) -> None:
    from cytosynth import registry

    PILImage.new("RGB", (40, 30)).save(tmp_path / "a.png")
    registry.FORMATS_IN.add("made-up", f"{__name__}:read_made_up", "a test's own")
    registry.FORMATS_OUT.add("made-up", f"{__name__}:MADE_UP", "a test's own")
    try:
        command = ["convert", str(tmp_path), str(tmp_path / "out"), "--from", "made-up", "--to", "made-up"]
        ended = CliRunner().invoke(app, command)
        assert ended.exit_code == 0, ended.output
        assert (tmp_path / "out/cells.txt").read_text() == "1"
        assert (tmp_path / "out/pixels/a.png").exists()
    finally:
        registry.FORMATS_IN.remove("made-up")
        registry.FORMATS_OUT.remove("made-up")


def test_tiffs_of_sixteen_bits_and_thumbnails(tmp_path: Path) -> None:
    folder = CASES / "06_tiff16/images"
    with pytest.raises(image_files.ImageProblem, match="more than 8 bits per channel, so the white level is unknown"):
        image_files.read(folder / "12in16.tif")
    with PILImage.open(folder / "thumbnail_first.tif") as image:
        first = image.size
        image.seek(1)
        wanted = np.asarray(image.convert("RGB"))
    assert first != image_files.size(folder / "thumbnail_first.tif") == wanted.shape[1::-1]
    assert (image_files.read(folder / "thumbnail_first.tif") == wanted).all()
    pages = [PILImage.new("RGB", (40, 30), colour) for colour in ("red", "blue")]
    pages[0].save(tmp_path / "stack.tif", save_all=True, append_images=pages[1:])
    with pytest.raises(image_files.ImageProblem, match="2 pages, none of which is the largest"):
        image_files.read(tmp_path / "stack.tif")


def test_transparent_is_white_and_wholly_transparent_is_a_problem(tmp_path: Path) -> None:
    pixels = np.zeros((30, 40, 4), dtype=np.uint8)
    pixels[:10] = (120, 60, 90, 255)
    pixels[10:20] = (0, 0, 0, 128)
    PILImage.fromarray(pixels).save(tmp_path / "a.png")
    found = image_files.read(tmp_path / "a.png")
    assert (found[:10] == (120, 60, 90)).all()
    assert (abs(found[10:20].astype(int) - 127) <= 1).all()
    assert (found[20:] == 255).all()
    palette = PILImage.new("P", (8, 8), 0)
    palette.putpalette([0, 0, 0, 200, 10, 10])
    palette.putpixel((0, 0), 1)
    palette.save(tmp_path / "p.png", transparency=0)
    found = image_files.read(tmp_path / "p.png")
    assert found[0, 0].tolist() == [200, 10, 10]
    assert (found[1:] == 255).all()
    pixels[..., 3] = 0
    PILImage.fromarray(pixels).save(tmp_path / "gone.png")
    with pytest.raises(image_files.ImageProblem, match="is fully transparent"):
        image_files.read(tmp_path / "gone.png")


def test_kinds_of_images_that_are_not_read_are_named(tmp_path: Path) -> None:
    from cytosynth.data.gather import beside

    PILImage.new("RGB", (40, 30)).save(tmp_path / "A.JPG")
    for name in ("a.gif", "b.JP2", "c.avif", "d.svs", "._A.JPG", "Thumbs.db", "notes.txt"):
        (tmp_path / name).write_bytes(b"x")
    found, refused = beside(tmp_path)
    assert [name for name, _ in found] == ["A.JPG"]
    assert [line.split(":")[0] for line in refused] == ["a.gif", "b.JP2", "c.avif", "d.svs"]
    assert [name for name, _ in beside(tmp_path, slides=True)[0]] == ["A.JPG", "d.svs"]


def test_pseudonyms_leave_no_name_in_what_is_written(tmp_path: Path) -> None:
    secret = "S23-004711"
    coco(tmp_path / "set", [[1, 2, 30, 40]], (64, 48), f"{secret}/{secret}_1.png", slide=secret, source=secret)
    (tmp_path / "set/split.json").write_text(json.dumps({"train": [f"{secret}/{secret}_1.png"]}))
    key = tmp_path / "secret/key"
    content = json.loads((tmp_path / "set/annotations.json").read_text())
    content["images"][0]["id"] = content["annotations"][0]["image_id"] = secret
    (tmp_path / "set/annotations.json").write_text(json.dumps(content))
    names = []
    for out in ("one", "two"):
        command = [
            "convert",
            str(tmp_path / "set"),
            str(tmp_path / out),
            "--to",
            "yolo",
            "--pseudonymise",
            "--key",
            str(key),
        ]
        ended = CliRunner().invoke(app, command)
        assert ended.exit_code == 0, ended.output
        written = [path for path in (tmp_path / out).rglob("*") if path.is_file()]
        assert not [path for path in written if secret in path.name or secret.encode() in path.read_bytes()]
        names.append(sorted(path.name for path in written))
        (image,) = read(tmp_path / out).images
        assert read(tmp_path / out).parts == {"train": (image.file_name,)}
        assert image.extra["slide"] not in ("", secret)
    convert.convert(tmp_path / "set", tmp_path / "coco", None, "coco", pseudonyms=Pseudonyms.load(key))
    assert secret not in (tmp_path / "coco/annotations.json").read_text()
    assert names[0] == names[1], "the same key gives the same names"
    assert key.stat().st_mode & 0o077 == 0
    ended = CliRunner().invoke(app, [*command[:2], str(tmp_path / "three"), *command[3:-1], str(tmp_path / "other")])
    assert names[0] != sorted(path.name for path in (tmp_path / "three").rglob("*") if path.is_file())


def test_ids_of_the_users_coco_come_back(tiny: Path, tmp_path: Path) -> None:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    from cytosynth.detection import folder, model

    source = CASES / "03_results_ids"
    detector = model.load(tiny / "detector")
    folder.detect(folder.gather(source), tmp_path / "out", detector, threshold=0.0, scale=0.25)
    theirs = COCO(source / "annotations.json")
    scored = COCOeval(theirs, theirs.loadRes(str(tmp_path / "out/results.json")), "bbox")
    scored.evaluate()
    results = json.loads((tmp_path / "out/results.json").read_text())
    assert {entry["category_id"] for entry in results} == {2}, "NILM is 2 in their file"
    own = {image["file_name"]: image["id"] for image in theirs.dataset["images"]}
    ours = COCO(tmp_path / "out/annotations.json")
    assert {image["file_name"]: image["id"] for image in ours.dataset["images"]} == own == {"b.jpg": 2, "a.jpg": 1}
    for name, key in own.items():
        found = [line for line in (tmp_path / "out/found.jsonl").read_text().splitlines() if f'"{name}"' in line]
        boxes = [cell["box"] for cell in json.loads(found[0])["cells"]]
        given = [entry["bbox"] for entry in results if entry["image_id"] == key]
        assert np.allclose(np.array(given)[:, :2], np.array(boxes)[:, :2])


def test_originals_that_are_edited_have_pseudonyms_too(tmp_path: Path) -> None:
    from cytosynth.synthesis import own_images

    PILImage.new("RGB", (300, 300)).save(tmp_path / "S23-1.png")
    (tmp_path / "S23-2.gif").write_bytes(b"x")
    names = Pseudonyms(b"k" * 32)
    found = own_images.gather(tmp_path, None, "all", Place()).under(names)
    assert [name for name, _, _ in found.images] == [names.name("S23-1.png")]
    assert "S23" not in str(found.refused)
    assert found.refused[0].endswith(".gif images are not supported; save it as PNG")
    coco(tmp_path / "set", [[1, 2, 30, 40]], (64, 48), "S23-3.png", slide="S23", image_level_label="Negative")
    content = json.loads((tmp_path / "set/annotations.json").read_text())
    content["categories"][0]["name"] = "NILM"
    (tmp_path / "set/annotations.json").write_text(json.dumps(content))
    ((name, path, said),) = own_images.gather(tmp_path / "set", "Negative", "all", Place()).under(names).images
    assert (name, path.name) == (names.name("S23-3.png"), "S23-3.png")
    assert said == {"image_level_label": "Negative", "slide": names.hashed("S23")}


def test_a_category_without_a_cell_is_named_before_training(capsys: pytest.CaptureFixture[str]) -> None:
    samples = sources.load([Source(root="04_splits/coco", split="all")], CASES)
    assert sources.say_lacking(samples, ["HSIL", "LSIL"]) == {"HSIL"}
    assert "the training data have no cell of LSIL, so this category will not be learnt" in capsys.readouterr().err


def test_box_arithmetic() -> None:
    from cytosynth import boxes as arithmetic

    assert arithmetic.clip((-3, 2, 50, 60), 40, 30) == (0, 2, 40, 30)
    assert arithmetic.clip((50, 2, 60, 9), 40, 30) == (40, 2, 40, 9)
    assert arithmetic.intersection((0, 0, 10, 10), (5, 5, 20, 20)) == 25
    assert arithmetic.iou((0, 0, 10, 10), (5, 0, 15, 10)) == pytest.approx(1 / 3)
    assert arithmetic.overlapping([(0, 0, 10, 10), (10, 0, 20, 10), (9, 9, 12, 12)]) == (0, 2)
    assert arithmetic.to_xywh(arithmetic.from_xywh((1, 2, 3, 4))) == (1, 2, 3, 4)
    assert arithmetic.enclosing([(1, 5), (4, 2)]) == (1, 2, 4, 5)
    assert arithmetic.fitted((-0.3, 0, 10, 10), 100, 100) == ((0, 0, 10, 10), False)
    for box, said in (((0, 0, 0.05, 9), "no area"), ((90, 0, 130, 9), "lies outside"), ((9, 0, 2, 9), "no area")):
        with pytest.raises(ValueError, match=said):
            arithmetic.fitted(box, 100, 100)


def grown(root: Path, tree: tuple[str, ...]) -> set[str]:
    """Write a data set of the files of a layout's `tree`, a box on each image; return the names of its images."""
    lines = [line.split("  ")[0].strip() for line in tree]
    files = [part.strip() for line in lines for part in line.split(" (")[0].split(",")]
    pictures = [name for name in files if name.endswith((".jpg", ".png"))]
    for name in files:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if name in pictures:
            PILImage.new("RGB", (320, 240), (200, 190, 200 + len(path.name) + 3 * files.index(name))).save(path)
        elif path.suffix == ".json":
            own = [p for p in pictures if Path(p).parent == Path(name).parent and Path(p).parent != Path()]
            part = [p for p in pictures if Path(p).parent.name and Path(p).parent.name in path.stem]
            listed = own or part or pictures
            named = [p if p.startswith(("raw/", "images/1f")) else Path(p).name for p in listed]
            path.write_text(json.dumps(coco_of(named)))
        elif path.suffix == ".xml":
            picture = next(p for p in pictures if Path(p).stem == path.stem)
            text = (CASES / "08_export_layouts/labelimg_voc/a.xml").read_text()
            path.write_text(text.replace("a.jpg", Path(picture).name))
        elif path.suffix == ".yaml":
            path.write_text("names: [NILM, HSIL]\n")
        elif path.name in ("classes.txt", "obj.names", "_darknet.labels"):
            path.write_text("NILM\nHSIL\n")
        elif path.suffix == ".txt" and path.stem in ("a", "b", "1f-a"):
            path.write_text("1 0.36 0.4 0.09 0.12\n")
    return {Path(name).name for name in pictures}


def coco_of(names: list[str]) -> dict[str, Any]:
    return {
        "images": [{"id": n, "file_name": name, "width": 320, "height": 240} for n, name in enumerate(names)],
        "annotations": [
            {"id": n, "image_id": n, "category_id": 1, "bbox": [100, 80, 30, 30]} for n in range(len(names))
        ],
        "categories": [{"id": 1, "name": "HSIL"}],
    }


ANNOTATED = [layout for layout in layouts.LAYOUTS if layout.needs and layout.format in ("coco", "yolo", "voc")]


@pytest.mark.parametrize("layout", ANNOTATED, ids=lambda layout: f"{layout.format}: {layout.tool}")
def test_every_tree_of_the_table_is_read(layout: layouts.Layout, tmp_path: Path) -> None:
    tree = tuple(line for line in layout.tree if "optional" not in line and "obj.data" not in line)
    tree = tuple(line for line in tree if not line.startswith(("train.txt", "notes.json", "images.txt")))
    if any(need == "obj.data" for need in layout.needs):
        (tmp_path / "obj.data").write_text("classes = 2\n")
    wanted = grown(tmp_path, tree)
    assert guess(tmp_path) == layout.format
    assert check(tmp_path) == []
    data = read(tmp_path)
    assert {Path(image.file_name).name for image in data.images} == wanted
    assert all(len(image.cells) == 1 and data.path(image).is_file() for image in data.images)
    divided = {"train", "valid", "val", "train2017"} & {part for line in tree for part in line.split("/")[:-1]}
    assert bool(data.parts) == bool(divided)


def test_slides_among_images_are_named(tmp_path: Path) -> None:
    PILImage.new("RGB", (40, 30)).save(tmp_path / "a.png")
    (tmp_path / "b.svs").write_bytes(b"x")
    assert guess(tmp_path) == "images"
    (line,) = check(tmp_path)
    assert line.startswith("b.svs: is a slide (.svs); cut it into fields with `cytosynth tiles`")
    (tmp_path / "a.png").unlink()
    assert guess(tmp_path) == "slides"
