"""Kept cells that are rejected in the studio, or left out by hand: what plans, runs and counterparts make of them."""

import json
import shutil
from pathlib import Path

import pytest

from annotated_edits import CHOSEN, abnormal, models
from cytosynth.annotations import Cell
from cytosynth.data.formats import coco
from cytosynth.data.sources import Source
from cytosynth.provenance import said, write_records
from cytosynth.slides.commands import edit_slide
from cytosynth.studio import correcting
from cytosynth.studio.correcting import Corrections, Decision
from cytosynth.synthesis import plan as plans
from cytosynth.synthesis import synthesize
from cytosynth.synthesis.pasting.paste import paste
from cytosynth.synthesis.plan import PlanProblem
from cytosynth.synthesis.settings import PipelineSettings


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
