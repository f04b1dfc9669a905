"""Tables and figures at the smallest size: what they compare, that they continue, what they say."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from cytosynth.annotations import Cell
from cytosynth.data.sources import Sample, Source
from cytosynth.errors import UsageError, UserError
from cytosynth.evaluate import image_set
from cytosynth.evaluate.networks.extractor import Extractor
from cytosynth.evaluate.statistics import mean
from cytosynth.experiments import figure3, figure6, table1, table1_report
from cytosynth.experiments.recipe import PRESETS, RIVALS, UNTUNED, Table1Recipe
from cytosynth.foundation import load as foundations
from cytosynth.io import atomic, plain
from cytosynth.normal.recipe import NormalRecipe
from cytosynth.normal.train import train_normal
from cytosynth.training.loop import Outcome


def test_mean_and_interval_are_students() -> None:
    found = mean([1.0, 2.0, 3.0])
    assert found.value == 2.0
    half = 4.302653 * 1.0 / 3**0.5  # the 97.5 % point of t with two degrees of freedom, standard error 1 / sqrt(3)
    assert (found.low, found.high) == (pytest.approx(2 - half, abs=1e-5), pytest.approx(2 + half, abs=1e-5))
    assert mean([5.0]).low is None
    assert str(mean([5.0])) == "5"


def test_the_presets_train_every_rival_equally_long_and_measure_on_images_that_nothing_saw() -> None:
    for recipe in PRESETS.values():
        assert set(RIVALS) <= set(recipe.adapters)
        assert recipe.real.split == "test"
        assert len(recipe.seeds) >= 3


def small(tiny: Path) -> Table1Recipe:
    return Table1Recipe(
        preset="bundled", foundation=str(tiny / "foundation"), adapters=[UNTUNED, "lora", "svdiff"], seeds=[0, 1],
        steps=2, count=2, size=192, window=64,
        training={"window": 64, "batch_size": 2, "preview_every": 100, "data": [{"root": "drawn"}],
                  "validate_every": 0},
        real=Source(root="drawn", split="all"), extractors=["efficientnet-lite0"],
    )  # fmt: skip


@pytest.fixture(scope="module")
def finished(tiny: Path, fields: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("table")
    table1.table1(small(tiny), run, fields)
    return run


def test_table_1_has_a_row_for_each_adapter_and_the_floor(finished: Path, tiny: Path) -> None:
    found = json.loads((finished / "table1.json").read_text())
    assert [row["adapter"] for row in found["rows"]] == [UNTUNED, "lora", "svdiff", "real against real"]
    lora = found["rows"][1]
    assert lora["paper: FID@ImageNet"] == 43.7446
    unet = foundations.load(str(tiny / "foundation")).unet
    tuned = [layer for name, layer in unet.named_modules() if re.search(r"attn2\.(to_[qkv]|to_out\.0)$", name)]
    assert lora["trained parameters"] == sum(8 * (layer.in_features + layer.out_features) for layer in tuned) > 0
    assert found["foundation"] == f"own:foundation {foundations.load(str(tiny / 'foundation')).digest}"
    assert "coverage (efficientnet-lite0)" in lora
    entries = [json.loads(path.read_text()) for path in sorted(finished.glob("lora/seed-*/result.json"))]
    values = [entry["values"]["efficientnet-lite0"]["frechet"] for entry in entries]
    assert len(values) == 2
    assert lora["FD (EfficientNet-Lite0)"].split(" ")[0] == f"{np.mean(values):.4g}"
    rows = (finished / "all.csv").read_text().splitlines()
    assert len(rows) == 1 + 3 * 2 * len(table1_report.MEASURES)
    assert any(note.startswith("svdiff minus lora") for note in found["notes"])


def entries(floors: list[float], values: dict[str, list[float]]) -> list[table1_report.SeedResult]:
    """Results of one feature network, all of whose measures are the given numbers, one a seed."""
    return [
        table1_report.SeedResult(
            name, seed, 1, 1, 9, {"colour": dict.fromkeys(table1_report.MEASURES, found)},
            {"colour": dict.fromkeys(table1_report.MEASURES, floors[seed])},
        )
        for name, numbers in values.items() for seed, found in enumerate(numbers)
    ]  # fmt: skip


def test_a_column_whose_floor_is_looser_than_the_rows_are_apart_is_said_to_decide_nothing() -> None:
    colour = Extractor("colour", "D (colour)", 3, "0" * 16, nn.Identity(), torch.from_numpy, torch.device("cpu"))
    rows = {"none": [5.0, 5.2, 5.4], "lora": [2.0, 2.1, 2.2]}
    assert table1_report.undecided(entries([1.0, 1.1, 1.2], rows), [colour]) == [], "0.5 wide, 3.1 apart"
    loose = table1_report.undecided(entries([1.0, 3.0, 5.0], rows), [colour])
    assert [line.split(" is inconclusive")[0] for line in loose] == [
        "FD (colour)", "KD (colour) x 1000", "coverage (colour)",
    ]  # fmt: skip
    width = 2 * 4.302653 * 2 / 3**0.5
    assert f"differ by at most 3.1, and the floor's interval is {width:.3g} wide" in loose[0]
    single = entries([1.0], {"none": [1.0], "lora": [1.1]})
    assert table1_report.undecided(single, [colour]) == [], "one seed has no interval"


def test_table_1_says_how_good_its_cytology_network_is(tiny: Path, tmp_path: Path) -> None:
    recipe = small(tiny).model_copy(update={"extractors": ["efficientnet-lite0", "cytology-resnet50"]})
    measured = {
        "cells": 40,
        "balanced_accuracy": 0.4125,
        "confusion": {"NILM": {}, "LSIL": {}, "HSIL": {}, "ASC-H": {}},
    }
    said = "balanced accuracy 0.412 on 40 held-out cells of 4 classes (chance 0.25)"
    for folder, weights in (
        (tmp_path / "features", {}),
        (tmp_path / "x", {"cytology-resnet50": str(tmp_path / "x/w")}),
    ):
        chosen = recipe.model_copy(update={"weights": weights})
        assert "its accuracy is unknown" in table1.cytology_note(chosen, tmp_path)[0]
        folder.mkdir()
        (folder / "validation.json").write_text(json.dumps(measured))
        assert said in table1.cytology_note(chosen, tmp_path)[0]
    assert table1.cytology_note(small(tiny), tmp_path) == []


def test_table_1_continues_where_it_was_killed_and_ends_the_same(finished: Path, tiny: Path, fields: Path) -> None:
    before = {name: (finished / name).read_bytes() for name in ("table1.json", "table1.md", "all.csv")}
    field = finished / "svdiff/seed-1/fields/0001.png"
    image = field.read_bytes()
    kept = finished / "lora/seed-0/fields/0000.png"
    stamp = kept.stat().st_mtime_ns
    (finished / "svdiff/seed-1/result.json").unlink()
    field.unlink()
    table1.table1(small(tiny), finished, fields)
    assert field.read_bytes() == image
    assert kept.stat().st_mtime_ns == stamp, "what was finished is not made again"
    assert {name: (finished / name).read_bytes() for name in before} == before


def test_a_damaged_result_of_table_1_ends_in_a_line(finished: Path, tiny: Path, fields: Path) -> None:
    result = finished / "svdiff/seed-1/result.json"
    whole = result.read_text()
    for damaged in ("{}", whole[:50], json.dumps(json.loads(whole) | {"values": 3})):
        result.write_text(damaged)
        with pytest.raises(UserError, match=r"seed-1/result.json: damaged; delete it, and the same command"):
            table1.table1(small(tiny), finished, fields)
    result.write_text(whole)


@pytest.mark.parametrize(("steps", "said"), [(1, {"finished": False}), (2, {"stopped": True})])
def test_a_training_that_is_asked_to_stop_ends_the_table_and_counts_for_nothing(
    steps: int, said: dict[str, bool], tiny: Path, fields: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the request came in its last step."""

    def stopped(recipe: NormalRecipe, run: Path, data_root: Path, **how: Any) -> Outcome:
        return train_normal(recipe.model_copy(update={"max_steps": steps}), run, data_root, **how)._replace(**said)

    once = small(tiny).model_copy(update={"adapters": ["lora"], "seeds": [0]})
    with monkeypatch.context() as patch:
        patch.setattr(table1, "train_normal", stopped)
        with pytest.raises(KeyboardInterrupt):
            table1.table1(once, tmp_path, fields)
    assert not list(tmp_path.glob("lora/seed-0/fields/*"))
    table1.table1(once, tmp_path, fields)
    assert json.loads((tmp_path / "lora/seed-0/result.json").read_text())["step"] == 2


def test_a_feature_network_that_is_not_done_is_trained_on_before_it_measures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file that says how good it is may be there already: it is written after a stop too."""
    (tmp_path / "features").mkdir()
    (tmp_path / "features/validation.json").write_text("{}")
    called: list[Path] = []

    def trained(_: object, run: Path, __: Path) -> Outcome:
        called.append(run)
        return Outcome(1, False, run / "weights", 1, None, True)

    monkeypatch.setattr(table1, "train_classifier", trained)
    with pytest.raises(KeyboardInterrupt):
        table1.extractor_of(table1.CYTOLOGY, PRESETS["bundled"], tmp_path, tmp_path, "cpu")
    assert called == [tmp_path / "features"]


def test_table_1_refuses_a_folder_of_another_recipe(finished: Path, tiny: Path, fields: Path) -> None:
    with pytest.raises(UsageError, match="steps=2, now 3"):
        table1.table1(small(tiny).model_copy(update={"steps": 3}), finished, fields)


def test_table_1_refuses_other_images_of_the_same_names(
    finished: Path, tiny: Path, fields: Path, tmp_path: Path
) -> None:
    shutil.copytree(fields / "drawn", tmp_path / "drawn")
    place = tmp_path / "drawn/images/field_3.png"
    pixels = np.array(Image.open(place))
    pixels[0, 0, 0] -= 1
    Image.fromarray(pixels).save(place)
    with pytest.raises(UsageError, match=r"data.json: this run was started with other real images or boxes"):
        table1.table1(small(tiny), finished, tmp_path)
    shutil.copytree(finished, tmp_path / "run")
    known = plain.load(tmp_path / "run/data.json")
    atomic.write_json(tmp_path / "run/data.json", known | {"training images": "0"})
    table1.table1(small(tiny), tmp_path / "run", fields)  # nothing is left to train
    (tmp_path / "run/svdiff/seed-1/result.json").unlink()
    with pytest.raises(UsageError, match=r"data.json: this run was started with other training images or boxes"):
        table1.table1(small(tiny), tmp_path / "run", fields)


def test_fields_of_table_1_say_that_they_are_synthetic(finished: Path) -> None:
    for path in finished.glob("*/seed-*/fields/*.png"):
        with Image.open(path) as image:
            assert "Synthetic" in image.info["Description"]


def test_real_windows_hold_no_abnormal_centre(tiny: Path, fields: Path) -> None:
    recipe = small(tiny)
    chosen = table1.real_windows(recipe, fields)
    everything = image_set.gather(fields / "drawn", "all", 1.0, 64)
    data = json.loads((fields / "drawn/annotations.json").read_text())
    names = {image["id"]: image["file_name"] for image in data["images"]}
    nilm = next(c["id"] for c in data["categories"] if c["name"] == "NILM")
    expected = 0
    for window in everything.windows:
        x, y = window.corner
        inside = [
            a for a in data["annotations"]
            if names[a["image_id"]] == window.name and a["category_id"] != nilm
            and x <= a["bbox"][0] + a["bbox"][2] / 2 <= x + 64 and y <= a["bbox"][1] + a["bbox"][3] / 2 <= y + 64
        ]  # fmt: skip
        expected += not inside
    assert len(chosen) == expected < len(everything)


def test_figure_3_compares_normal_and_abnormal_windows(tiny: Path, fields: Path, tmp_path: Path) -> None:
    report = figure3.figure3(
        Source(root="drawn", split="all"), fields, tmp_path, str(tiny / "foundation"), window=64, draws=20
    )
    assert [row[:2] for row in report.rows] == [
        ("normal", "PSNR"), ("normal", "SSIM"), ("abnormal", "PSNR"), ("abnormal", "SSIM")
    ]  # fmt: skip
    assert all(row[3] <= row[2] <= row[4] for row in report.rows)
    assert (tmp_path / "figure3.png").exists()
    with pytest.raises(UserError, match="no normal window of 1024"):
        figure3.figure3(Source(root="drawn", split="all"), fields, tmp_path, str(tiny / "foundation"), window=1024)
    with pytest.raises(UsageError, match="--window 100: must be a multiple of 8, as 96 or 104"):
        figure3.figure3(Source(root="drawn", split="all"), fields, tmp_path, str(tiny / "foundation"), window=100)


def test_places_of_figure_3_do_not_overlap_and_are_what_they_are_called() -> None:
    cells = (Cell((90.0, 90.0, 110.0, 110.0), "HSIL"), Cell((100.0, 95.0, 120.0, 115.0), "LSIL"),
             Cell((10.0, 150.0, 30.0, 170.0), "NILM"))  # fmt: skip
    sample = Sample("a.png", "drawn", np.zeros((256, 256, 3), np.uint8), cells)
    found = figure3.places(sample, 64)
    assert found[0] == ("abnormal", (68, 68))
    assert [kind for kind, _ in found].count("abnormal") == 1, "the second cell's window would overlap the first"
    corners = [corner for _, corner in found]
    assert len(set(corners)) == len(corners) > 5
    for index, (x, y) in enumerate(corners):
        assert 0 <= x <= 192
        assert 0 <= y <= 192
        assert all(max(abs(x - a), abs(y - b)) >= 64 for a, b in corners[:index])


def test_figure_6_shows_the_first_fields_of_every_adapter(finished: Path, tiny: Path, fields: Path) -> None:
    recipe = small(tiny).model_copy(update={"size": 64})
    path = figure6.figure6(recipe, finished, fields, finished, samples=2)
    with Image.open(path) as image:
        assert image.width == 2 * 64 + 6
    with pytest.raises(UserError, match="run `experiment table1` first"):
        figure6.figure6(recipe, finished, fields, finished, samples=4)
