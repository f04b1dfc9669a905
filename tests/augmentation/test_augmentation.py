"""Tables II and III at the smallest size: what is compared, how sure it is, and that no test image is trained on."""

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image as PILImage

from conftest import write_fields
from cytosynth.annotations import Cell, Image
from cytosynth.augmentation import experiment, gains, grid, inputs, leaks, training_sets
from cytosynth.augmentation.published import PUBLISHED
from cytosynth.augmentation.recipe import (
    CUSTOM,
    OURS,
    REAL,
    REAL_TO_SYNTHETIC,
    TABLE2,
    TABLE3,
    TRAINING_SETS,
    AugmentationRecipe,
)
from cytosynth.config import override
from cytosynth.data import convert, split
from cytosynth.data.formats import coco
from cytosynth.data.sources import Source
from cytosynth.detection import model, transfer
from cytosynth.errors import UsageError, UserError
from cytosynth.evaluate.detection.average_precision import Matches, evaluate
from cytosynth.evaluate.detection.failures import MISSED, NOTHING, failures
from cytosynth.io import atomic, plain
from cytosynth.synthesis import synthesize
from cytosynth.synthesis.settings import PipelineSettings
from cytosynth.training.loop import Outcome

ABNORMAL = ["ASC-US", "ASC-H", "LSIL", "HSIL"]


def noisy(rng: np.random.Generator, images: int) -> tuple[list[list[Cell]], list[list[Cell]]]:
    truth, found = [], []
    for _ in range(images):
        cells = [Cell((x, y, x + 40.0, y + 40.0), str(rng.choice(["A", "B"]))) for x, y in rng.uniform(0, 400, (5, 2))]
        truth.append(cells)
        moved = [
            Cell(c.moved(*rng.normal(0, 6, 2)).box, str(rng.choice(["A", c.category])), float(rng.random()))
            for c in cells
        ]
        found.append(moved)
    return truth, found


def test_a_resample_of_images_scores_as_those_images_would() -> None:
    truth, found = noisy(np.random.default_rng(0), 9)
    matches = Matches(truth, found, ["A", "B"])
    whole = matches.scores()
    assert whole == evaluate(truth, found, ["A", "B"])
    for chosen in ([0, 0, 4, 7, 7, 7], [3], list(range(9))[::-1]):
        drawn = matches.scores(chosen)
        alone = evaluate([truth[i] for i in chosen], [found[i] for i in chosen], ["A", "B"])
        assert drawn.map == pytest.approx(alone.map, abs=1e-9)
        assert drawn.per_category == pytest.approx(alone.per_category, nan_ok=True)
    assert matches.scores() == whole


def runs(level: float, spread: float, rng: np.random.Generator, seeds: int = 3) -> gains.Runs:
    difficulty = np.random.default_rng(99).normal(0, 0.2, 200)  # of the drawn images, common to both sides
    return gains.Runs(
        [
            {"scores": {"mAP": level + own}, "drawn": {"mAP": list(level + own + difficulty)}}
            for own in rng.normal(0, spread, seeds)
        ],
        {"LSIL": 200},
    )


def test_a_gain_is_paired_by_images() -> None:
    rng = np.random.default_rng(0)
    before, after = runs(0.30, 0.0, rng), runs(0.33, 0.0, rng)
    certain = gains.gain(after, before, "mAP")
    assert certain == pytest.approx((0.03, 0.03, 0.03))  # what is common to all draws falls out
    assert gains.verdict(certain) == gains.HELPS
    assert gains.verdict(gains.gain(before, after, "mAP")) == gains.HURTS
    alone = after.estimate("mAP")
    assert alone.low == 0.0, "no AP is below 0"
    assert alone.high == pytest.approx(0.33 + 1.96 * 0.2, abs=0.05), "by itself as unsure as the choice of test images"


def test_few_seeds_rarely_call_a_difference_real_where_there_is_none() -> None:
    rng = np.random.default_rng(1)
    verdicts = [gains.verdict(gains.gain(runs(0.3, 0.1, rng), runs(0.3, 0.1, rng), "mAP")) for _ in range(400)]
    assert verdicts.count(gains.UNDECIDED) >= 0.93 * 400
    found = [gains.verdict(gains.gain(runs(0.9, 0.1, rng), runs(0.3, 0.1, rng), "mAP")) for _ in range(100)]
    assert found.count(gains.HELPS) >= 90
    assert gains.verdict(gains.gain(runs(0.9, 0.1, rng, 1), runs(0.3, 0.1, rng, 1), "mAP")) == gains.UNDECIDED


def test_three_equal_seeds_are_rarely_called_different_where_a_bootstrap_calls_one_in_five() -> None:
    """Sides of the same distribution: `gains` against the percentile interval of the difference of two means."""
    rng = np.random.default_rng(0)
    ours, bootstrap, times = 0, 0, 1000
    for _ in range(times):
        values = rng.normal(0.5, 0.05, (2, 3))
        both = [
            gains.Runs([{"scores": {"mAP": v}, "drawn": {"mAP": [v, v]}} for v in side.tolist()], {"LSIL": 99})
            for side in values
        ]
        ours += gains.verdict(gains.gain(*both, "mAP")) != gains.UNDECIDED
        first, second = (side[rng.integers(3, size=(400, 3))].mean(axis=1) for side in values)
        low, high = np.percentile(first - second, (2.5, 97.5))
        bootstrap += low > 0 or high < 0
    assert 0.15 < bootstrap / times < 0.25
    assert ours / times < 0.06


def test_the_interval_of_seeds_is_welchs() -> None:
    from scipy.stats import ttest_ind

    a, b = [0.31, 0.35, 0.36, 0.40], [0.28, 0.29, 0.33]
    sides = [
        gains.Runs([{"scores": {"mAP": v}, "drawn": {"mAP": [0.5, 0.5]}} for v in values], {"LSIL": 9})
        for values in (a, b)
    ]
    welch = ttest_ind(a, b, equal_var=False).confidence_interval(0.95)
    assert gains.gain(*sides, "mAP")[1:] == pytest.approx((welch.low, welch.high))


def test_a_measure_without_cells_says_nothing() -> None:
    empty = gains.Runs([{"scores": {"mAP": None}, "drawn": {"mAP": [None, None]}}] * 2, {"LSIL": 9})
    assert math.isnan(empty.estimate("mAP").value)
    assert gains.verdict(gains.gain(empty, empty, "mAP")) == gains.UNDECIDED


def sides(rng: np.random.Generator, holding: int, images: int = 20) -> list[gains.Runs]:
    """Two detectors that are as good as each other on a category that so many of the images hold."""
    made = []
    draws = np.random.default_rng(0).integers(images, size=(200, images))
    for _ in range(2):
        own = np.full(images, np.nan)
        own[:holding] = rng.normal(0.3, 0.1, holding)
        drawn = np.array([np.nan if np.isnan(own[row]).all() else np.nanmean(own[row]) for row in draws])
        seeds = rng.normal(0, 0.01, 3)
        made.append(
            gains.Runs(
                [{"scores": {"HSIL": np.nanmean(own) + seed}, "drawn": {"HSIL": list(drawn + seed)}} for seed in seeds],
                {"HSIL": holding},
            )
        )
    return made


def test_a_bootstrap_of_two_images_would_call_one_difference_in_three_real() -> None:
    """Why `gains` does not: the spread of the draws alone, as if they were of any number of images."""
    rng = np.random.default_rng(0)
    called = 0
    for _ in range(400):
        after, before = sides(rng, 2)
        drawn = np.nanvar(after.drawn("HSIL") - before.drawn("HSIL"), ddof=1)
        seeds = sum(side.seeds("HSIL").var(ddof=1) / 3 for side in (after, before))
        called += abs(after.seeds("HSIL").mean() - before.seeds("HSIL").mean()) > 1.96 * math.sqrt(drawn + seeds)
    assert 0.25 < called / 400 < 0.45


def test_a_category_in_few_images_has_no_interval() -> None:
    rng = np.random.default_rng(0)
    for holding in (1, 2, 4):
        found = gains.gain(*sides(rng, holding), "HSIL")
        assert found.low is None
        assert gains.verdict(found) == gains.UNDECIDED
    for holding in (5, 12):
        called = [gains.verdict(gains.gain(*sides(rng, holding), "HSIL")) for _ in range(200)]
        assert called.count(gains.UNDECIDED) >= 0.92 * 200
    few = gains.Runs([], {"HSIL": 2, "LSIL": 30, "ASC-H": 0})
    assert [few.number(name) for name in ("HSIL", "LSIL", "mAP")] == [2, 30, gains.FEWEST]
    image = Image("a.png", 9, 9, (Cell((0, 0, 4, 4), "A"), Cell((4, 4, 8, 8), "A")))
    assert gains.holding([image, Image("b.png", 9, 9, ())], ["A", "B"]) == {"A": 1, "B": 0}


def test_failures_count_confusions_misses_and_what_is_not_there() -> None:
    truth = [[Cell((0, 0, 40, 40), "A"), Cell((100, 100, 140, 140), "B"), Cell((200, 0, 220, 20), "B")]]
    found = [
        [
            Cell((0, 0, 40, 40), "B", 0.9),  # A taken for B
            Cell((2, 2, 42, 42), "A", 0.4),  # the same cell again: neither right nor beside
            Cell((100, 100, 140, 142), "B", 0.8),  # right
            Cell((300, 300, 340, 340), "A", 0.7),  # nothing there
            Cell((200, 0, 220, 20), "B", 0.1),  # too unsure
            Cell((400, 400, 440, 440), "C", 0.9),  # of a category that is not asked for
        ]
    ]
    said = failures(truth, found, ["A", "B"])
    assert said.confusion["A"] == {"A": 0, "B": 1, MISSED: 0}
    assert said.confusion["B"] == {"A": 0, "B": 1, MISSED: 1}
    assert said.confusion[NOTHING] == {"A": 1, "B": 0, MISSED: 0}
    assert sum(count for *_, count, _ in said.missed) == 3
    assert [(low, high) for low, high, *_ in said.missed] == [(20.0, 33.0), (33.0, 40.0)]
    assert [share for *_, share in said.missed] == [1.0, 0.0]


def test_cells_of_one_size_make_one_group() -> None:
    cells = [Cell((x, 0, x + 41.48 + 0.02 * (x % 2), 41.5), "A") for x in range(0, 500, 50)]
    assert failures([cells], [[]], ["A"]).missed == [(41.0, 41.0, 10, 1.0)]


def small(tiny: Path, **changes: object) -> AugmentationRecipe:
    models = {name: str(tiny / name) for name in ("foundation", "normal", "cell", "detector")}
    base = AugmentationRecipe(
        title="Table II", preset="bundled", detectors=["faster-rcnn"], training_sets=[REAL, REAL_TO_SYNTHETIC, OURS],
        seeds=[0, 1], steps=2, training={"backbone": "small", "weights": "none", "window": 128, "batch_size": 1,
                                         "lr_schedule": "constant", "warmup_steps": 0, "ema_decay": None},
        real=[Source(root="drawn", split="train")], test=Source(root="drawn", split="test"),
        normals=Source(root="drawn", split="train"), count=3, draws=20,
        making=override(PipelineSettings(), ["normal.size=320", "normal.steps=1", "cell.steps=1", "threshold=0.0"]),
        models={**models, "custom-diffusion": None},
    )  # fmt: skip
    return base.model_copy(update=changes)


@pytest.fixture(scope="module")
def finished(tiny: Path, fields: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("table2")
    experiment.table(small(tiny), run, fields)
    return run


def test_the_table_has_every_mix_at_both_lengths(finished: Path) -> None:
    table = json.loads((finished / "table.json").read_text())
    keys = [(row["training data"], row["steps"]) for row in table["rows"]]
    # 4 real images and 3 synthetic ones: 2 steps, and 2 * 7 / 4 rounded
    assert sorted(keys) == sorted((mix, steps) for mix in (REAL, REAL_TO_SYNTHETIC, OURS) for steps in (2, 4))
    assert {row["training data"]: row["paper: mAP"] for row in table["rows"]} == {
        REAL: 14.9, REAL_TO_SYNTHETIC: 15.7, OURS: 15.6,
    }  # fmt: skip
    found = json.loads((finished / "gains.json").read_text())
    compared = {(row["compared"], row["steps"], row["steps of R"]) for row in found["rows"]}
    assert compared == {("equal steps", 2, 2), ("equal steps, longer", 4, 4), ("as the paper", 4, 2)}
    assert {row["measure"] for row in found["rows"]} == {"AP.5 abnormal", "mAP", *ABNORMAL}
    assert {row["verdict"] for row in found["rows"]} <= {gains.HELPS, gains.HURTS, gains.UNDECIDED}
    assert (finished / "gains.png").read_bytes().startswith(b"\x89PNG")


def test_real_images_are_edited_over_and_over_up_to_the_number_asked_for(finished: Path) -> None:
    rounds = sorted((finished / "sets/real-to-synthetic").iterdir())
    originals = [
        json.loads(line)["original"] for r in rounds for line in (r / "provenance.jsonl").read_text().splitlines()
    ]
    assert len(originals) == 3
    assert set(originals) == {"field_0.png", "field_3.png"}  # the normal ones of the part that is trained on
    data = json.loads((finished / "data.json").read_text())
    assert {row["what is added"]: row["images"] for row in data["rows"]} == {REAL: 4, REAL_TO_SYNTHETIC: 3, OURS: 3}


def test_label_density_counts_by_hand(fields: Path) -> None:
    from cytosynth.data import sources

    samples = sources.load([Source(root="drawn", split="train")], fields)
    said = training_sets.density([Source(root="drawn", split="train")], fields, ABNORMAL)
    cells = [cell for sample in samples for cell in sample.cells if cell.category in ABNORMAL]
    assert said["cells"] == len(cells) == sum(said[name] for name in ABNORMAL)
    assert said["a megapixel"] == pytest.approx(len(cells) / (4 * 320 * 288 / 1e6))


def test_it_continues_where_it_was_killed_and_ends_the_same(finished: Path, tiny: Path, fields: Path) -> None:
    names = ("table.csv", "gains.md", "failures.json", "data.csv")
    cell = finished / "cells/faster-rcnn/r-s/seed-1"
    result = cell / "result-4.json"
    before = json.loads(result.read_text())
    kept = (finished / "cells/faster-rcnn/r/seed-0/result-2.json").stat().st_mtime_ns
    stable = {name: (finished / name).read_bytes() for name in names[1:]}
    result.unlink()
    shutil.rmtree(cell / "training")  # also from nothing, the longer training passes through the shorter one
    experiment.table(small(tiny), finished, fields)
    again = json.loads(result.read_text())
    assert again["scores"] == before["scores"] and again["drawn"] == before["drawn"]
    assert (finished / "cells/faster-rcnn/r/seed-0/result-2.json").stat().st_mtime_ns == kept
    assert {name: (finished / name).read_bytes() for name in stable} == stable


def test_a_damaged_result_names_the_folder_to_delete(finished: Path, tiny: Path, fields: Path) -> None:
    result = finished / "cells/faster-rcnn/r-s/seed-1/result-2.json"
    whole = result.read_text()
    for damaged in ("{}", whole[:50], json.dumps(json.loads(whole) | {"memory_gib": "a"})):
        result.write_text(damaged)
        with pytest.raises(UserError, match=r"seed-1/result-2.json: damaged.*; delete .*r-s/seed-1, the same command"):
            experiment.table(small(tiny), finished, fields)
    result.write_text(whole)


def test_workers_share_the_grid(finished: Path, tiny: Path, fields: Path) -> None:
    results = [finished / f"cells/faster-rcnn/r/seed-{seed}/result-4.json" for seed in (0, 1)]
    before = [json.loads(path.read_text())["failures"] for path in results]
    for path in results:
        path.unlink()
    experiment.table(small(tiny), finished, fields, ["cpu"], workers=2)
    assert [json.loads(path.read_text())["failures"] for path in results] == before
    assert len(list((finished / "workers").glob("*.log"))) == 2


def test_a_set_made_from_a_test_image_is_refused(tiny: Path, fields: Path, tmp_path: Path) -> None:
    normal = next(p.file_name for p in coco.read(fields / "drawn").images if all(c.category == "NILM" for c in p.cells))
    root = tmp_path / "other"
    shutil.copytree(fields / "drawn", root)
    names = [p.file_name for p in coco.read(root).images]
    parts = {"train": [n for n in names if n != normal], "val": [], "test": [normal]}
    parts["test"].append(parts["train"].pop())
    atomic.write_json(root / "split.json", parts)
    leak = tmp_path / "leak"
    models = {name: str(tiny / name) for name in ("foundation", "cell", "detector")}
    synthesize.edit(root, leak, settings=small(tiny).making, part="test", **models)
    recipe = small(
        tiny, sets={OURS: "leak"}, training_sets=[REAL, OURS], real=[Source(root="other", split="train")],
        test=Source(root="other", split="test"),
    )  # fmt: skip
    with pytest.raises(UserError, match=f"made from {normal}, a test image"):
        experiment.table(recipe, tmp_path / "run", tmp_path)


def test_what_a_set_was_made_from_is_known_by_its_content(fields: Path, tmp_path: Path) -> None:
    test = [Source(root="drawn", split="test")]
    name = split.part(coco.read(fields / "drawn"), "test", fields / "drawn")[0].file_name
    digest = atomic.sha256(fields / "drawn/images" / name)
    for number, (original, known, refused) in enumerate(
        [("renamed.png", digest, True), (name, "0" * 64, False), (name, "", True), ("other.png", "", False)]
    ):
        folder = tmp_path / str(number)
        shutil.copytree(fields / "drawn", folder)
        record = {"file_name": "a.png", "original": original, "original_sha256": known}
        (folder / "provenance.jsonl").write_text(json.dumps(record) + "\n")
        if refused:
            with pytest.raises(UserError, match=f"made from {original}, a test image"):
                leaks.refuse(folder, test, fields)
        else:
            leaks.refuse(folder, test, fields)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"test": Source(root="drawn", split="train")}, "real: .* is also a train image"),
        ({"real": [Source(root="drawn", split="all")]}, "real: .* is also a test image"),
        ({"real": [Source(root="drawn/annotations.json", split="all")]}, "real: .* is also a test image"),
        ({"normals": Source(root="drawn", split="all")}, "normals: .* is also a test image"),
        ({"training_sets": [REAL, CUSTOM], "adapter": {"data": [{"root": "drawn", "split": "test"}]}},
         "adapter: .* is also a test image"),
        ({"categories": ["hsil"]}, r"no annotated cell of hsil in part 'train' \(it has .*LSIL.*NILM"),
    ],
)  # fmt: skip
def test_nothing_is_made_where_a_test_image_would_be_trained_on_or_nothing_learnt(
    changes: dict[str, object], said: str, tiny: Path, fields: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=said):
        experiment.table(small(tiny, **changes), tmp_path, fields)
    assert not (tmp_path / "sets").exists()


def test_a_split_may_be_next_to_the_file(fields: Path) -> None:
    root = fields / "drawn"
    data = coco.read(root)
    for name in ("train", "test"):
        assert split.part(data, name, root / "annotations.json") == split.part(data, name, root)
    assert split.names(data, root / "annotations.json") == split.names(data, root)


def test_other_data_under_the_same_name_are_noticed(finished: Path, tiny: Path, fields: Path, tmp_path: Path) -> None:
    shutil.copytree(finished, tmp_path / "run")
    shutil.copytree(fields / "drawn", tmp_path / "data/drawn")
    one = json.loads((tmp_path / "data/drawn/annotations.json").read_text())
    one["annotations"][0]["bbox"][0] += 1
    atomic.write_json(tmp_path / "data/drawn/annotations.json", one)
    with pytest.raises(UsageError, match="was started with another real set 1"):
        experiment.table(small(tiny), tmp_path / "run", tmp_path / "data")
    shutil.copyfile(fields / "drawn/annotations.json", tmp_path / "data/drawn/annotations.json")
    place = tmp_path / "data/drawn/images/field_2.png"
    pixels = np.array(PILImage.open(place))
    pixels[0, 0, 0] -= 1
    PILImage.fromarray(pixels).save(place)
    with pytest.raises(UsageError, match="was started with other images of the real set 1"):
        experiment.table(small(tiny), tmp_path / "run", tmp_path / "data")
    old = plain.load(tmp_path / "run/inputs.json")
    earlier = {name: value for name, value in old.items() if not name.startswith(inputs.IMAGES)}
    assert not inputs.difference(earlier, old), "a run of an earlier version continues"
    with pytest.raises(UsageError, match="trained for 4 steps, but 2 are requested"):
        Outcome(4, True, tmp_path / "weights").completed(2)


def test_accumulated_gradients_and_own_epochs_count_in_the_length(tiny: Path) -> None:
    images = {REAL: 30, OURS: 60}
    recipe = small(tiny, training_sets=[REAL, OURS], steps=None, epochs=10)
    recipe = recipe.model_copy(update={"training": {"batch_size": 2, "gradient_accumulation": 3}})
    assert experiment.training_lengths(recipe, "faster-rcnn", OURS, images) == (50, 150)
    third = TABLE3["paper"]
    assert experiment.training_lengths(third, "comparison-detector", REAL, images) == (60 * 30 // 2,)
    assert experiment.training_lengths(third, "faster-rcnn", OURS, images) == (300, 900)


def test_real_images_alone_make_a_table_without_a_plot(
    finished: Path, tiny: Path, fields: Path, tmp_path: Path
) -> None:
    one = small(tiny, training_sets=[REAL], seeds=[0], title="Mine")
    table, gained, *_ = experiment.table(one, tmp_path, fields)
    assert [row[:3] for row in table.rows] == [("faster-rcnn", REAL, 2)]
    assert gained.rows == ()
    assert not (tmp_path / "gains.png").exists()


def test_a_recipe_whose_data_are_missing_can_be_mended_in_the_same_folder(
    tiny: Path, fields: Path, tmp_path: Path
) -> None:
    missing = small(tiny, training_sets=[REAL, "R + S"], sets={"R + S": "not there"}, seeds=[0])
    with pytest.raises(UserError, match="not there"):
        experiment.table(missing, tmp_path, fields)
    assert not (tmp_path / "recipe.yaml").exists(), "nothing was begun"


def test_only_the_part_asked_for_is_edited(tiny: Path, fields: Path, tmp_path: Path) -> None:
    models = {name: str(tiny / name) for name in ("foundation", "cell", "detector")}
    with pytest.raises(UserError, match=r"all \d+ images? with cells that are not NILM"):
        synthesize.edit(fields / "drawn", tmp_path / "out", settings=small(tiny).making, part="test", **models)
    with pytest.raises(UserError, match="no part 'dev'"):
        synthesize.edit(fields / "drawn", tmp_path / "out", settings=small(tiny).making, part="dev", **models)


def test_presets_compare_what_the_paper_compares() -> None:
    for recipe in (*TABLE2.values(), *TABLE3.values()):
        assert recipe.test.split == "test" and all(source.split == "train" for source in recipe.real)
        assert recipe.normals.split == "train"
        assert len(recipe.seeds) >= 3
    paper = TABLE2["paper"]
    assert paper.training_sets == list(TRAINING_SETS) == [REAL, CUSTOM, REAL_TO_SYNTHETIC, OURS]
    cells = experiment.plan(
        paper, {mix: [] for mix in paper.training_sets}, dict.fromkeys(TRAINING_SETS, 5000) | {REAL: 3000}
    )
    lengths = {(cell.training_set): cell.lengths for cell in cells if cell.detector == "retinanet"}
    assert lengths == dict.fromkeys(paper.training_sets, (30_000, 80_000))  # Section IV-C: 20 epochs of batch 2
    assert PUBLISHED["Table II"]["dino", OURS] == 17.8
    larger = paper.model_copy(update={"by_detector": {"dino": {"batch_size": 8}}})
    cells = experiment.plan(
        larger, {mix: [] for mix in paper.training_sets}, dict.fromkeys(TRAINING_SETS, 5000) | {REAL: 3000}
    )
    assert {cell.lengths for cell in cells if cell.detector == "dino"} == {(7500, 20_000)}, "passes, not steps"
    assert [cell.seed for cell in cells] == sorted(cell.seed for cell in cells), "whole seeds first"
    third = TABLE3["paper"]
    cells = experiment.plan(third, {REAL: [], OURS: []}, {REAL: 4651, OURS: 5000})
    assert {cell.training_set for cell in cells if cell.detector == "comparison-detector"} == {REAL}


def test_table_3_runs_on_the_comparison_detector_database(tiny: Path, tmp_path: Path, finished: Path) -> None:
    write_fields(tmp_path / "database", 6)
    convert.convert(tmp_path / "database", tmp_path / "comparison-database", "comparison-detector", "coco")
    names = [image.file_name for image in coco.read(tmp_path / "comparison-database").images]
    parts = {"train": names[:-1], "val": [], "test": names[-1:]}
    atomic.write_json(tmp_path / "comparison-database/split.json", parts)
    settings = {"window": 192, "batch_size": 1, "lr_schedule": "constant", "weights": "none", "ema_decay": None}
    recipe = TABLE3["bundled"].model_copy(
        update={"detectors": ["comparison-detector", "retinanet"], "seeds": [0], "steps": 1, "draws": 10,
                "sets": {OURS: str(finished / "sets/ours")}, "training": settings},
    )  # fmt: skip
    experiment.table(recipe, tmp_path / "run", tmp_path)
    rows = json.loads((tmp_path / "run/table.json").read_text())["rows"]
    assert {(row["detector"], row["training data"], row["paper: mAP"]) for row in rows} == {
        ("comparison-detector", REAL, 17.1), ("retinanet", REAL, 18.1), ("retinanet", OURS, 20.6),
    }  # fmt: skip
    data = json.loads((tmp_path / "run/data.json").read_text())["rows"]
    assert data[0]["cells a megapixel"] == pytest.approx(data[0]["cells an image"] / 1.024**2, rel=1e-6)


def test_a_recipe_that_compares_with_nothing_is_refused() -> None:
    with pytest.raises(UsageError, match="is missing, with which the others are compared"):
        override(TABLE2["bundled"], ["training_sets=[R + S]"])
    with pytest.raises(UsageError, match="unknown detector 'yolo'"):
        override(TABLE2["bundled"], ["detectors=[yolo]"])


def test_a_detector_begins_from_another_of_other_categories(tmp_path: Path) -> None:
    torch.manual_seed(0)
    other = model.DetectorConfig(backbone="small", categories=("NILM",))
    network = model.build(other)
    model.save(network, other, tmp_path)
    new = model.build(model.DetectorConfig(backbone="small", categories=("A", "B")))
    head = new.roi_heads.box_predictor.cls_score.weight.clone()
    said = transfer.start(new, str(tmp_path), ["A", "B"])
    assert torch.allclose(new.backbone.body.conv1.weight, network.backbone.body.conv1.weight, atol=1e-3)
    assert torch.equal(new.roi_heads.box_predictor.cls_score.weight, head), "two categories' head does not fit one's"
    every = len(new.state_dict())
    assert said == (
        f"{every - 4} of {every} tensors are initialised from that faster-rcnn, 4 at random; "
        "4 of its tensors are not used"
    )
    retina = model.build(model.DetectorConfig(architecture="retinanet", backbone="small", categories=("A",)))
    transfer.start(retina, str(tmp_path), ["A"])
    assert torch.allclose(retina.backbone.body.conv1.weight, network.backbone.body.conv1.weight, atol=1e-3)
    with pytest.raises(UserError, match="the detector's backbone is small, not resnet50"):
        transfer.pretrained(str(tmp_path), "resnet50")


def test_longer_trainings_of_a_falling_rate_are_trained_apart(tiny: Path) -> None:
    cell = grid.Trial("faster-rcnn", OURS, 0, (Source(root="drawn"),), (2, 4))
    recipe = small(tiny, by_detector={"faster-rcnn": {"lr_schedule": "cosine"}})
    assert grid.settings(cell, recipe, 4).lr_schedule == "cosine"
    assert grid.settings(cell, recipe, 4).max_steps == 4
    assert cell.folder(Path("run")) == Path("run/cells/faster-rcnn/r-s/seed-0")
    assert len({grid.Trial("d", mix, 0, (), ()).folder(Path()) for mix in TRAINING_SETS}) == len(TRAINING_SETS)


def test_what_detectors_begin_from_must_not_have_seen_a_test_image(fields: Path, tiny: Path, tmp_path: Path) -> None:
    run = tmp_path / "detector"
    shutil.copytree(tiny / "detector", run / "weights")
    (run / "recipe.yaml").write_text("kind: detector\ndata: [{root: drawn, split: all}]\n")
    recipe = small(tiny, training={"weights": str(run)}, test=Source(root="drawn", split="all"))
    with pytest.raises(UserError, match="this detector was trained or chosen on drawn/"):
        leaks.begun(experiment.begins(recipe).values(), [recipe.test], fields)
    with pytest.raises(UsageError, match="weights=nowhere: no detector there; give none, torchvision, imagenet"):
        leaks.begun(["nowhere"], [recipe.test], fields)
    leaks.begun([None, "", "none", "imagenet"], [recipe.test], fields)
