"""Control over number, place and class: plans, choice, counts, batches, strength, paste."""

import json
import re
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from conftest import drawn, write_fields
from cytosynth.annotations import Cell, DataSet
from cytosynth.cell import patch
from cytosynth.cell.choose import apart, isolation, ranked
from cytosynth.cell.edit import CellEditor, PlannedEdit
from cytosynth.cell.queue import Canvas, EditQueue, Spot
from cytosynth.cell.settings import EditSettings
from cytosynth.config import override
from cytosynth.data.check import check
from cytosynth.data.formats import coco
from cytosynth.data.image_files import ImageProblem
from cytosynth.errors import UsageError, UserError
from cytosynth.foundation.names import Precision
from cytosynth.io import atomic
from cytosynth.normal.generate import NormalImageGenerator
from cytosynth.synthesis import fitting, plan, quotas, synthesize
from cytosynth.synthesis.jobs import Job
from cytosynth.synthesis.making import Failed, Room
from cytosynth.synthesis.settings import PipelineSettings

FAST = ["normal.size=320", "normal.steps=1", "cell.steps=2", "threshold=0.1", "cell.box_scale=1.2"]


def chosen(*changes: str, seed: int = 5) -> PipelineSettings:
    return override(PipelineSettings(seed=seed), [*FAST, *changes])


def models(tiny: Path, *without: str) -> dict[str, str]:
    return {n: str(tiny / n) for n in ("foundation", "normal", "cell", "detector") if n not in without}


def pixels(folder: Path) -> dict[str, np.ndarray]:
    return {path.name: np.asarray(Image.open(path)) for path in sorted((folder / "images").iterdir())}


def content(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture(scope="module")
def made(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("planned") / "set"
    synthesize.synthesize(out, count=3, settings=chosen(), **models(tiny))
    return out


@pytest.fixture(scope="module")
def editor(tiny: Path) -> CellEditor:
    return CellEditor.load(str(tiny / "foundation"), str(tiny / "cell"))


def follow(file: Path, out: Path, tiny: Path, values: dict[str, Any]) -> None:
    file.write_text(json.dumps(values))
    loaded = plan.read(file)
    synthesize.synthesize(out, plan=file, settings=loaded.base(), **models(tiny, "detector"))


def test_a_plan_makes_the_same_images_and_the_same_plan(made: Path, tiny: Path, tmp_path: Path) -> None:
    values = json.loads((made / "plan.json").read_text())
    follow(tmp_path / "plan.json", tmp_path / "again", tiny, values)
    before, after = pixels(made), pixels(tmp_path / "again")
    assert before.keys() == after.keys()
    assert all(np.array_equal(before[name], after[name]) for name in before)
    assert json.loads((tmp_path / "again/plan.json").read_text())["images"] == values["images"]
    assert check(tmp_path / "again") == []
    record = json.loads((tmp_path / "again/provenance.jsonl").read_text().splitlines()[0])
    assert record["choice"] == "plan"
    assert "detector" not in record["models"]


def test_a_run_with_regions_smaller_than_boxes_writes_a_plan_that_can_be_followed(tiny: Path, tmp_path: Path) -> None:
    cells = [Cell((x, 100.0, x + 60.0, 160.0), "NILM", 0.9) for x in (60.0, 100.0, 180.0)]
    half = EditSettings(box_scale=0.5)
    assert [cell.box[0] for cell, _ in apart(cells, (320, 288), half)] == [60, 180], "the middle one's box overlaps"
    given = models(tiny)
    synthesize.synthesize(tmp_path / "set", count=2,
        settings=chosen("cell.box_scale=0.5", "min_cells=6", "threshold=0"),
                        **given)  # fmt: skip
    values = json.loads((tmp_path / "set/plan.json").read_text())
    assert sum(len(image["cells"]) for image in values["images"]) >= 2
    follow(tmp_path / "plan.json", tmp_path / "again", tiny, values)
    before, after = pixels(tmp_path / "set"), pixels(tmp_path / "again")
    assert all(np.array_equal(before[name], after[name]) for name in before)


def test_one_cell_changed_or_taken_away_changes_nothing_else(made: Path, tiny: Path, tmp_path: Path) -> None:
    values = json.loads((made / "plan.json").read_text())
    image = next(entry for entry in values["images"] if len(entry["cells"]) >= 2)
    record = next(
        line for line in map(json.loads, (made / "provenance.jsonl").open()) if line["file_name"] == image["file_name"]
    )
    original = pixels(made)[image["file_name"]]
    other = dict(image, file_name="other.png", cells=[dict(cell) for cell in image["cells"]])
    other["cells"][0]["seed"] += 1
    without = dict(image, file_name="without.png", cells=image["cells"][1:])
    follow(tmp_path / "plan.json", tmp_path / "out", tiny, values | {"images": [other, without]})
    x0, y0, x1, y1 = map(int, record["cells"][0]["edited_xyxy"])
    for name in ("other.png", "without.png"):
        changed = (pixels(tmp_path / "out")[name] != original).any(axis=2)
        assert changed[y0:y1, x0:x1].any()
        changed[y0:y1, x0:x1] = False
        assert not changed.any()
    left = next(p for p in coco.read(tmp_path / "out").images if p.file_name == "without.png")
    assert len(left.cells) == len(image["cells"]) - 1


def test_a_plan_for_own_images(tiny: Path, tmp_path: Path) -> None:
    write_fields(tmp_path / "real")
    cells = [
        {"bbox_xyxy": [20, 30, 70.5, 80], "category": "HSIL", "seed": 1},
        {"bbox_xyxy": [200, 100, 250, 150], "category": "ASC-H", "seed": 2},
    ]
    images = [{"file_name": "a.png", "original": "field_0.png", "cells": cells}]
    (tmp_path / "plan.json").write_text(json.dumps({"version": 1, "images": images}))
    given = models(tiny, "normal", "detector")
    data = synthesize.edit(tmp_path / "real", tmp_path / "out", plan=tmp_path / "plan.json", settings=chosen(), **given)
    assert [(cell.box, cell.category) for cell in data.images[0].cells] == [
        ((20, 30, 70.5, 80), "HSIL"), ((200, 100, 250, 150), "ASC-H"),
    ]  # fmt: skip
    assert check(tmp_path / "out") == []
    images[0]["original"] = "field_1.png"
    (tmp_path / "plan.json").write_text(json.dumps({"version": 1, "images": images}))
    with pytest.raises(UserError, match=r"images\[0\] \(a\.png\): original 'field_1\.png' is not among the 2 images"):
        synthesize.edit(tmp_path / "real", tmp_path / "o", plan=tmp_path / "plan.json", settings=chosen(), **given)
    with pytest.raises(UserError, match="use this plan with `edit`"):
        synthesize.synthesize(
            tmp_path / "o", plan=tmp_path / "plan.json", settings=chosen(), **models(tiny, "detector")
        )
    images[0] |= {"original": "field_3.png"}
    (tmp_path / "plan.json").write_text(json.dumps({"version": 1, "images": images}))
    with pytest.raises(UsageError, match="was started with another plan"):
        synthesize.edit(tmp_path / "real", tmp_path / "out", plan=tmp_path / "plan.json", settings=chosen(), **given)
    assert not (tmp_path / "o").exists()


@pytest.mark.promise("One bad image stops nothing")
def test_an_image_of_a_plan_that_cannot_be_read_is_skipped_and_named_unless_strict(tiny: Path, tmp_path: Path) -> None:
    write_fields(tmp_path / "real", 4)
    wanted = [cell(bbox_xyxy=[20, 30, 70, 80])]
    files = ("field_0.png", "field_2.png", "field_3.png")
    images = [{"file_name": f"made {name}", "original": name, "cells": wanted} for name in files]
    own = tmp_path / "real/images"
    images[0]["original_sha256"] = atomic.sha256(own / files[0])
    whole = (own / files[0]).read_bytes()
    (own / files[0]).write_bytes(b"no image")
    (own / files[1]).write_bytes(whole[: len(whole) // 2])
    (tmp_path / "plan.json").write_text(json.dumps({"version": 1, "images": images}))

    def edit(out: str, strict: bool) -> DataSet:
        return synthesize.edit(own, tmp_path / out, plan=tmp_path / "plan.json", settings=chosen(), strict=strict,
                             **models(tiny, "normal", "detector"))  # fmt: skip

    data = edit("out", False)
    assert [image.file_name for image in data.images] == ["made field_3.png"]
    assert data.info["skipped"] == ["field_0.png: not a readable image", "field_2.png: truncated"]
    with pytest.raises(ImageProblem, match=r"field_0\.png: not a readable image"):
        edit("strict", True)
    (own / files[0]).write_bytes(whole)
    (own / files[1]).write_bytes(whole)
    again = edit("out", False)
    assert [image.file_name for image in again.images] == [f"made {name}" for name in files]
    assert "skipped" not in again.info


def cell(**changes: Any) -> dict[str, Any]:
    return {"bbox_xyxy": [10, 10, 60, 60], "category": "HSIL", "seed": 0} | changes


def one(*cells: dict[str, Any], **changes: Any) -> dict[str, Any]:
    image = {"file_name": "a.png", "generated": {"seed": 0, "index": 0}, "cells": list(cells)}
    return {"version": 1, "images": [image | changes]}


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("{", "not readable JSON"),
        ("[" * 100_000, "nested too deeply"),
        ('{"version": 1, "version": 1, "images": []}', "'version' is given twice"),
        (json.dumps(one(cell(seed=float("nan")))), "NaN is not a number"),
        (json.dumps(one(cell(bbox_xyxy=[0, 0, 5, 77]))).replace("77", "1e999"), "bbox_xyxy .0, 0, 5, inf. is not fin"),
        ('{"version": 1, "images": ' + "1" * 5000 + "}", "not readable JSON"),
        (json.dumps({"version": 2, "images": []}), "version: input should be 1"),
        (json.dumps({"version": 1, "images": []}), "images: list should have at least 1 item"),
        (json.dumps({"version": 1, "images": [5]}), r"images\[0\]"),
        (json.dumps(one(cell(seed=2**63))), r"images\[0\] \(a.png\): cells\[0\].seed: input should be less than"),
        (json.dumps(one(cell(seed=-1))), r"cells\[0\].seed: input should be greater than or equal to 0 \(got -1\)"),
        (json.dumps(one(cell(seed=1.5))), r"cells\[0\].seed: input should be a valid integer"),
        (json.dumps(one(cell(seed=True))), r"cells\[0\].seed: input should be a valid integer"),
        (
            json.dumps(one(cell(category="CIN1"))),
            r"\(a.png\): cells\[0\]: unknown category 'CIN1'; choose one of ASC-US, ASC-H",
        ),
        (json.dumps(one(cell(colour="red"))), r"cells\[0\].colour: extra inputs are not permitted"),
        (json.dumps(one(cell(bbox_xyxy=[1, 2, 3]))), r"cells\[0\].bbox_xyxy: list should have at least 4"),
        (json.dumps(one(cell(bbox_xyxy=[9, 9, 9, 20]))), "no area"),
        (json.dumps(one(cell(bbox_xyxy=[0, 0, 10, 240]))), "too large; at most 230.4 pixels"),
        (json.dumps(one(cell(), cell(bbox_xyxy=[50, 50, 90, 90]))), r"cells\[0\] and cells\[1\] overlap"),
        (json.dumps(one(file_name="../a.png")), "file_name leaves its folder"),
        (json.dumps(one(file_name="a/b.png")), "file_name in a folder"),
        (json.dumps(one(file_name="a.jpg")), r"does not end in .png"),
        (json.dumps(one(generated={"seed": 0, "index": 2**70})), r"generated.index: "),
        (json.dumps(one(original="x.png")), "either 'generated'"),
        (json.dumps(one(left_out=[{"bbox_xyxy": [1, 2, 3, 4], "category": "LSIL"}])),
         r"\(a.png\): left_out: no effect on a generated field, which has no annotated cells; remove it"),
        (json.dumps(one(left_out=[{"bbox_xyxy": [1, 2, 3, 4], "category": "LSIL"}] * 1001)),
         r"\(a.png\): left_out: list should have at most 1000 items"),
        (json.dumps({"version": 1, "images": one()["images"] * 2}), "file_name used twice"),
        (json.dumps(one() | {"settings": {"cell": {"steps": 0}}}), "settings.cell.steps"),
    ],
)  # fmt: skip
def test_a_plan_that_cannot_be_followed_is_one_clear_line(text: str, complaint: str, tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_text(text)
    with pytest.raises(plan.PlanProblem, match=complaint) as caught:
        plan.read(tmp_path / "plan.json")
    message = str(caught.value)
    assert message.startswith(f"{tmp_path}/plan.json: ")
    assert "\n" not in message
    assert len(message) < 400


def test_no_plan_there_and_boxes_that_do_not_fit_the_image(tmp_path: Path) -> None:
    with pytest.raises(plan.PlanProblem, match="No such file"):
        plan.read(tmp_path / "none.json")
    file = tmp_path / "plan.json"

    def fit(values: dict[str, Any], scale: float = 1.0) -> None:
        file.write_text(json.dumps(values))
        fitting.fit(plan.read(file), file, {"a.png": (320, 300)}, scale)

    beside = cell(bbox_xyxy=[61, 10, 110, 60])
    fit(one(cell(), beside))
    with pytest.raises(
        plan.PlanProblem, match=r"\(a.png\): cells\[0\] and cells\[1\]: their edited regions, 1.8 times"
    ):
        fit(one(cell(), beside), 1.8)
    with pytest.raises(plan.PlanProblem, match=r"cells\[0\]: \(280, 10, 320.5, 60\) is outside the image of 320x300"):
        fit(one(cell(bbox_xyxy=[280, 10, 320.5, 60])))
    with pytest.raises(plan.PlanProblem, match="planned for 640x600, but it is 320x300"):
        fit(one(width=640, height=600))


def test_what_contradicts_a_plan_is_refused_on_the_command_line(made: Path) -> None:
    command = [sys.executable, "-m", "cytosynth", "synthesize", "out", "--plan", str(made / "plan.json")]
    for option in (["--count", "3"], ["--counts", "HSIL=3"]):
        run = subprocess.run([*command, *option], capture_output=True, text=True)
        assert run.returncode == 2
        assert f"{option[0]} {option[1]}: the plan sets" in run.stderr


def canvases(editor: CellEditor) -> Callable[[], list[Canvas]]:
    boxes = [(20.0, 20.0, 80.0, 90.0), (110.0, 30.0, 170.0, 90.0), (200.0, 150.0, 260.0, 230.0)]

    def fresh() -> list[Canvas]:
        return [
            Canvas(
                f"{image}.png",
                drawn(image)[0],
                [
                    Spot(Cell(box, "NILM"), PlannedEdit(box, ("HSIL", "ASC-US")[i % 2], 10 * image + i))
                    for i, box in enumerate(boxes[: 3 - image % 3])
                ],
            )
            for image in range(5)
        ]

    return fresh


def through(editor: CellEditor, batch: int, images: list[Canvas]) -> dict[str, np.ndarray]:
    how = EditSettings(steps=2, batch=batch)
    queue = EditQueue(editor, how)
    finished = [done for canvas in images for done in queue.add(canvas)] + queue.flush()
    return {canvas.name: canvas.compose(how) for canvas in finished}


def test_batches_over_images_give_each_image_the_bits_that_it_has_alone(editor: CellEditor) -> None:
    fresh = canvases(editor)
    together = through(editor, 4, fresh())
    assert list(together) == [f"{i}.png" for i in range(5)]
    for canvas in fresh():
        alone = through(editor, 4, [canvas])
        assert np.array_equal(alone[canvas.name], together[canvas.name])
    by_one = through(editor, 1, fresh())
    assert all(np.abs(by_one[n].astype(int) - together[n].astype(int)).max() <= 2 for n in by_one)


def test_an_image_is_finished_as_soon_as_its_last_cell_is(editor: CellEditor) -> None:
    images = canvases(editor)()
    queue = EditQueue(editor, EditSettings(steps=1, batch=2))
    steps = [[done.name for done in queue.add(canvas)] for canvas in images[:3]]
    assert [len(canvas.spots) for canvas in images[:3]] == [3, 2, 1]
    assert steps == [[], ["0.png"], ["1.png", "2.png"]] or steps == [[], ["0.png", "1.png"], []], steps
    assert len(queue.waiting) == sum(len(c.spots) for c in images[:3]) % 2


def test_the_choice_of_cells() -> None:
    cells = [
        Cell((0, 0, 30, 30), "NILM", 0.6),
        Cell((20, 20, 60, 60), "NILM", 0.9),
        Cell((300, 300, 320, 320), "NILM", 0.7),
        Cell((100, 0, 180, 80), "NILM", 0.8),
    ]
    rng = np.random.default_rng(0)
    assert ranked(cells, "score", rng, cells) == [cells[1], cells[3], cells[2], cells[0]]
    assert ranked(cells, "size", rng, cells) == [cells[3], cells[1], cells[0], cells[2]]
    assert ranked(cells, "isolation", rng, cells) == [cells[2], cells[3], cells[0], cells[1]]
    assert isolation(cells[0], cells) == pytest.approx(np.hypot(25, 25))
    assert isolation(cells[0], cells[:1]) == np.inf
    assert sorted(c.score for c in ranked(cells, "random", rng)) == [0.6, 0.7, 0.8, 0.9]
    taken = apart(ranked(cells, "score", rng, cells), (400, 400), EditSettings())
    assert [c for c, _ in taken] == [cells[1], cells[3], cells[2]], "the overlapping one with the lower score is out"


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.integers(0, 8), max_size=20),
    st.dictionaries(st.sampled_from(["HSIL", "LSIL", "ASC-H"]), st.integers(1, 30), min_size=1),
    st.integers(0, 1000),
)
def test_counts_are_dealt_exactly_and_rare_ones_first(rooms: list[int], asked: dict[str, int], seed: int) -> None:
    dealt = quotas.deal(rooms, asked, seed)
    assert dealt == quotas.deal(rooms, asked, seed)
    assert all(len(names) <= room for names, room in zip(dealt, rooms, strict=True))
    given = Counter(name for names in dealt for name in names)
    missing = quotas.short(dealt, asked)
    assert given + Counter(missing) == Counter(asked)
    assert given.total() == min(sum(rooms), sum(asked.values()))
    for rare in asked:
        if missing.get(rare):
            assert all(given[common] == 0 for common in asked if asked[common] > asked[rare])


def test_dealing_takes_no_memory_by_the_room(tmp_path: Path) -> None:
    rooms, asked = [3, 0, 5, 0, 4, 0], {"HSIL": 7, "ASC-H": 2}
    rng = np.random.default_rng([1, 3])
    places = [image for image, room in enumerate(rooms) for _ in range(room)]
    expected: list[list[str]] = [[] for _ in rooms]
    wanted = ["ASC-H"] * 2 + ["HSIL"] * 7
    for place, index in zip(rng.choice(len(places), 9, replace=False), rng.permutation(9), strict=True):
        expected[places[place]].append(wanted[index])
    assert quotas.deal(rooms, asked, 1) == [tuple(sorted(names)) for names in expected]
    assert sum(map(len, quotas.deal([10**12, 10**12], asked, 1))) == 9


@pytest.mark.parametrize("room", ["Infinity", "NaN", "1e400", "-5", "1000000000000", '"3"', "[]"])
def test_a_survey_that_cannot_be_ours_is_made_anew(room: str, tmp_path: Path) -> None:
    lines = [f'{{"file_name": "a.png", "room": {room}}}', '{"room": 3}', "[]", '{"file_name": "b.png", "room": 5}']
    (tmp_path / quotas.SURVEY).write_text("\n".join(lines) + "\n")
    jobs = [Job(name, 1, 0, lambda: drawn(0)[0]) for name in ("a.png", "b.png")]

    def two(missing: Sequence[Job], _failed: Failed) -> Iterator[Room]:
        yield from (Room(job.file_name, 2, drawn(0)[0]) for job in missing)

    assert quotas.survey(jobs, {}, two, tmp_path, strict=True) == [2, 5]


def test_counts_over_a_run_are_exact_resumable_and_bound_to_its_images(tiny: Path, tmp_path: Path) -> None:
    asked = chosen("counts={HSIL: 7, ASC-H: 2}", "choice=score")
    out = tmp_path / "set"
    synthesize.synthesize(out, count=3, settings=asked, **models(tiny))
    made = Counter(cell.category for p in coco.read(out).images for cell in p.cells)
    assert made == {"HSIL": 7, "ASC-H": 2}
    assert "| HSIL | 7 | 7 | 0 | 0 |" in (out / "README.md").read_text()
    assert check(out) == []
    assert not list(out.glob(".*"))
    broken = tmp_path / "broken"
    shutil.copytree(out, broken)
    (broken / "images/000001.png").unlink()
    (broken / ".survey.jsonl").write_text('{"file_na')
    synthesize.synthesize(broken, count=3, settings=asked, **models(tiny))
    assert content(broken) == content(out)
    with pytest.raises(UsageError, match="was started with other images"):
        synthesize.synthesize(out, count=4, settings=asked, **models(tiny))
    with pytest.raises(UsageError, match="9 cells requested, but 1 images of at most 8 cells hold 8"):
        synthesize.synthesize(tmp_path / "x", count=1, settings=asked, **models(tiny))


def test_counts_that_the_images_have_no_room_for_are_said(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = chosen("counts={HSIL: 30, ASC-H: 3}", "max_cells=40", "threshold=0.3")
    synthesize.synthesize(tmp_path / "out", count=1, settings=asked, **models(tiny))
    cells = coco.read(tmp_path / "out").images[0].cells
    made = Counter(cell.category for cell in cells)
    assert len(cells) < 33
    assert made["ASC-H"] == min(3, len(cells)), "rare ones first"
    said = capsys.readouterr().err
    assert f"{30 - made['HSIL']} HSIL too many" in said
    assert f"{made['HSIL']} of 30 HSIL made" in said


def test_killed_while_counts_are_dealt_the_same_command_ends_at_the_same_bytes(tiny: Path, tmp_path: Path) -> None:
    asked = chosen("counts={HSIL: 4}", "precision=auto")
    synthesize.synthesize(tmp_path / "whole", count=3, settings=asked, **models(tiny))
    flags = [flag for setting in FAST for flag in ("--set", setting)]
    paths = [flag for name, path in models(tiny).items() for flag in (f"--{name}", path)]
    out = tmp_path / "killed"
    command = [
        sys.executable, "-m", "cytosynth", "synthesize", str(out), "--count", "3", "--seed", "5",
        "--counts", "HSIL=4", *flags, *paths,
    ]  # fmt: skip
    victim = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not list(out.glob(".fields/*.png")) and victim.poll() is None and time.monotonic() < deadline:
        time.sleep(0.002)
    victim.kill()
    victim.wait()
    (out / ".lock").unlink(missing_ok=True)
    assert not (out / "annotations.json").exists(), "killed on the way"
    synthesize.synthesize(out, count=3, settings=asked, **models(tiny))
    assert content(out) == content(tmp_path / "whole")


def test_strength_says_how_far_from_the_normal_cell_the_edit_goes(editor: CellEditor) -> None:
    image, _ = drawn(1)
    edit = PlannedEdit((120.0, 100.0, 200.0, 180.0), "LSIL", 3)
    distances = []
    for strength in (0.1, 0.5, 1.0):
        painted = editor.paint([(image, edit)], EditSettings(steps=10, batch=1, strength=strength))[0]
        x, y = patch.corner(edit.box, image.shape[1], image.shape[0])
        kept = editor.model.decode_latents(editor.model.encode_pixels(patch.window(image, (x, y))[None]))[0]
        distances.append(float(np.abs(painted.astype(int) - kept.astype(int)).mean()))
    assert distances[0] < distances[1] < distances[2]


def test_the_whole_patch_is_put_back_in_order_and_wipes_out_no_other_cell() -> None:
    image = np.full((400, 400, 3), 100, np.uint8)
    first, second = (100.0, 100.0, 160.0, 160.0), (170.0, 100.0, 230.0, 160.0)
    patches = [np.full((256, 256, 3), value, np.uint8) for value in (10, 20)]
    for new, (box, value) in zip(patches, ((first, 110), (second, 120)), strict=True):
        x, y = patch.corner(box, 400, 400)
        x0, y0, x1, y1 = map(int, patch.inner(box, (x, y)))
        new[y0:y1, x0:x1] = value
    edits = list(zip((first, second), patches, strict=True))
    result = patch.compose(image, edits, EditSettings(paste="patch"))[..., 0]
    assert (result[100:160, 100:160] == 110).all(), "the first cell is whole, though the second patch covers it"
    assert (result[100:160, 170:230] == 120).all()
    assert result[50, 150] == 20, "the later background lies over the earlier one"
    assert result[50, 20] == 10
    assert result[300, 100] == result[10, 390] == 100, "outside both patches nothing changed"
    boxes = [patch.covered(box, 400, 400, EditSettings(paste="patch")) for box in (first, second)]
    assert boxes == [(2, 2, 258, 258), (72, 2, 328, 258)]


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_stays_close(precision: Precision, tiny: Path) -> None:
    settings = chosen().normal
    fields = [NormalImageGenerator(str(tiny / "foundation"), str(tiny / "normal"), "cpu", one).field(1, 0, settings)
              for one in ("fp32", precision)]  # fmt: skip
    editors = [CellEditor.load(str(tiny / "foundation"), str(tiny / "cell"), "cpu", one) for one in ("fp32", precision)]
    assert editors[0].digest == editors[1].digest
    edits = [PlannedEdit((40, 40, 120, 120), "HSIL", 3)]
    edited = [editor.edit(fields[0], edits, EditSettings(steps=2)) for editor in editors]
    for first, second in (fields, edited):
        off = np.abs(first.astype(int) - second)
        assert 0 < off.mean() < 1, off.mean()


def test_a_plan_remembers_the_precision(tiny: Path, tmp_path: Path) -> None:
    out, again = tmp_path / "half", tmp_path / "again"
    synthesize.synthesize(out, count=1, settings=chosen("precision=bf16"), **models(tiny))
    given = plan.read(out / "plan.json")
    assert given.base().precision == "bf16"
    synthesize.synthesize(again, plan=out / "plan.json", settings=given.base(), **models(tiny, "detector"))
    assert np.array_equal(pixels(out)["000000.png"], pixels(again)["000000.png"])


@pytest.mark.parametrize(
    ("key", "value", "reason", "instead"),
    [
        ("nucleus_scale", {"LSIL": 0.85}, "'LSIL': the synthesizer has no size of this nucleus .*; it has none", {}),
        ("stain", "outside", "needs training_images.json next to the cell synthesizer", False),
    ],
)
def test_a_plan_with_a_setting_that_another_synthesizer_lacks_names_file_value_and_remedy(
    key: str, value: Any, reason: str, instead: Any, made: Path, tiny: Path, tmp_path: Path
) -> None:
    file, values = tmp_path / "plan.json", json.loads((made / "plan.json").read_text())
    values["settings"]["cell"][key] = value
    named = re.escape(f"{file}: settings.cell.{key}={json.dumps(value)}: ")
    remedy = re.escape(f"; set cell.{key}={json.dumps(instead)}, or follow the plan with the synthesizer own:cell ")
    with pytest.raises(plan.PlanProblem, match=f"^{named}{reason}.*{remedy}[0-9a-f]{{16}}$"):
        follow(file, tmp_path / "no", tiny, values)
    assert not (tmp_path / "no").exists()
    chosen = override(plan.read(file).base(), [f"cell.{key}={json.dumps(instead)}"])
    synthesize.synthesize(tmp_path / "out", plan=file, settings=chosen, **models(tiny, "detector"))
    again, first = pixels(tmp_path / "out"), pixels(made)
    assert again.keys() == first.keys() and all(np.array_equal(again[name], first[name]) for name in first)
    asked = override(PipelineSettings(), [f"cell.{key}={json.dumps(value)}"])
    with pytest.raises(UsageError, match=f"^cell.{key}={re.escape(json.dumps(value))}: {reason}"):
        synthesize.synthesize(tmp_path / "no", count=1, settings=asked, **models(tiny))
