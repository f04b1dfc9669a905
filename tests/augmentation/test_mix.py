"""`mix`: real and synthetic images together: parts, flags, ids, what is refused, and that a killed one continues."""

import json
import multiprocessing
import os
import shutil
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PILImage
from pycocotools.coco import COCO
from typer.testing import CliRunner

import killing
from candidate_sets import write_synthetic
from conftest import CATEGORIES, LICENCE, write_fields
from cytosynth.augmentation.mix import mix
from cytosynth.cli import app
from cytosynth.cli import mix as _command  # noqa: F401
from cytosynth.data.check import check
from cytosynth.data.read import read
from cytosynth.data.sources import Source, load
from cytosynth.errors import UsageError, UserError
from cytosynth.io import atomic
from cytosynth.provenance import said


@pytest.fixture
def sets(tmp_path: Path) -> tuple[Path, Path]:
    """Six real images with ids of their own (four of them to train on), four synthetic ones."""
    real, made = tmp_path / "real", tmp_path / "made"
    write_fields(real)
    content = json.loads((real / "annotations.json").read_text())
    numbers = {image["id"]: 100 + 7 * image["id"] for image in content["images"]}
    for image in content["images"]:
        image["id"] = numbers[image["id"]]
    for entry in content["annotations"]:
        entry["image_id"] = numbers[entry["image_id"]]
    for category in content["categories"]:
        category["id"] += 40
    for entry in content["annotations"]:
        entry["category_id"] += 40
    atomic.write_json(real / "annotations.json", content)
    write_synthetic(made, 4, 100)
    return real, made


def loaded(file: Path) -> COCO:
    """Return what pycocotools reads of `file`, without a word of it."""
    with redirect_stdout(StringIO()):
        return COCO(str(file))


def test_pycocotools_reads_the_whole_and_each_part(sets: tuple[Path, Path], tmp_path: Path) -> None:
    real, made = sets
    mix(real, made, tmp_path / "out")
    theirs, whole = loaded(real / "annotations.json"), loaded(tmp_path / "out/annotations.json")
    flags = {image["file_name"]: image["synthetic"] for image in whole.loadImgs(whole.getImgIds())}
    assert flags == {image["file_name"]: False for image in theirs.dataset["images"]} | {
        f"synthetic_{n:06d}.png": True for n in range(4)
    }
    for number in theirs.getImgIds():  # the user's ids, boxes and categories come back
        ours = whole.loadImgs(number)[0]
        assert ours["file_name"] == theirs.loadImgs(number)[0]["file_name"]
        boxes = [
            [(a["bbox"], a["category_id"]) for a in one.loadAnns(one.getAnnIds(number))] for one in (theirs, whole)
        ]
        assert boxes[0] == boxes[1]
    parts = json.loads((tmp_path / "out/split.json").read_text())
    assert [len(parts[name]) for name in ("train", "val", "test")] == [8, 1, 1]
    for name, members in parts.items():
        part = loaded(tmp_path / f"out/instances_{name}.json")
        assert [image["file_name"] for image in part.dataset["images"]] == members
        assert set(part.getImgIds()) <= set(whole.getImgIds())
        assert part.getCatIds() == whole.getCatIds() == theirs.getCatIds()
        for number in part.getImgIds():
            assert len(part.getAnnIds(number)) == len(whole.getAnnIds(number))
        if name != "train":
            assert not any(image["synthetic"] for image in part.dataset["images"])
    assert check(tmp_path / "out") == []


def test_files_records_and_licences_come_along(sets: tuple[Path, Path], tmp_path: Path) -> None:
    real, made = sets
    out = tmp_path / "out"
    done = CliRunner().invoke(app, ["mix", str(real), str(made), str(out)], catch_exceptions=False)
    assert "6 real images, 4 synthetic, coco" in done.output
    for file in (real / "images").iterdir():
        assert (out / "images" / file.name).read_bytes() == file.read_bytes()
    records = said(out)
    for name, record in said(made).items():
        assert (out / f"images/synthetic_{name}").read_bytes() == (made / "images" / name).read_bytes()
        moved = {"file_name": f"synthetic_{name}", "mixed": {"file_name": name}}
        assert records[f"synthetic_{name}"] == record | moved
    assert len(records) == 4
    data = read(out)
    assert data.licences == (LICENCE,)
    assert {image.extra["license"] for image in data.images} == {1}
    card = (out / "README.md").read_text()
    assert "| train | 4 | 4 | 20 | 20 |" in card
    assert "| test | 1 | 0 | 5 | 0 |" in card
    assert "CC BY 4.0" in card


def test_a_ratio_takes_the_first_and_says_where_there_are_fewer(
    sets: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    half = mix(*sets, tmp_path / "half", ratio=0.5)  # of four real images to train on
    assert [i.file_name for i in half.images if i.extra["synthetic"]] == [
        "synthetic_000000.png",
        "synthetic_000001.png",
    ]
    mix(*sets, tmp_path / "more", ratio=2)
    assert "4 images, fewer than --ratio 2 needs" in capsys.readouterr().err


def test_yolo_is_read_back_with_parts_and_flags_and_no_label_is_shared(sets: tuple[Path, Path], tmp_path: Path) -> None:
    real, made = sets
    (real / "images/field_0.png").rename(real / "images/synthetic_000000.jpg")  # another suffix, the same label
    for name in ("annotations.json", "split.json"):
        text = (real / name).read_text().replace("field_0.png", "synthetic_000000.jpg")
        (real / name).write_text(text)
    mix(real, made, tmp_path / "out", target="yolo")
    data = read(tmp_path / "out", "yolo")
    flags = {image.file_name: image.extra["synthetic"] for image in data.images}
    assert flags["synthetic_000000.jpg"] is False
    assert flags["_synthetic_000000.png"] is True
    assert len(list((tmp_path / "out/labels").iterdir())) == 10
    assert {name: len(members) for name, members in data.parts.items()} == {"train": 8, "val": 1, "test": 1}
    assert not any(flags[name] for part in ("val", "test") for name in data.parts[part])
    given = {image.file_name: image.cells for image in read(real).images}
    for image in data.images:
        if not image.extra["synthetic"]:
            expected = [(cell.category, cell.box) for cell in given[image.file_name]]
            assert [cell.category for cell in image.cells] == [category for category, _ in expected]
            for cell, (_, box) in zip(image.cells, expected, strict=True):
                assert cell.box == pytest.approx(box, abs=1e-3)


def test_trainers_take_synthetic_images_for_training_alone(sets: tuple[Path, Path], tmp_path: Path) -> None:
    mix(*sets, tmp_path / "out")
    names = {
        part: [sample.name for sample in load([Source(root="out", split=part)], tmp_path)] for part in ("train", "val")
    }
    assert sum(name.startswith("synthetic_") for name in names["train"]) == 4
    assert names["val"] == ["field_4.png"]


def test_normal_cells_are_left_out_where_only_edited_ones_are_annotated(
    sets: tuple[Path, Path], tmp_path: Path
) -> None:
    real, made = sets
    content = json.loads((made / "annotations.json").read_text())
    normal = next(entry["id"] for entry in content["categories"] if entry["name"] == "NILM")
    cells = [entry for entry in content["annotations"] if entry["category_id"] == normal]
    cells[0]["synthetic"] = True
    edited = tmp_path / "edited"
    shutil.copytree(made, edited)
    content["annotations"] = [one for one in content["annotations"] if one["category_id"] != normal] + cells[:1]
    atomic.write_json(edited / "annotations.json", content)
    mixed = mix(real, edited, tmp_path / "mixed")
    assert "NILM" not in mixed.categories
    assert not any(cell.category == "NILM" for image in mixed.images for cell in image.cells)


def test_normal_cells_that_synthetic_images_do_not_annotate_are_left_out_or_kept(
    sets: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    real, made = sets
    content = json.loads((made / "annotations.json").read_text())
    normal = next(entry["id"] for entry in content["categories"] if entry["name"] == "NILM")
    content["categories"] = [entry for entry in content["categories"] if entry["id"] != normal]
    content["annotations"] = [entry for entry in content["annotations"] if entry["category_id"] != normal]
    atomic.write_json(made / "annotations.json", content)
    without = mix(real, made, tmp_path / "without")
    assert without.categories == CATEGORIES[1:]
    assert not any(cell.category == "NILM" for image in without.images for cell in image.cells)
    assert "NILM: boxes left out, because synthetic images have none on most such cells" in capsys.readouterr().err
    assert "NILM: boxes left out" in (tmp_path / "without/README.md").read_text()
    kept = mix(real, made, tmp_path / "kept", keep_normal=True)
    assert kept.categories == CATEGORIES
    count = sum(cell.category == "NILM" for image in read(real).images for cell in image.cells)
    assert sum(cell.category == "NILM" for image in kept.images for cell in image.cells) == count > 0
    assert "NILM: annotated on real images" in (tmp_path / "kept/README.md").read_text()


def test_what_may_not_be_mixed_is_refused(sets: tuple[Path, Path], tmp_path: Path) -> None:
    real, made = sets
    with pytest.raises(UserError, match=r"000000\.png is synthetic; the real data set is the first argument"):
        mix_of = tmp_path / "made_flagged"
        write_synthetic(mix_of, 2, 300)
        content = json.loads((mix_of / "annotations.json").read_text())
        for image in content["images"]:
            image["synthetic"] = True
        atomic.write_json(mix_of / "annotations.json", content)
        mix(mix_of, made, tmp_path / "out")
    with pytest.raises(UserError, match=r"is not marked as synthetic; the synthetic data set is the second argument"):
        mix(real, real, tmp_path / "out")
    write_synthetic(tmp_path / "leak", 2, 300, original="field_4.png")
    with pytest.raises(UserError, match=r"made from field_4\.png, a val image"):
        mix(real, tmp_path / "leak", tmp_path / "out")
    content = json.loads((made / "annotations.json").read_text())
    for category in content["categories"]:
        category["name"] = f"class {category['id']}"
    write_synthetic(tmp_path / "others", 2, 300)
    atomic.write_json(tmp_path / "others/annotations.json", content)
    with pytest.raises(UserError, match=r"none in common; rename with `cytosynth convert --rename OLD=NEW`"):
        mix(real, tmp_path / "others", tmp_path / "out2")
    atomic.write_json(real / "split.json", {"test": ["field_0.png"]})
    with pytest.raises(UserError, match="no image in part 'train'"):
        mix(real, made, tmp_path / "out3")


def test_a_changed_image_of_the_same_size_is_copied_anew(sets: tuple[Path, Path], tmp_path: Path) -> None:
    place = sets[0] / "images/field_2.png"
    pixels = np.array(PILImage.open(place))
    PILImage.fromarray(pixels).save(place, compress_level=0)
    mix(*sets, tmp_path / "out")
    size = place.stat().st_size
    PILImage.fromarray(255 - pixels).save(place, compress_level=0)
    assert place.stat().st_size == size
    mix(*sets, tmp_path / "out")
    assert (tmp_path / "out/images/field_2.png").read_bytes() == place.read_bytes()


def _dying(real: Path, made: Path, out: Path, at: int, tally: Path) -> None:
    killing._watch(out, at, tally)
    mix(real, made, out)
    os._exit(0)


@pytest.mark.parametrize("at", [2, 7, 15, 24])
def test_a_killed_mix_continues_to_the_same_bytes(at: int, sets: tuple[Path, Path], tmp_path: Path) -> None:
    mix(*sets, tmp_path / "once")
    victim = multiprocessing.get_context("fork").Process(
        target=_dying, args=(*sets, tmp_path / "out", at, tmp_path / "tally")
    )
    victim.start()
    victim.join()
    assert victim.exitcode == -9
    assert not (tmp_path / "out/README.md").exists()
    mix(*sets, tmp_path / "out")
    assert killing.content(tmp_path / "out") == killing.content(tmp_path / "once")
    mix(*sets, tmp_path / "out")  # a finished one too
    assert killing.content(tmp_path / "out") == killing.content(tmp_path / "once")
    with pytest.raises(UsageError, match=r"started with ratio=None, now 0\.5"):
        mix(*sets, tmp_path / "out", ratio=0.5)
