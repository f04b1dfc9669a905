"""Images with annotated abnormal cells are edited and pasted into; these cells stay, with their boxes."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PILImage
from typer.testing import CliRunner

from conftest import write_fields
from cytosynth.annotations import Cell
from cytosynth.augmentation.efficiency.recipe import PRESETS, Strategy
from cytosynth.boxes import overlap
from cytosynth.cell import choose
from cytosynth.cell.settings import EditSettings
from cytosynth.cli import app
from cytosynth.cli import synthesize as _commands  # noqa: F401
from cytosynth.config import override
from cytosynth.data.check import check
from cytosynth.data.formats import coco
from cytosynth.data.shard import Shard
from cytosynth.data.sources import Source
from cytosynth.errors import UsageError, UserError
from cytosynth.provenance import said, write_records
from cytosynth.scale.merge import merge
from cytosynth.slides.commands import edit_slide
from cytosynth.slides.settings import SlideSettings
from cytosynth.studio import correcting
from cytosynth.studio.correcting import Corrections, Decision
from cytosynth.synthesis import plan as plans
from cytosynth.synthesis import synthesize
from cytosynth.synthesis.centre import kept_cells
from cytosynth.synthesis.pasting.paste import paste
from cytosynth.synthesis.pasting.settings import PasteSettings
from cytosynth.synthesis.plan import PlanProblem
from cytosynth.synthesis.settings import COMMAND, PipelineSettings

SETTINGS = ["cell.steps=2", "threshold=0.1", "cell.box_scale=1.2", "keep_abnormal=true", "seed=1"]
CHOSEN = override(COMMAND, SETTINGS)


def models(tiny: Path) -> dict[str, str]:
    return {name: str(tiny / name) for name in ("foundation", "cell", "detector")}


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six drawn fields, four of them with abnormal cells; one of these of a category that the synthesizer lacks."""
    root = tmp_path_factory.mktemp("keep") / "real"
    write_fields(root)
    file = root / "annotations.json"
    values = json.loads(file.read_text())
    values["categories"].append({"id": 99, "name": "SCC"})
    first = next(one for one in values["annotations"] if one["category_id"] != values["categories"][0]["id"])
    first["category_id"] = 99
    file.write_text(json.dumps(values))
    return root


@pytest.fixture(scope="module")
def edited(real: Path, tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("kept") / "out"
    synthesize.edit(real, out, settings=CHOSEN, **models(tiny))
    return out


def abnormal(root: Path) -> dict[str, list[Cell]]:
    return {p.file_name: [cell for cell in p.cells if cell.category != "NILM"] for p in coco.read(root).images}


def test_all_images_are_edited_and_their_abnormal_cells_stay(real: Path, edited: Path) -> None:
    assert check(edited) == []
    made, before = {p.file_name: p for p in coco.read(edited).images}, abnormal(real)
    assert len(made) == len(before) == 6, "by default, only the two without abnormal cells"
    records = said(edited)
    for name, cells in before.items():
        image = made[re.sub(" ", "_", name) if name not in made else name]
        real_cells = [cell for cell in image.cells if cell.extra["synthetic"] is False]
        assert [(cell.box, cell.category) for cell in real_cells] == [(cell.box, cell.category) for cell in cells]
        edits = [cell for cell in image.cells if cell.extra["synthetic"] is True]
        assert len(edits) == len(records[image.file_name]["cells"]) > 0
        pixels, original = (np.asarray(PILImage.open(path)) for path in (
            edited / "images" / image.file_name, real / "images" / name))  # fmt: skip
        for cell in cells:
            x0, y0, x1, y1 = map(int, cell.box)
            assert np.array_equal(pixels[y0:y1, x0:x1], original[y0:y1, x0:x1]), "a real cell is as it was"
        assert (pixels != original).any()
    assert "SCC" in coco.read(edited).categories
    card = (edited / "README.md").read_text()
    kept = sum(map(len, before.values()))
    assert f"{kept} annotated cells of these are real abnormal cells of the original images, with their boxes" in card


def test_the_same_command_continues_and_without_the_option_it_is_another_run(
    real: Path, edited: Path, tiny: Path
) -> None:
    before = {path: path.read_bytes() for path in edited.rglob("*") if path.is_file()}
    (edited / "images/field_2.png").unlink()
    synthesize.edit(real, edited, settings=CHOSEN, **models(tiny))
    assert {path: path.read_bytes() for path in edited.rglob("*") if path.is_file()} == before
    moved = real.parent / "moved"
    shutil.copytree(real, moved)
    file = moved / "annotations.json"
    values = json.loads(file.read_text())
    for one in values["annotations"]:
        one["bbox"][0] += 1.0
    file.write_text(json.dumps(values))
    with pytest.raises(UsageError, match="was made with other annotated cells in field"):
        synthesize.edit(moved, edited, settings=CHOSEN, **models(tiny))
    with pytest.raises(UsageError, match="other settings"):
        synthesize.edit(real, edited, settings=CHOSEN.model_copy(update={"keep_abnormal": False}), **models(tiny))


def test_the_plan_of_such_a_run_makes_it_again_and_leaves_real_cells_alone(
    real: Path, edited: Path, tiny: Path, tmp_path: Path
) -> None:
    given = {name: path for name, path in models(tiny).items() if name != "detector"}
    settings = PipelineSettings(**{key: CHOSEN.model_dump()[key] for key in ("cell", "precision", "keep_abnormal")})
    synthesize.edit(real, tmp_path / "again", plan=edited / "plan.json", settings=settings, **given)
    assert (tmp_path / "again/annotations.json").read_bytes() == (edited / "annotations.json").read_bytes()
    values = json.loads((edited / "plan.json").read_text())
    kept = next(cells[0] for name, cells in abnormal(real).items() if cells and name == "field_2.png")
    entry = next(one for one in values["images"] if one["file_name"] == "field_2.png")
    entry["cells"] = [{"bbox_xyxy": list(kept.box), "category": "HSIL", "seed": 1}]
    (tmp_path / "plan.json").write_text(json.dumps(values))
    with pytest.raises(PlanProblem, match=r"field_2.png\): cells\[0\].* overlaps an annotated abnormal cell"):
        synthesize.edit(real, tmp_path / "no", plan=tmp_path / "plan.json", settings=settings, **given)
    entry["cells"][0]["bbox_xyxy"] = [kept.box[2] + 1, kept.box[1], kept.box[2] + 41, kept.box[3]]
    (tmp_path / "plan.json").write_text(json.dumps(values))
    with pytest.raises(PlanProblem, match=r"what an edit of .* changes overlaps an annotated abnormal cell"):
        synthesize.edit(real, tmp_path / "no", plan=tmp_path / "plan.json", settings=settings, **given)
    with pytest.raises(PlanProblem, match="those with abnormal cells need --keep-abnormal"):
        off = settings.model_copy(update={"keep_abnormal": False})
        synthesize.edit(real, tmp_path / "no", plan=edited / "plan.json", settings=off, **given)


def test_boxes_of_kept_cells_follow_the_scale_and_the_variation(real: Path, tiny: Path, tmp_path: Path) -> None:
    vary = {"mpp": 0.49, "variations": [{"name": "scale", "amount": [0.75, 0.75]}]}
    settings = CHOSEN.model_copy(update={"scale": 1.5})
    settings = PipelineSettings.model_validate(settings.model_dump() | {"vary": vary})
    synthesize.edit(real, tmp_path / "out", settings=settings, **models(tiny))
    before = abnormal(real)["field_2.png"]
    image = next(p for p in coco.read(tmp_path / "out").images if p.file_name == "field_2.png")
    after = [cell for cell in image.cells if cell.extra["synthetic"] is False]
    factor = image.width / 320
    assert factor != 1.5, "the variation changed the size, too"
    assert len(after) == len(before)
    for one, other in zip(before, after, strict=True):
        assert other.box == pytest.approx([side * factor for side in one.box], abs=1.0)


def test_no_edit_reaches_a_kept_cell() -> None:
    kept, settings = [Cell((100.0, 100.0, 140.0, 140.0), "HSIL")], EditSettings(box_scale=1.5)
    near, beside, away = (Cell((x, 100.0, x + 40, 140.0), "NILM") for x in (120.0, 145.0, 161.0))
    assert choose.clear_of(kept, [near, beside, away], (400, 400), settings) == [away]
    assert choose.clear_of([], [near, beside], (400, 400), settings) == [near, beside]
    patches = EditSettings(box_scale=1.5, paste="patch")
    far = Cell((600.0, 600.0, 640.0, 640.0), "NILM")
    assert choose.clear_of(kept, [away, far], (800, 800), patches) == [far], "the whole patch is put back"
    small = EditSettings(box_scale=0.5)
    assert choose.clear_of(kept, [near, beside, away], (400, 400), small) == [beside, away], "the box counts, too"


def test_pasted_into_images_with_abnormal_cells(real: Path, edited: Path, tmp_path: Path) -> None:
    source, settings = Source(root="real", split="all"), PasteSettings(min_cells=1, max_cells=2)
    with pytest.raises(UserError, match="was not made from a normal image"):
        paste(source, tmp_path / "no", real.parent, like=[edited], settings=settings)
    paste(source, tmp_path / "out", real.parent, like=[edited], settings=settings, keep_abnormal=True)
    assert check(tmp_path / "out") == []
    records, before = said(tmp_path / "out"), abnormal(real)
    for image in coco.read(tmp_path / "out").images:
        record = records[image.file_name]
        own = [cell for cell in image.cells if cell.extra["synthetic"] is False]
        assert [(cell.box, cell.category) for cell in own] == [(c.box, c.category) for c in before[record["original"]]]
        new = [cell for cell in image.cells if cell.extra["synthetic"]]
        assert all(one["pasted_from"]["file_name"] != record["original"] for one in record["cells"]), "no cell twice"
        assert new and not any(overlap(one.box, other.box) for one in new for other in own)


def test_shards_with_kept_cells_are_merged_to_the_undivided_run(
    real: Path, edited: Path, tiny: Path, tmp_path: Path
) -> None:
    shards = [tmp_path / f"{number}" for number in (1, 2, 3)]
    for number, folder in enumerate(shards, 1):
        synthesize.edit(real, folder, settings=CHOSEN, shard=Shard(number, 3), **models(tiny))
    known = {coco.read(folder).categories for folder in shards}
    assert len(known) == 2, "SCC is in the images of one shard only"
    merge(tmp_path / "merged", shards)
    for name in ("annotations.json", "plan.json", "provenance.jsonl", "README.md", "images/field_2.png"):
        assert (tmp_path / "merged" / name).read_bytes() == (edited / name).read_bytes(), name


def test_what_was_synthetic_before_is_not_called_real(real: Path, tiny: Path, tmp_path: Path) -> None:
    paste(Source(root="real", split="all"), tmp_path / "pasted", real.parent, count=2, settings=PasteSettings())
    before = coco.read(tmp_path / "pasted").images
    synthesize.edit(tmp_path / "pasted", tmp_path / "out", settings=CHOSEN, **models(tiny))
    flags = {image.file_name: [cell.extra["synthetic"] for cell in image.cells] for image in before}
    records = said(tmp_path / "out")
    for image in coco.read(tmp_path / "out").images:
        edits = len(records[image.file_name]["cells"])
        assert [cell.extra["synthetic"] for cell in image.cells[edits:]] == flags[image.file_name]
    assert "were synthetic or pasted before" in (tmp_path / "out/README.md").read_text()


def test_a_box_that_the_scale_makes_too_small_is_left_out() -> None:
    cells = [Cell((5.0, 5.0, 5.05, 9.0), "LSIL"), Cell((-3.0, 2.0, 4.0, 8.0), "HSIL", extra={"iscrowd": 1})]
    assert kept_cells(cells, 20, 20) == [{"bbox_xyxy": [0.0, 2.0, 4.0, 8.0], "category": "HSIL", "iscrowd": 1}]


def test_where_the_option_has_no_effect_it_is_refused(tmp_path: Path, tiny: Path) -> None:
    with pytest.raises(UsageError, match="keep_abnormal: no effect on generated fields"):
        synthesize.synthesize(tmp_path / "a", count=1, settings=PipelineSettings(keep_abnormal=True))
    (tmp_path / "plain").mkdir()
    PILImage.new("RGB", (320, 320)).save(tmp_path / "plain/a.png")
    ran = CliRunner().invoke(app, ["edit", str(tmp_path / "plain"), str(tmp_path / "b"), "--keep-abnormal"])
    assert ran.exit_code == 1 and "--keep-abnormal needs a data set with annotations" in str(ran.exception)
    with pytest.raises(UsageError, match="a slide has no annotated cells"):
        SlideSettings(width=512, height=512, pipeline=PipelineSettings(keep_abnormal=True)).check()
    with pytest.raises(ValueError, match="keep_abnormal: no effect on an arm of kind pasted"):
        Strategy(kind="pasted", keep_abnormal=True)
    with pytest.raises(UsageError, match=re.escape("making.keep_abnormal: no effect; set keep_abnormal of an arm")):
        override(PRESETS["public"], ["making.keep_abnormal=true"])
    arms = 'arms={R: {kind: none}, "R + R2S": {kind: edited, keep_abnormal: true}, two: {kind: exemplar}}'
    with pytest.raises(UsageError, match=r"'two' is like 'R \+ R2S', which keeps abnormal cells"):
        override(PRESETS["public"], [arms])


def test_sets_of_other_arms_are_named_as_before_there_was_this_setting() -> None:
    assert Strategy(kind="edited").key == "edited-8d1c9f94"
    assert Strategy(kind="edited", keep_abnormal=True).key != "edited-8d1c9f94"


def follow(real: Path, plan: Path, out: Path, tiny: Path, **changes: object) -> None:
    """Follow `plan` with the settings that it states, as `edit --plan` does."""
    given = {name: path for name, path in models(tiny).items() if name != "detector"}
    settings = plans.read(plan).base().model_copy(update={"keep_abnormal": True} | changes)
    synthesize.edit(real, out, plan=plan, settings=settings, **given)


def rejected(root: Path, name: str, out: Path) -> dict[bool, list[Cell]]:
    """Reject the first edit and the first kept cell of the image `name` in the studio; return what is left, by kind."""
    data, corrections = coco.read(root), Corrections(digest="")
    cells = next(image.cells for image in data.images if image.file_name == name)
    kinds = [cell.extra["synthetic"] for cell in cells]
    gone = [kinds.index(True), kinds.index(False)]
    for number in gone:
        correcting.decide(corrections, data, Decision(image=name, number=number, state="rejected"))
    correcting.export(data, root, corrections, out, "coco")
    assert kinds.count(True) > 1 and kinds.count(False) > 1
    return {
        kind: [cell for n, cell in enumerate(cells) if kinds[n] is kind and n not in gone] for kind in (True, False)
    }


def test_a_kept_cell_that_was_rejected_stays_out_when_the_plan_is_followed(
    real: Path, edited: Path, tiny: Path, tmp_path: Path
) -> None:
    left = rejected(edited, "field_2.png", tmp_path / "corrected")
    plan = tmp_path / "corrected/plan.json"
    follow(real, plan, tmp_path / "again", tiny)
    made = next(image for image in coco.read(tmp_path / "again").images if image.file_name == "field_2.png")
    for kind, cells in left.items():
        now = [(cell.box, cell.category) for cell in made.cells if cell.extra["synthetic"] is kind]
        assert now == [(cell.box, cell.category) for cell in cells]
    follow(real, tmp_path / "again/plan.json", tmp_path / "third", tiny)
    for name in ("annotations.json", "plan.json"):
        assert (tmp_path / "third" / name).read_bytes() == (tmp_path / "again" / name).read_bytes(), name
    source = Source(root="real", split="all")
    paste(source, tmp_path / "pasted", real.parent, like=[tmp_path / "again"], keep_abnormal=True)
    name = next(name for name, one in said(tmp_path / "pasted").items() if one["original"] == "field_2.png")
    twin = next(image for image in coco.read(tmp_path / "pasted").images if image.file_name == name)
    assert [cell.box for cell in twin.cells if not cell.extra["synthetic"]] == [cell.box for cell in left[False]]
    values = json.loads(plan.read_text())
    entry = next(one for one in values["images"] if one["file_name"] == "field_2.png")
    entry["left_out"][0]["bbox_xyxy"][0] -= 5
    plan.write_text(json.dumps(values))
    with pytest.raises(PlanProblem, match=r"\(field_2.png\): left_out\[0\]: no annotated .* cell has the box"):
        follow(real, plan, tmp_path / "no", tiny)
    assert {"left_out" in one for one in json.loads((edited / "plan.json").read_text())["images"]} == {False}


@pytest.mark.parametrize(("changes", "reason"), [
    ({"shown": {"width": 320, "height": 288}}, "shown.boxes: field required"),
    ({"kept": [{"bbox_xyxy": [4, 5], "category": "LSIL"}]},
     "kept[0].bbox_xyxy: not the sides of a box (got [4, 5])"),
    (None, "no record of it"),
])  # fmt: skip
def test_a_rejected_cell_whose_record_is_damaged_is_told_with_the_reason(
    edited: Path, tmp_path: Path, changes: dict[str, object] | None, reason: str
) -> None:
    source, name = tmp_path / "source", "field_2.png"
    shutil.copytree(edited, source)
    records = said(source)
    damaged = {} if changes is None else {name: records[name] | changes}
    write_records(source, list((({key: one for key, one in records.items() if key != name}) | damaged).values()))
    left = rejected(source, name, tmp_path / "corrected")
    card = (tmp_path / "corrected/README.md").read_text()
    told = f"- `provenance.jsonl`: {name}: {reason}; 1 rejected cell of this image could not be found in `plan.json`"
    assert told in card.splitlines() and "moved or added" not in card
    entry = next(image for image in plans.read(tmp_path / "corrected/plan.json").images if image.file_name == name)
    assert entry.left_out is None and len(entry.cells) == len(left[True])
    for planned, cell in zip(entry.cells, left[True], strict=True):
        assert planned.box == pytest.approx(cell.box, abs=0.5)


def test_a_rejected_cell_that_was_added_before_is_told(edited: Path, tmp_path: Path) -> None:
    source, name = tmp_path / "source", "field_2.png"
    shutil.copytree(edited, source)
    values = json.loads((source / "annotations.json").read_text())
    image = next(one["id"] for one in values["images"] if one["file_name"] == name)
    own = [one for one in values["annotations"] if one["image_id"] == image]
    own[0]["bbox"][0] += 3
    (source / "annotations.json").write_text(json.dumps(values))
    rejected(source, name, tmp_path / "corrected")
    card = (tmp_path / "corrected/README.md").read_text()
    assert "1 rejected cell, moved or added before, could not be found in it." in card
    assert "`provenance.jsonl`" not in card


def test_a_damaged_plan_is_named_before_anything_is_exported(edited: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    shutil.copytree(edited, source)
    damaged = [
        (3, "images: input should be a valid list"),
        ([{"file_name": "a.png", "cells": 3}], "cells: input should be"),
    ]
    for images, complaint in damaged:
        (source / "plan.json").write_text(json.dumps({"version": 1, "images": images}))
        with pytest.raises(PlanProblem, match=complaint):
            correcting.export(coco.read(source), source, Corrections(digest=""), tmp_path / "no", "coco")
    assert not (tmp_path / "no").exists()


@pytest.mark.parametrize("keep", [True, False])
def test_what_a_plan_leaves_out_of_an_image_without_abnormal_cells_is_refused(
    real: Path, edited: Path, tiny: Path, tmp_path: Path, keep: bool
) -> None:
    name = next(name for name, cells in abnormal(real).items() if not cells)
    values = json.loads((edited / "plan.json").read_text())
    (entry,) = (one for one in values["images"] if one["original"] == name)
    entry["left_out"] = [{"bbox_xyxy": [1, 2, 30, 40], "category": "nothing" * 50}]
    (tmp_path / "plan.json").write_text(json.dumps(values | {"images": [entry]}))
    told = r"left_out\[0\]: no annotated '(nothing){5}nothi' cell has the box \(1, 2, 30, 40\); remove the entry"
    with pytest.raises(PlanProblem, match=told):
        follow(real, tmp_path / "plan.json", tmp_path / "no", tiny, keep_abnormal=keep)


def test_a_plan_that_leaves_cells_out_is_followed_on_images_without_annotations(
    real: Path, edited: Path, tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    left = rejected(edited, "field_2.png", tmp_path / "corrected")
    plan = tmp_path / "corrected/plan.json"
    follow(real / "images", plan, tmp_path / "again", tiny, keep_abnormal=False)
    assert f"{plan}: left_out of 1 image: no effect on images without annotations" in capsys.readouterr().err
    made = next(image for image in coco.read(tmp_path / "again").images if image.file_name == "field_2.png")
    assert [(cell.box, cell.category) for cell in made.cells] == [(cell.box, cell.category) for cell in left[True]]
    assert not any({"kept", "left_out"} & set(record) for record in said(tmp_path / "again").values())


def test_a_slide_has_no_cells_that_a_plan_could_leave_out(tiny: Path, tmp_path: Path) -> None:
    image = {"file_name": "slide.png", "original": "a.tif", "cells": [],
             "left_out": [{"bbox_xyxy": [1, 2, 30, 40], "category": "LSIL"}]}  # fmt: skip
    (tmp_path / "plan.json").write_text(json.dumps({"version": 1, "images": [image]}))
    with pytest.raises(PlanProblem, match=r"plan.json: left_out: no effect on a slide, which has no annotated cells"):
        edit_slide(tmp_path / "a.tif", tmp_path / "no", CHOSEN, plan=tmp_path / "plan.json", cell=str(tiny / "cell"))


def test_cells_of_varied_images_that_were_rejected_stay_out(real: Path, tiny: Path, tmp_path: Path) -> None:
    vary = {"mpp": 0.49, "variations": [{"name": "scale", "amount": [0.75, 0.75]}]}
    settings = PipelineSettings.model_validate(CHOSEN.model_dump() | {"vary": vary})
    synthesize.edit(real, tmp_path / "out", settings=settings, **models(tiny))
    left = rejected(tmp_path / "out", "field_2.png", tmp_path / "corrected")
    follow(real, tmp_path / "corrected/plan.json", tmp_path / "again", tiny, vary=settings.vary)
    made = next(image for image in coco.read(tmp_path / "again").images if image.file_name == "field_2.png")
    for kind, cells in left.items():
        assert [c.box for c in made.cells if c.extra["synthetic"] is kind] == [c.box for c in cells]
