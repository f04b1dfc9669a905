"""Images with annotated abnormal cells are edited and pasted into; these cells stay, with their boxes."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PILImage
from typer.testing import CliRunner

from annotated_edits import CHOSEN, abnormal, models
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
from cytosynth.provenance import said
from cytosynth.scale.merge import merge
from cytosynth.slides.settings import SlideSettings
from cytosynth.synthesis import synthesize
from cytosynth.synthesis.centre import kept_cells
from cytosynth.synthesis.pasting.paste import paste
from cytosynth.synthesis.pasting.settings import PasteSettings
from cytosynth.synthesis.plan import PlanProblem
from cytosynth.synthesis.settings import PipelineSettings


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
