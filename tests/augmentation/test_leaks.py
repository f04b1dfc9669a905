"""No held-out image reaches a training set through images that were made from images made from it."""

import json
import shutil
from pathlib import Path

import pytest

from conftest import write_fields
from cytosynth.annotations import Cell, DataSet, Image
from cytosynth.augmentation import leaks, seen
from cytosynth.augmentation.mix import mix
from cytosynth.augmentation.select.candidates import gather
from cytosynth.augmentation.select.recipe import PRESETS
from cytosynth.data import convert
from cytosynth.data.formats import coco
from cytosynth.data.sources import Source
from cytosynth.errors import UsageError, UserError
from cytosynth.io import atomic
from cytosynth.provenance import ancestors, said
from cytosynth.synthesis import synthesize
from cytosynth.synthesis.pasting.paste import paste
from cytosynth.synthesis.settings import PipelineSettings
from slide_files import write_slide

HOSTS = ["field_6.png", "field_7.png"]
"""A normal image and one with abnormal cells, held out."""
TEST = [Source(root="real", split="test")]
LEAK = r"was made from images that were made from field_[67].png, a test image"


@pytest.fixture(scope="module")
def levels(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real set, `pasted` of its test images, `edited` from that, and `again` from this; `apart`, of train images."""
    root = tmp_path_factory.mktemp("levels")
    write_fields(root / "real", 8)
    names = [image.file_name for image in coco.read(root / "real").images]
    atomic.write_json(root / "real/split.json", {"train": [n for n in names if n not in HOSTS], "test": HOSTS})
    settings = PipelineSettings.model_validate(
        {"min_cells": 1, "max_cells": 2, "threshold": 0.0, "cell": {"steps": 2, "batch": 2}}
    )
    models = {role: str(tiny / role) for role in ("foundation", "cell", "detector")}
    paste(Source(root="real", split="test"), root / "pasted", root, count=1)
    paste(Source(root="real", split="train"), root / "fair", root, count=1)
    for source, out in (("pasted", "edited"), ("edited", "again"), ("fair", "fine")):
        synthesize.edit(root / source / "images", root / out, settings=settings, **models)
    return root


def digest(root: Path, name: str) -> str:
    return atomic.sha256(root / "real/images" / name)


def test_every_level_is_recorded(levels: Path) -> None:
    (pasted,), (edited,), (again,) = (said(levels / name).values() for name in ("pasted", "edited", "again"))
    assert "ancestors" not in pasted, "its originals are real"
    held = {digest(levels, name) for name in HOSTS}
    assert set(ancestors(pasted)) == held
    assert set(edited["ancestors"]) == held
    assert set(again["ancestors"]) == held | {atomic.sha256(levels / "pasted/images/000000.png")}
    assert ancestors(again) == sorted({*again["ancestors"], atomic.sha256(levels / "edited/images/000000.png")})


@pytest.mark.parametrize("name", ["edited", "again"])
def test_an_edit_of_an_edit_of_a_held_out_image_is_refused(levels: Path, name: str) -> None:
    leaks.refuse(levels / "fine", TEST, levels)
    with pytest.raises(UserError, match=LEAK):
        leaks.refuse(levels / name, TEST, levels)
    with pytest.raises(UserError, match=LEAK):
        mix(levels / "real", levels / name, levels / f"mixed-{name}")
    with pytest.raises(UserError, match=LEAK):
        gather(PRESETS["bundled"].model_copy(update={"synthetic": [name]}), TEST, levels)


def test_what_is_pasted_into_or_from_a_synthetic_image_is_followed(levels: Path, tmp_path: Path) -> None:
    data = coco.read(levels / "edited")
    entry = coco.encode(data)["images"][0]
    shutil.copytree(levels / "real", tmp_path / "both")
    listed = json.loads((tmp_path / "both/annotations.json").read_text())
    shutil.copyfile(levels / "edited/images/000000.png", tmp_path / "both/images/made.png")
    listed["images"].append(entry | {"id": 99, "file_name": "made.png"})  # without a box: to be pasted into
    atomic.write_json(tmp_path / "both/annotations.json", listed)
    atomic.write_json(tmp_path / "both/split.json", {"train": ["made.png", "field 1.png"], "rest": []})
    paste(Source(root="both", split="train"), tmp_path / "twice", tmp_path, count=1)
    with pytest.raises(UserError, match=LEAK):
        leaks.refuse(tmp_path / "twice", TEST, levels)


def test_a_copy_in_another_format_is_refused_too(levels: Path, tmp_path: Path) -> None:
    convert.convert(levels / "again", tmp_path / "yolo", None, "yolo")
    assert not (tmp_path / "yolo/provenance.jsonl").exists()
    with pytest.raises(UserError, match=LEAK):
        leaks.refuse(tmp_path / "yolo", TEST, levels)
    with pytest.raises(UserError, match=f"real: .*{LEAK}"):  # as real images that are trained on
        leaks.apart("real", [Source(root=str(tmp_path / "yolo"), split="all")], TEST, levels)


def test_a_model_trained_on_them_has_seen_what_they_were_made_from(levels: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    (run / "weights").mkdir(parents=True)
    (run / "recipe.yaml").write_text("data: [{root: again, split: all}]\n")
    known = seen.of_model(str(run), "cell", levels)
    assert known is not None
    assert {known[digest(levels, name)] for name in HOSTS} == {"an original of again/000000.png"}
    with pytest.raises(UserError, match=r"this cell was trained or chosen on an original of again/000000.png, wh"):
        leaks.unseen({"cell": str(run)}, TEST, levels)
    with pytest.raises(UsageError, match=r"real: an original of again/000000.png is the file of real/field_[67].png"):
        leaks.unlike("real", Source(root="again", split="all"), TEST[0], levels)


def test_an_edit_of_a_held_out_slide_is_refused(tmp_path: Path) -> None:
    for name in ("held", "edited"):
        (tmp_path / name).mkdir()
    write_slide(tmp_path / "held/a.tif", (600, 500), [])
    extra = {"synthetic": True, "original": "b.tif", "original_sha256": atomic.sha256(tmp_path / "held/a.tif")}
    write_slide(tmp_path / "edited/slide.tif", (600, 500), [(100, 100, 20)])
    slide = Image("slide.tif", 600, 500, (Cell((80, 80, 120, 120), "HSIL"),), extra)
    coco.write(DataSet(tmp_path / "edited", (slide,), ("HSIL",)), tmp_path / "edited")
    held = [Source(root="held", split="all")]
    with pytest.raises(UserError, match=r"edited: was made from b.tif, a all image"):
        leaks.refuse(tmp_path / "edited", held, tmp_path)
