"""The Python API: the same as the commands, in memory, lazily, from any thread, twice in one process."""

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PILImage

import cytosynth
from conftest import CATEGORIES, drawn
from cytosynth.cell.edit import CellEditor, PlannedEdit
from cytosynth.data.formats import coco
from cytosynth.errors import UsageError, UserError

SETTINGS = {"normal.size": 320, "normal.steps": 1, "cell.steps": 1, "cell.box_scale": 1.2, "threshold": 0.1}


def models(tiny: Path, *names: str) -> dict[str, Path]:
    return {name: tiny / name for name in names}


def test_importing_it_costs_nothing_and_changes_nothing() -> None:
    program = (
        "import os, sys, time; before = dict(os.environ), set(sys.modules); begin = time.perf_counter(); "
        "import cytosynth; seconds = time.perf_counter() - begin; "
        "new = {name.partition('.')[0] for name in set(sys.modules) - before[1]}; "
        "print(dict(os.environ) == before[0], 'torch' in new, 'numpy' in new, seconds < 0.2, 'edit' in dir(cytosynth))"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["True", "False", "False", "True", "True"]
    with pytest.raises(AttributeError, match="no attribute 'paint'"):
        _ = cytosynth.paint  # type: ignore[attr-defined]


def test_edit_in_memory_is_what_the_editor_paints(tiny: Path, tmp_path: Path) -> None:
    pixels, _ = drawn(3)
    box = (100.0, 90.0, 150.0, 140.0)
    PILImage.fromarray(pixels).save(tmp_path / "image.png")
    said = {"settings": SETTINGS, "seed": 7, **models(tiny, "foundation", "cell")}
    found = [
        cytosynth.edit(given, [box], "HSIL", **said)
        for given in (pixels, PILImage.fromarray(pixels), tmp_path / "image.png", str(tmp_path / "image.png"))
    ]
    assert all(np.array_equal(found[0].image, other.image) for other in found[1:])
    assert [(cell.box, cell.category) for cell in found[0].cells] == [(box, "HSIL")]
    editor = CellEditor.load(str(tiny / "foundation"), str(tiny / "cell"), "auto", "auto")
    settings = editor.settled(cytosynth.api.as_settings(SETTINGS).cell, real=True)  # type: ignore[attr-defined]
    region = (95.0, 85.0, 155.0, 145.0)
    assert np.array_equal(found[0].image, editor.edit(pixels, [PlannedEdit(region, "HSIL", 7)], settings))
    assert not np.array_equal(found[0].image, pixels)


@pytest.mark.parametrize(
    ("boxes", "category", "complaint"),
    [
        ([(0, 0, 20, 20)], ["HSIL", "LSIL"], "1 boxes, 2 categories, 1 seeds"),
        ([(0, 0, 20, 20)], "CIN1", r"category 'CIN1'"),
        ([(0, 0, 20, float("nan"))], "HSIL", "bbox_xyxy"),
        ([(310, 0, 340, 20)], "HSIL", "is outside the image of 320x288"),
        ([(20, 20, 60, 60), (50, 20, 90, 60)], "HSIL", "overlap"),
    ],
)
def test_boxes_that_cannot_be_are_one_line(boxes: list, category: str, complaint: str, tiny: Path) -> None:
    with pytest.raises(UserError, match=complaint):
        cytosynth.edit(drawn(0)[0], boxes, category, settings=SETTINGS, **models(tiny, "foundation", "cell"))


def test_what_is_no_image_is_refused(tiny: Path) -> None:
    with pytest.raises(UserError, match=r"float64 \(3, 4\); expected uint8 RGB of shape \(height, width, 3\)"):
        cytosynth.detect(np.zeros((3, 4)), detector=tiny / "detector")


def test_a_set_is_reproducible_in_one_process_and_in_another_thread(tiny: Path, tmp_path: Path) -> None:
    said = {"settings": SETTINGS | {"seed": 5}, **models(tiny, "foundation", "normal", "cell", "detector")}
    cytosynth.synthesize(str(tmp_path / "one"), 2, **said)
    with ThreadPoolExecutor(1) as pool:
        pool.submit(cytosynth.synthesize, tmp_path / "two", count=2, **said).result()
    one, two = ((tmp_path / name / "annotations.json").read_bytes() for name in ("one", "two"))
    assert one == two
    assert cytosynth.check(tmp_path / "one") == []
    assert cytosynth.read_dataset(tmp_path / "one") == coco.read(tmp_path / "one")
    plan = tmp_path / "one/plan.json"
    cytosynth.synthesize(
        tmp_path / "again", plan=plan, **{key: value for key, value in said.items() if key != "settings"}
    )
    assert (
        json.loads((tmp_path / "again/plan.json").read_text())["settings"] == json.loads(plan.read_text())["settings"]
    )
    for name in ("000000.png", "000001.png"):
        made = [np.asarray(PILImage.open(tmp_path / folder / "images" / name)) for folder in ("one", "again")]
        assert np.array_equal(*made)
    with pytest.raises(UsageError, match="count 0: must be at least 1"):
        cytosynth.synthesize(tmp_path / "none", 0)
    with pytest.raises(UsageError, match="count 3: the plan sets the images"):
        cytosynth.synthesize(tmp_path / "none", 3, plan=plan)


def test_a_loaded_pipeline_generates_finds_and_edits(tiny: Path) -> None:
    pipeline = cytosynth.load_pipeline(
        settings=SETTINGS, device="cpu", **models(tiny, "foundation", "normal", "cell", "detector")
    )
    field = pipeline.field(seed=1, index=2)
    assert field.shape == (320, 320, 3)
    assert pipeline.detect(field, 0.1) == cytosynth.detect(
        field, detector=tiny / "detector", threshold=0.1, device="cpu"
    )
    boxes = [(40.0, 40.0, 80.0, 80.0), (200.0, 200.0, 240.0, 240.0)]
    both = pipeline.edit(field, boxes, ["LSIL", "HSIL"], seed=3)
    assert [cell.category for cell in both.cells] == ["LSIL", "HSIL"]
    outside = np.ones(field.shape[:2], bool)
    for x0, y0, x1, y1 in [(34, 34, 86, 86), (194, 194, 246, 246)]:
        outside[y0:y1, x0:x1] = False
    assert np.array_equal(both.image[outside], field[outside])


def test_trained_from_a_thread_then_used_by_its_run_folder(tiny: Path, fields: Path, tmp_path: Path) -> None:
    settings = {"max_steps": 1, "window": 96, "batch_size": 1, "categories": list(CATEGORIES), "backbone": "small",
                "weights": "none"}  # fmt: skip
    with ThreadPoolExecutor(1) as pool:
        work = pool.submit(
            cytosynth.train, "detector", tmp_path / "run", data=fields / "drawn", settings=settings, device="cpu"
        )
        outcome = work.result()
    assert outcome.finished
    by_run = cytosynth.detect(drawn(0)[0], detector=tmp_path / "run", threshold=0.05, device="cpu")
    assert by_run == cytosynth.detect(drawn(0)[0], detector=outcome.weights, threshold=0.05, device="cpu")
    scores = cytosynth.evaluate_detection(tmp_path / "run", fields / "drawn", split="all", device="cpu")
    assert 0 <= scores["map"] <= 1


def test_fidelity_of_a_set_against_itself(fields: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    report = cytosynth.evaluate_fidelity(
        fields / "drawn/images", fields / "drawn/images", window=64, count=20, device="cpu"
    )
    rows = [dict(zip(report.columns, row, strict=True)) for row in report.rows]
    assert rows[0]["features"] == "efficientnet-lite0"
    assert {"precision", "recall", "density", "coverage"} <= {row["measure"] for row in rows}


def test_convert_and_check(fields: Path, tmp_path: Path) -> None:
    made = cytosynth.convert(fields / "drawn", str(tmp_path / "yolo"), "yolo", names={"LSIL": "low"})
    assert "low" in made.categories
    assert cytosynth.check(tmp_path / "yolo") == []
