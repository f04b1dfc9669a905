import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as PILImage
from typer.testing import CliRunner

from conftest import CATEGORIES, LICENCE, drawn, write_fields
from cytosynth.annotations import Cell, DataSet, Image
from cytosynth.cli import app
from cytosynth.cli import data as _verbs  # noqa: F401
from cytosynth.data import convert as formats
from cytosynth.data import image_files, split
from cytosynth.data.formats import cells, coco, comparison_database, cric, folders, registration, voc
from cytosynth.data.formats.coco import encode
from cytosynth.errors import FormatProblem, UsageError, UserError

coordinates = st.floats(0, 1000, allow_nan=False, width=32)


def same(first: DataSet, second: DataSet, within: float = 1e-3) -> None:
    assert first.categories == second.categories
    assert first.licences == second.licences
    assert first.info == second.info
    assert {p.file_name for p in first.images} == {p.file_name for p in second.images}
    others = {p.file_name: p for p in second.images}
    for image in first.images:
        other = others[image.file_name]
        assert (image.width, image.height, image.extra) == (other.width, other.height, other.extra)
        assert [c.category for c in image.cells] == [c.category for c in other.cells]
        assert [c.score for c in image.cells] == [c.score for c in other.cells]
        for cell, twin in zip(image.cells, other.cells, strict=True):
            assert np.allclose(cell.box, twin.box, atol=within)


@pytest.mark.parametrize("kind", ["coco", "yolo", "voc"])
def test_round_trip_through_every_format_loses_nothing(tmp_path: Path, fields: Path, kind: str) -> None:
    source = formats.read(fields / "drawn")
    formats.convert(fields / "drawn", tmp_path / kind, None, kind)
    assert formats.guess(tmp_path / kind) == kind
    formats.convert(tmp_path / kind, tmp_path / "back", None, "coco")
    back = formats.read(tmp_path / "back")
    same(source, back)
    for image in back.images:
        assert back.path(image).read_bytes() == source.path(image).read_bytes()
    assert json.loads((tmp_path / "back/split.json").read_text()) == json.loads(
        (fields / "drawn/split.json").read_text()
    )


def test_categories_get_the_names_that_are_given(tmp_path: Path) -> None:
    (tmp_path / "own/images").mkdir(parents=True)
    PILImage.new("RGB", (100, 80)).save(tmp_path / "own/images/a.png")
    cells = tuple(
        Cell((10.0 * n, 0.0, 10.0 * n + 9, 9.0), name) for n, name in enumerate(("neg", "hsil", "x=y", "sup"))
    )
    images = (Image("a.png", 100, 80, cells, {"image_level_label": "neg"}),)
    coco.write(DataSet(tmp_path / "own/images", images, ("neg", "hsil", "sup", "x=y")), tmp_path / "own")

    def convert(out: str, *names: str) -> str:
        flags = [flag for name in names for flag in ("--rename", name)]
        ended = CliRunner().invoke(app, ["convert", str(tmp_path / "own"), str(tmp_path / out), "--to", "coco", *flags])
        if ended.exception and not isinstance(ended.exception, SystemExit):
            raise ended.exception
        return ended.output

    said = convert("new", "neg=NILM", "sup = NILM", "hsil=HSIL", "x=y=other")
    assert "categories other than NILM, ASC-US, ASC-H, LSIL, HSIL: 'other'; normal cells must be called NILM" in said
    new = coco.read(tmp_path / "new")
    assert new.categories == ("NILM", "HSIL", "other")
    assert [cell.category for cell in new.images[0].cells] == ["NILM", "HSIL", "other", "NILM"]
    assert new.images[0].extra["image_level_label"] == "NILM"
    assert "not among" not in convert("known", "neg=NILM", "sup=NILM", "hsil=HSIL", "x=y=LSIL")
    for wrong, complaint in (
        (["normal=NILM"], "--rename normal: unknown category; the data set has 'neg', 'hsil', 'sup', 'x=y'"),
        (["neg"], "expected OLD=NEW"), (["neg="], "expected OLD=NEW"), (["neg=a\nb"], "--rename"),
        (["neg=NILM", "neg=LSIL"], "neg is already renamed to NILM"),
    ):  # fmt: skip
        with pytest.raises(UsageError, match=complaint):
            convert("not", *wrong)
        assert not (tmp_path / "not").exists()


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(coordinates, coordinates, coordinates, coordinates, st.sampled_from(CATEGORIES)), max_size=8))
def test_any_boxes_survive_yolo_and_voc(tmp_path_factory: pytest.TempPathFactory, boxes: list) -> None:
    """Boxes with an area, inside an image of 1000x1000."""
    root = tmp_path_factory.mktemp("any")
    for folder in ("images", "JPEGImages"):
        (root / folder).mkdir()
        PILImage.new("RGB", (1000, 1000)).save(root / folder / "a.png")
    found = (Cell((min(a, c), min(b, d), max(a, c), max(b, d)), name) for a, b, c, d, name in boxes)
    cells = tuple(cell for cell in found if min(cell.size) >= 0.2)
    data = DataSet(root / "images", (Image("a.png", 1000, 1000, cells),), CATEGORIES)
    for kind in ("yolo", "voc"):
        registration.writer(kind).write(data, root)
        same(data, formats.read(root, kind))


@pytest.mark.parametrize("said", ["a\x00b", "a\ufffeb", "<&>\x1b[2J", "two\nlines"])
@pytest.mark.parametrize("kind", ["yolo", "voc"])
@pytest.mark.promise("Hostile or broken input")
def test_whatever_is_said_of_a_set_can_be_read_again(said: str, kind: str, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    PILImage.new("RGB", (40, 30)).save(tmp_path / "images/a.png")
    image = Image("a.png", 40, 30, (Cell((1, 2, 9, 8), "HSIL"),), {"slide": said})
    coco.write(DataSet(tmp_path / "images", (image,), CATEGORIES, info={"description": said}), tmp_path)
    formats.convert(tmp_path, tmp_path / kind, None, kind)
    again = formats.read(tmp_path / kind)
    assert again.info["description"] == said
    assert again.images[0].extra["slide"] == said
    with pytest.raises(ValueError, match="control"):
        cells.name("a\uffffb")


def test_coco_ids_count_from_one_and_yolo_classes_from_zero(tmp_path: Path, fields: Path) -> None:
    content = encode(formats.read(fields / "drawn"))
    assert [entry["id"] for entry in content["categories"]] == [1, 2, 3, 4, 5]
    assert min(entry["id"] for entry in content["images"]) == 1
    assert min(entry["id"] for entry in content["annotations"]) == 1
    formats.convert(fields / "drawn", tmp_path / "yolo", None, "yolo")
    classes = [int(line.split()[0]) for f in (tmp_path / "yolo/labels").glob("*.txt") for line in f.open()]
    assert min(classes) == 0
    assert max(classes) == 4


def release(root: Path, form: str) -> None:
    root.mkdir()
    pixels, _ = drawn(0)
    PILImage.fromarray(pixels).save(root / "a.png")
    PILImage.fromarray(pixels).save(root / "b.png")
    cells = [
        {"cell_id": 7, "bethesda_system": "Negative for intraepithelial lesion", "nucleus_x": 100, "nucleus_y": 120},
        {"cell_id": 8, "bethesda_system": "HSIL", "nucleus_x": 10, "nucleus_y": 280},
    ]
    if form == "json":
        entries = [
            {"image_id": 1, "image_name": "a.png", "image_doi": "10.1/a", "classifications": cells},
            {"image_id": 2, "image_name": "b.png", "image_doi": "10.1/b", "classifications": []},
        ]
        (root / "classifications.json").write_text(json.dumps(entries))
    else:
        lines = ["image_id,image_filename,image_doi,cell_id,bethesda_system,nucleus_x,nucleus_y"]
        lines += [
            f"1,a.png,10.1/a,{c['cell_id']},{c['bethesda_system']},{c['nucleus_x']},{c['nucleus_y']}" for c in cells
        ]
        (root / "classifications.csv").write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize("form", ["json", "csv"])
def test_cric_release_points_become_boxes_of_the_side_asked_for(tmp_path: Path, form: str) -> None:
    release(tmp_path / "cric", form)
    data = cric.read(tmp_path / "cric", side=60)
    first, second = data.images[0].cells
    assert (first.category, first.box, first.extra["nucleus"]) == ("NILM", (70, 90, 130, 150), [100.0, 120.0])
    assert (second.category, second.box) == ("HSIL", (0, 250, 40, 288)), "cut at the border"
    assert data.images[0].extra == {"license": 1, "source": "10.1/a"}
    assert data.licences[0]["name"] == "CC BY 4.0"
    assert len(data.images) == (2 if form == "json" else 1)
    formats.convert(tmp_path / "cric", tmp_path / "coco", None, "coco", side=60)
    same(data, formats.read(tmp_path / "coco"))


def test_comparison_detector_database_is_prepared_as_in_the_paper(tmp_path: Path) -> None:
    root = tmp_path / "cd"
    (root / "images").mkdir(parents=True)
    for name in ("t.jpg", "none.jpg"):
        PILImage.fromarray(drawn(1, 640, 320)[0]).save(root / "images" / name)
    (root / "split.json").write_text(json.dumps({"train": ["t.jpg"], "test": ["none.jpg"]}))
    cells = (Cell((100, 50, 200, 150), "ascus"), Cell((0, 0, 640, 320), "hsil"), Cell((5, 5, 9, 9), "candida"))
    names = ("ascus", "asch", "lsil", "hsil", "scc", "agc", "trichomonas", "candida", "flora", "herps", "actinomyces")
    other = Image("none.jpg", 640, 320, (Cell((5, 5, 9, 9), "flora"),))
    images = (Image("t.jpg", 640, 320, cells), other)
    coco.write(DataSet(root / "images", images, names, (LICENCE,)), root)
    formats.convert(root, tmp_path / "out", "comparison-detector", "coco")
    data = formats.read(tmp_path / "out")
    assert data.categories == ("ASC-US", "ASC-H", "LSIL", "HSIL")
    assert data.licences == (LICENCE,)
    assert [p.file_name for p in data.images] == ["t.png"], "images without one of the four are left out"
    assert json.loads((tmp_path / "out/split.json").read_text())["train"] == ["t.png"]
    assert [(c.category, c.box) for c in data.images[0].cells] == [
        ("ASC-US", (160, 80, 320, 240)), ("HSIL", (0, 0, 1024, 512)),
    ]  # fmt: skip
    pixels = np.asarray(PILImage.open(data.path(data.images[0])))
    assert pixels.shape == (1024, 1024, 3)
    assert pixels[512:].max() == 0
    assert pixels[:512].mean() > 100
    assert comparison_database.category("ASC-H") == comparison_database.category("asch") == "ASC-H"


def test_a_folder_per_class(tmp_path: Path) -> None:
    for name in ("LSIL", "NILM", "other"):
        (tmp_path / "set" / name).mkdir(parents=True)
        PILImage.new("RGB", (30, 20)).save(tmp_path / "set" / name / "cell.png")
    data = folders.read(tmp_path / "set")
    assert data.categories == ("NILM", "LSIL", "other")
    assert data.images[1].cells == (Cell((0, 0, 30, 20), "LSIL"),)
    formats.convert(tmp_path / "set", tmp_path / "out", None, "coco")
    same(data, formats.read(tmp_path / "out"))


def test_a_failed_conversion_leaves_nothing(tmp_path: Path) -> None:
    write_fields(tmp_path / "set")
    (tmp_path / "set/images/field_3.png").unlink()
    with pytest.raises(UserError, match=r"field_3\.png: no such file"):
        formats.convert(tmp_path / "set", tmp_path / "out", None, "yolo")
    assert not (tmp_path / "out").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


def test_hostile_xml_is_refused(tmp_path: Path) -> None:
    (tmp_path / "Annotations").mkdir()
    (tmp_path / "Annotations/a.xml").write_text('<!DOCTYPE a [<!ENTITY x "y">]><annotation>&x;</annotation>')
    with pytest.raises(FormatProblem, match="not a VOC annotation"):
        voc.read(tmp_path)


def test_splits_never_divide_a_slide_and_never_overlap(tmp_path: Path) -> None:
    images = tuple(Image(f"s{slide}_{n}.png", 10, 10, (), {"slide": slide}) for slide in range(40) for n in range(5))
    data = DataSet(tmp_path, images, CATEGORIES)
    parts = {name: {p.file_name for p in split.part(data, name, tmp_path)} for name in split.FRACTIONS}
    assert sum(len(part) for part in parts.values()) == len(images)
    assert set().union(*parts.values()) == {p.file_name for p in images}
    for slide in range(40):
        assert sum(any(name.startswith(f"s{slide}_") for name in part) for part in parts.values()) == 1
    assert len(parts["train"]) > len(parts["test"]) > 0
    for first, second in (("s0_0.png", "s0_0.png"), ("s0_0.png", "s0_3.png")):
        (tmp_path / "split.json").write_text(json.dumps({"train": [first], "val": [second]}))
        with pytest.raises(UserError, match="0 is in both 'train' and 'val'"):
            split.part(data, "train", tmp_path)


def test_conversions_that_would_lose_or_move_something_are_refused(tmp_path: Path) -> None:
    (tmp_path / "set/images").mkdir(parents=True)
    for name in ("a.jpg", "a.png"):
        PILImage.new("RGB", (40, 30)).save(tmp_path / "set/images" / name)

    def attempt(images: tuple[Image, ...], target: str) -> None:
        coco.write(DataSet(tmp_path / "set/images", images, CATEGORIES), tmp_path / "set")
        formats.convert(tmp_path / "set", tmp_path / "out", None, target)

    both = (Image("a.jpg", 40, 30), Image("a.png", 40, 30))
    with pytest.raises(UserError, match=r"a\.png: its output file would be that of a\.jpg"):
        attempt(both, "yolo")
    with pytest.raises(UserError, match="is 40x30, annotated as 400x30"):
        attempt((Image("a.png", 400, 30),), "voc")
    with pytest.raises(UserError, match="size 0x30"):
        attempt((Image("a.png", 0, 30),), "yolo")
    (tmp_path / "set/annotations.json").write_text(
        json.dumps({"images": [{"id": 1, "file_name": "a.png", "width": 40, "height": 30}], "categories": [
            {"id": 1, "name": "LSIL"}], "annotations": [
            {"id": 1, "image_id": 1, "category_id": 1, "bbox": [float("nan"), 1, 2, 2]}]})
    )  # fmt: skip
    with pytest.raises(UserError, match="is not finite"):
        formats.convert(tmp_path / "set", tmp_path / "out", None, "yolo")
    assert not (tmp_path / "out").exists()
    attempt(both, "coco")
    assert len(formats.read(tmp_path / "out").images) == 2


def test_yolo_as_others_write_it(tmp_path: Path) -> None:
    for folder in ("images", "labels"):
        (tmp_path / folder).mkdir()
    PILImage.new("RGB", (100, 50)).save(tmp_path / "images/a.png")
    (tmp_path / "data.yaml").write_text("names: {7: HSIL, 2: LSIL}\nlicense: CC BY 4.0\n")
    (tmp_path / "labels/a.txt").write_text("7 0.5 0.5 0.2 0.4 0.9\n2 0.1 0.1 0.1 0.1\n")
    data = formats.read(tmp_path)
    assert data.categories == ("LSIL", "HSIL")
    assert [(c.category, c.score) for c in data.images[0].cells] == [("HSIL", 0.9), ("LSIL", None)]
    assert np.allclose(data.images[0].cells[0].box, (40, 15, 60, 35))
    assert data.info == {"license": "CC BY 4.0"}
    (tmp_path / "labels/gone.txt").write_text("2 0.1 0.1 0.1 0.1\n")
    (tmp_path / "labels/a.txt").write_text("7 0.1 0.1 0.2\n5 0.1 0.1 0.1 0.1\n")
    problems: list[str] = []
    formats.read(tmp_path, "yolo", report=problems.append)
    text = "\n".join(problems)
    assert "a label without its image" in text
    assert "expected 'class x y width height'" in text
    assert "unknown category 5; expected one of 2, 7" in text


def test_what_is_no_data_set_is_not_taken_for_classes_of_images(tmp_path: Path) -> None:
    write_fields(tmp_path / "set", 2)
    (tmp_path / "set/annotations.json").rename(tmp_path / "set/cells.json")
    (tmp_path / "set/cells.json").write_text('{"images": []}')
    with pytest.raises(UserError, match=r"cells\.json is not a file that is read"):
        formats.convert(tmp_path / "set", tmp_path / "out", None, "yolo")
    (tmp_path / "set/cells.json").unlink()
    with pytest.raises(UserError, match="no data set of a known format there"):
        formats.convert(tmp_path / "set", tmp_path / "out", None, "yolo")
    (tmp_path / "set/images").rename(tmp_path / "set/HSIL")
    with pytest.raises(UsageError, match="out: would be a class of"):
        formats.convert(tmp_path / "set", tmp_path / "set/out", None, "yolo")
    assert len(formats.convert(tmp_path / "set", tmp_path / "out", None, "yolo").images) == 2


def test_greys_of_sixteen_bits_are_a_problem_and_not_white(tmp_path: Path) -> None:
    grey = np.full((40, 30), 40_000, dtype=np.uint16)
    for name in ("a.png", "a.tif"):
        PILImage.fromarray(grey).save(tmp_path / name)
        with pytest.raises(image_files.ImageProblem, match="more than 8 bits per pixel"):
            image_files.read(tmp_path / name)
        with pytest.raises(image_files.ImageProblem, match="more than 8 bits per pixel"):
            image_files.size(tmp_path / name)
    for mode in ("1", "L", "LA", "P", "RGBA", "CMYK"):
        PILImage.new("RGB", (30, 40), (255, 255, 255)).convert(mode).save(tmp_path / "b.tif")
        assert (image_files.read(tmp_path / "b.tif") == 255).all(), mode


def test_a_truncated_png_is_a_problem_of_its_own(tmp_path: Path) -> None:
    from cytosynth.data.check import check

    write_fields(tmp_path / "set")
    formats.convert(tmp_path / "set", tmp_path / "yolo", None, "yolo")
    file = tmp_path / "yolo/images/field_2.png"
    file.write_bytes(file.read_bytes()[:500])
    problems = check(tmp_path / "yolo")
    assert len(problems) == 1
    assert "field_2.png: truncated" in problems[0]


def test_a_licence_without_a_usable_number_is_refused_with_yolo_and_voc_too(tmp_path: Path) -> None:
    write_fields(tmp_path / "set", 1)
    for kind in ("yolo", "voc"):
        formats.convert(tmp_path / "set", tmp_path / kind, None, kind)
        side = tmp_path / kind / "dataset.json"
        side.write_text(json.dumps(json.loads(side.read_text()) | {"licenses": [{"id": []}]}))
        with pytest.raises(UserError, match=r"dataset\.json: licenses\[0\]: id: a number or name is expected"):
            formats.read(tmp_path / kind)
