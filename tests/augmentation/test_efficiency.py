"""`experiment efficiency` at the smallest size: nested subsets, equal arms, no leak, resuming, and right tables."""

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from conftest import write_fields
from cytosynth.annotations import Cell, Image
from cytosynth.augmentation import inputs, leaks, seen
from cytosynth.augmentation.efficiency import analysis, chains, choice, efficiency, sets, table, trials
from cytosynth.augmentation.efficiency.recipe import (
    ARMS,
    EDITED,
    FIELDS,
    PASTED,
    PRESETS,
    REAL,
    STRONG,
    EfficiencyRecipe,
    Strategy,
)
from cytosynth.cell.settings import EditSettings
from cytosynth.config import override
from cytosynth.data.formats import coco
from cytosynth.data.sources import Source
from cytosynth.errors import UsageError, UserError
from cytosynth.evaluate import two_way
from cytosynth.evaluate.detection.scoring import ABNORMAL_AP, most_confident, one_class
from cytosynth.io import atomic
from cytosynth.provenance import said
from cytosynth.synthesis.settings import PipelineSettings

TRAINING = {
    "backbone": "small", "weights": "none", "window": 96, "batch_size": 1, "lr_schedule": "constant", "warmup_steps": 0,
    "ema_decay": None,
}  # fmt: skip
MORE = {
    "two phases": Strategy(kind="edited", ratio=1, first=0.5),
    "lighter, half": Strategy(kind="edited", ratio=1, weight=0.5, share=0.5),
    "exemplar": Strategy(kind="exemplar", ratio=1),
    "hard": Strategy(kind="edited", ratio=1, hard=True),
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("efficiency")
    write_fields(root / "drawn", 13)
    names = [image.file_name for image in coco.read(root / "drawn").images]
    atomic.write_json(root / "drawn/split.json", {"centre": names[:6], "train": names[6:9], "test": names[9:]})
    return root


@pytest.fixture(scope="module")
def models(tiny: Path) -> dict[str, str]:
    (tiny / seen.FILE).write_text(f"{'0' * 64}  other/a.png\n")
    return {role: str(tiny / role) for role in ("foundation", "normal", "cell", "detector")}


def small(models: dict[str, str], **changes: object) -> EfficiencyRecipe:
    one = {"ratio": 1.0}
    base = EfficiencyRecipe(
        title="Small", generator="public", arms={name: arm.model_copy(update=one) for name, arm in ARMS.items()},
        sizes=[4], confirmatory=4, chains=2, steps=2, one_class=True, training=TRAINING, draws=20, least=2,
        real=Source(root="drawn", split="centre"), test=Source(root="drawn", split="test"),
        tuning=Source(root="drawn", split="train"), models=models,
        making=override(PipelineSettings(), ["normal.size=320", "normal.steps=1", "cell.steps=2", "threshold=0.0",
                                             "max_cells=2"]),
    )  # fmt: skip
    return EfficiencyRecipe.model_validate(base.model_dump() | changes)


@pytest.fixture(scope="module")
def finished(models: dict[str, str], data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("run")
    efficiency.efficiency(small(models), run, data, on="test")
    return run


def images(normal: int, abnormal: int) -> list[Image]:
    kinds = ["NILM"] * normal + ["LSIL"] * abnormal
    return [Image(f"{n}.png", 9, 9, (Cell((0, 0, 4, 4), kind),)) for n, kind in enumerate(kinds)]


@pytest.mark.parametrize("kind", ["pasted", "exemplar"])
def test_hard_cells_of_an_arm_that_is_like_another_are_refused(kind: str) -> None:
    with pytest.raises(ValueError, match="set `hard` there"):
        Strategy(kind=kind, hard=True)


@pytest.mark.parametrize(
    ("arm", "complaint"),
    [
        (
            "{kind: edited, first: 0.001}",
            "first=0.001 is 0 of 400 steps, so there are no two phases; choose 0.0025",
        ),
        ("{kind: edited, first: 0.999}", "'two': first=0.999 is 400 of 400 steps, .* choose 0.0025 to 0.9975"),
        ("{kind: edited, first: 0.5, share: 0.3}", "share: no effect with first=0.5, which trains on synthetic and on"),
        ("{kind: fields, first: 0.5, weight: 2}", "weight: no effect with first=0.5"),
        ("{kind: none, share: 0.3, weight: 2}", "share, weight: no effect on an arm of kind none; leave it out"),
        ("{kind: none, first: 0.5}", "first: no effect on an arm of kind none"),
        ("{kind: edited, strength: [0.1, 0.2]}", "strength: no effect on an arm of kind edited"),
        ("{kind: pasted, gate: nucleus}", "gate: no effect on an arm of kind pasted"),
    ],
)
def test_settings_of_an_arm_without_effect_are_refused_before_anything_is_trained(arm: str, complaint: str) -> None:
    setting = f'arms={{R: {{kind: none}}, "R + R2S": {{kind: edited}}, two: {arm}}}'
    with pytest.raises(UsageError, match=complaint) as refused:
        override(PRESETS["public"], [setting])
    assert "\n" not in str(refused.value)


def test_an_arm_can_begin_from_weights_of_its_own(models: dict[str, str], data: Path, tmp_path: Path) -> None:
    arms = {REAL: Strategy(kind="none"), "begun": Strategy(kind="none", weights=models["detector"])}
    recipe = small(models, arms={name: arm.model_dump() for name, arm in arms.items()}, chains=1, confirmatory=None)
    assert arms[REAL].key == arms["begun"].key
    trial = trials.Trial("begun", 0, 4, tmp_path, (), (2,))
    assert trials.settings(trial, [recipe.real], [], 2, {}, recipe).weights == models["detector"]
    assert trials.settings(trial, [recipe.real], [], 2, {"weights": "first"}, recipe).weights == "first"
    assert trials.settings(replace(trial, arm=REAL), [recipe.real], [], 2, {}, recipe).weights == "none"
    saw = Path(models["detector"]) / seen.FILE
    held = data / "drawn/images" / coco.read(data / "drawn").images[0].file_name
    saw.write_text(f"{hashlib.sha256(held.read_bytes()).hexdigest()}  drawn/a.png\n")
    try:
        with pytest.raises(UserError, match=r"this detector was trained or chosen on drawn/a\.png"):
            efficiency.efficiency(recipe, tmp_path / "run", data)
    finally:
        saw.unlink()


@pytest.mark.parametrize(("first", "steps", "phases"), [(0.0025, 400, 1), (0.5, 2, 1), (0.5, 3, 2), (0.998, 400, 399)])
def test_an_arm_of_two_phases_has_both(first: float, steps: int, phases: int) -> None:
    arms = {"R": {"kind": "none"}, "two": {"kind": "fields", "first": first}}
    recipe = EfficiencyRecipe.model_validate(PRESETS["public"].model_dump() | {"arms": arms, "steps": steps})
    assert recipe.arms["two"].steps_first(steps) == phases


def test_subsets_of_a_chain_are_nested_and_have_both_kinds() -> None:
    pool = images(3, 13)
    for seed in range(20):
        found = chains.draw(pool, [4, 8, 16], seed)
        names = {size: {image.file_name for image in one} for size, one in found.items()}
        assert names[4] < names[8] < names[16] and [len(names[size]) for size in (4, 8, 16)] == [4, 8, 16]
        normal = [sum(image.cells[0].category == "NILM" for image in found[size]) for size in (4, 8, 16)]
        assert normal == [1, 2, 3]
    assert chains.draw(pool, [8], 1) != chains.draw(pool, [8], 2)
    assert chains.draw(images(12, 2), [13], 0)[13]
    with pytest.raises(UsageError, match="17 images requested, but there are only 16"):
        chains.draw(pool, [17], 0)
    with pytest.raises(UsageError, match="with and without abnormal"):
        chains.draw(images(0, 9), [4], 0)


def test_a_subset_holds_the_same_files(data: Path, tmp_path: Path) -> None:
    efficiency.prepare(small({}, sizes=[2, 4]), tmp_path, data)
    for chain in (0, 1):
        small_, large = (tmp_path / f"subsets/chain-{chain}/n-{size}" for size in (2, 4))
        names = [{p.name: p.read_bytes() for p in (one / "images").iterdir()} for one in (small_, large)]
        assert names[0].items() <= names[1].items()
        assert all(content == (data / "drawn/images" / name).read_bytes() for name, content in names[1].items())
        by_name = {image.file_name: image for image in coco.read(data / "drawn").images}
        assert all(image.cells == by_name[image.file_name].cells for image in coco.read(large).images)


@pytest.mark.slow
def test_copy_paste_has_as_many_images_cells_and_places_as_the_edited_set(finished: Path) -> None:
    recipe = EfficiencyRecipe.model_validate(json.loads(json.dumps(small({}).model_dump(mode="json"))))
    for chain in (0, 1):
        folder = finished / f"sets/chain-{chain}/n-4"
        edited = [record for one in sorted((folder / recipe.arms[EDITED].key).iterdir()) if one.is_dir()
                  for _, record in sorted(said(one).items())]  # fmt: skip
        pasted = [record for _, record in sorted(said(folder / recipe.arms[PASTED].key).items())]
        assert len(edited) == len(pasted) == 4
        for one, other in zip(edited, pasted, strict=True):
            assert one["original_sha256"] == other["original_sha256"]
            assert len(one["cells"]) == len(other["cells"])
        own = {
            hashlib.sha256(path.read_bytes()).hexdigest()
            for path in (finished / f"subsets/chain-{chain}/n-4/images").iterdir()
        }
        assert {cell["pasted_from"]["sha256"] for record in pasted for cell in record["cells"]} <= own
        assert {record["original_sha256"] for record in edited} <= own


@pytest.mark.slow
def test_the_tables_say_what_was_compared(finished: Path) -> None:
    scored = json.loads((finished / "test/efficiency.json").read_text())["rows"]
    assert [(row["N"], row["arm"]) for row in scored] == [(4, arm) for arm in ARMS]
    for row in scored:
        expected = 0 if row["arm"] in (REAL, STRONG) else row["N"]
        assert row["synthetic images"] == expected and row["chains"] == 2
    boxes = {(row["N"], row["arm"]): row["their boxes"] for row in scored}
    assert boxes[4, EDITED] == boxes[4, PASTED] > 0
    rows = json.loads((finished / "test/gains.json").read_text())["rows"]
    confirmatory = [row for row in rows if row["p after Holm"] is not None]
    assert [(row["N"], row["arm"], row["against"]) for row in confirmatory] == [(4, EDITED, REAL), (4, EDITED, PASTED)]
    assert {row["status"] for row in confirmatory} <= {"confirmed", "not confirmed"}
    assert {row["status"] for row in rows if row not in confirmatory} == {"exploratory"}
    assert (finished / "test/efficiency.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_all_arms_train_equally_long_from_the_same_seed(finished: Path) -> None:
    recipes = {path.parents[3].name: path.read_text() for path in finished.glob("trials/*/n-4/chain-1/training/*.yaml")}
    assert len(recipes) == 5
    assert all("seed: 1\n" in text and "max_steps: 2\n" in text for text in recipes.values())
    assert "white-balance" in recipes[trials.slug(STRONG)] and "white-balance" not in recipes["r"]


@pytest.mark.slow
def test_it_continues_trial_by_trial_and_the_same_trainings_serve_both_parts(
    finished: Path, models: dict[str, str], data: Path
) -> None:
    result = finished / "trials/r-r2s/n-4/chain-1/test-2.json"
    before, kept = json.loads(result.read_text()), (finished / "test/gains.md").read_bytes()
    weights = {path: path.read_bytes() for path in finished.glob("trials/*/*/*/training/weights/*.safetensors")}
    result.unlink()
    shutil.rmtree(result.parent / "training")
    efficiency.efficiency(small(models), finished, data, on="test")
    again = json.loads(result.read_text())
    assert (again["scores"], again["drawn"]) == (before["scores"], before["drawn"])
    assert (finished / "test/gains.md").read_bytes() == kept
    assert len(weights) == 10
    efficiency.efficiency(small(models), finished, data)
    assert all(path.read_bytes() == content for path, content in weights.items())
    assert "not a result" in (finished / "tuning/gains.md").read_text()
    with pytest.raises(UsageError, match="started with"):
        efficiency.efficiency(small(models, steps=3, draws=30), finished, data)


@pytest.mark.slow
def test_what_is_decided_before(models: dict[str, str], data: Path, tmp_path: Path) -> None:
    recipe = small(models, arms={REAL: ARMS[REAL]}, curve=[1, 2, 3])
    power = efficiency.check_power(recipe, tmp_path, data)
    assert [row[0] for row in power.rows] == [2, 5, 8, 12]
    assert all(a[1] >= b[1] for a, b in zip(power.rows, power.rows[1:], strict=False)), "more chains show less"
    seeds = {
        path.read_text().split("seed: ")[1].split()[0] for path in tmp_path.glob("trials/r/n-4/*/training/r*.yaml")
    }
    assert seeds == {"0", "1", "1000", "1001"}
    steps = efficiency.check_steps(recipe, tmp_path, data)
    assert [row[0] for row in steps.rows] == [1, 2, 3]
    assert (tmp_path / "tuning/learning_curve.png").exists()
    assert not list(tmp_path.glob("trials/*/*/*/test-*.json")), "no test image was looked at"


@pytest.mark.slow
def test_strategies(models: dict[str, str], data: Path, tmp_path: Path) -> None:
    arms = {REAL: ARMS[REAL], EDITED: Strategy(kind="edited", ratio=1)} | {
        name: arm if arm.kind != "exemplar" else arm.model_copy(update={"like": EDITED}) for name, arm in MORE.items()
    }
    recipe = small(models, arms=arms, sizes=[4], chains=1)
    report = choice.choose(recipe, tmp_path, data)
    assert [row[0] for row in report.rows] == [name for name in arms if name != REAL]
    row = tmp_path / "sets/chain-0/n-4"
    begun, pasted = row / arms["exemplar"].key, row / f"{arms['exemplar'].key}-pasted"
    edits, originals = said(begun), said(pasted)
    assert edits.keys() == originals.keys()
    for name, record in edits.items():
        assert [cell["bbox_xyxy"] for cell in record["cells"]] == [c["bbox_xyxy"] for c in originals[name]["cells"]]
        assert all(0.3 <= cell["strength"] <= 0.6 for cell in record["cells"])
    assert "fall: 0.0" in (begun / "settings.yaml").read_text(), "all of an exemplar is edited alike"
    folder = tmp_path / "trials/two-phases/n-4/chain-0"
    assert {path.name for path in folder.iterdir() if path.is_dir()} == {"first-1", "second-1"}
    second = (folder / "second-1/recipe.yaml").read_text()
    assert "synthetic: []" in second and "weights: weights" in second
    weights = json.loads((row / "hard.json").read_text())
    assert weights.keys() == set(recipe.categories) and min(weights.values()) >= 0.1
    assert arms[EDITED].key == arms["two phases"].key == arms["lighter, half"].key != arms["hard"].key
    told = (tmp_path / "trials/lighter-half/n-4/chain-0/training/recipe.yaml").read_text()
    assert "synthetic_weight: 0.5" in told and "synthetic_share: 0.5" in told


def outcome(chains_: int, value: float, spread: float, seed: int) -> dict[int, dict]:
    rng = np.random.default_rng(seed)
    noise = np.random.default_rng(7).normal(0, 0.02, 200)
    own = value + rng.normal(0, spread, chains_)
    return {
        chain: {"scores": {ABNORMAL_AP: one}, "drawn": {ABNORMAL_AP: list(one + noise)}, "parameters": 1,
                "seconds_a_step": None}
        for chain, one in enumerate(own)
    }  # fmt: skip


def test_only_the_confirmatory_family_is_corrected_and_confirmed() -> None:
    recipe = small({}, sizes=[4, 8], confirmatory=8, chains=6, least=10)
    results = {
        (size, arm): outcome(6, value, 0.005, hash_)
        for hash_, (size, arm, value) in enumerate(
            [(4, REAL, 0.3), (4, EDITED, 0.4), (4, PASTED, 0.3), (8, REAL, 0.4), (8, EDITED, 0.5), (8, PASTED, 0.5)]
        )
    }
    rows = {
        (row.size, row.arm, row.against): row for row in analysis.compared(results, recipe, {"": 28, "abnormal": 28})
    }
    first, second = rows[8, EDITED, REAL], rows[8, EDITED, PASTED]
    assert (first.status, second.status) == ("confirmed", "not confirmed")
    assert first.gain.p is not None and second.gain.p is not None
    assert (first.corrected, second.corrected) == pytest.approx(
        tuple(two_way.holm({"a": first.gain.p, "b": second.gain.p}).values())
    )
    assert rows[4, EDITED, REAL].status == "exploratory"
    assert first.not_inferior(0.02) and rows[8, PASTED, REAL].not_inferior(0.02)
    few = analysis.compared(results, recipe, {"": 9, "abnormal": 9})
    assert all(row.gain.low is None and row.status == "exploratory" for row in few)
    assert choice.walk({arm: one for (size, arm), one in results.items() if size == 8}, 28, 10)[1] == EDITED


def test_another_arm_can_be_the_candidate() -> None:
    recipe = small({}, sizes=[4], confirmatory=4, candidate=FIELDS, chains=6, least=10)
    results = {
        (4, arm): outcome(6, value, 0.005, hash_)
        for hash_, (arm, value) in enumerate([(REAL, 0.3), (FIELDS, 0.4), (EDITED, 0.4), (PASTED, 0.3)])
    }
    rows = {(row.arm, row.against): row for row in analysis.compared(results, recipe, {"": 28, "abnormal": 28})}
    assert {key for key, row in rows.items() if row.status == "confirmed"} == {(FIELDS, REAL), (FIELDS, PASTED)}
    assert rows[EDITED, REAL].status == rows[EDITED, PASTED].status == "exploratory"
    with_earlier = analysis.compared(
        results, recipe.model_copy(update={"earlier": [1e-9, 0.5]}), {"": 28, "abnormal": 28}
    )
    four = {(row.arm, row.against): row for row in with_earlier}[FIELDS, REAL]
    alone = rows[FIELDS, REAL]
    assert four.corrected is not None and alone.corrected is not None and four.corrected > alone.corrected
    for arm in ("R + X", REAL, PASTED):
        with pytest.raises(ValueError, match="is no arm to confirm; choose one of R \\+ S, R \\+ R2S"):
            small({}, candidate=arm)
    with pytest.raises(ValueError, match="'R \\+ copy-paste', which is not among the arms; set confirmatory=null"):
        small({}, candidate=FIELDS, arms={REAL: ARMS[REAL], FIELDS: ARMS[FIELDS]})


def test_few_step_weights_must_fit_the_models() -> None:
    with pytest.raises(
        ValueError, match="fast_cell: the bundled few-step weights fit the bundled models only, not cell"
    ):
        small({"cell": "runs/cell", "fast_cell": "bundled"})


def test_few_step_weights_set_what_the_recipe_leaves_open() -> None:
    few = {"fast_cell": "bundled"}
    making = sets._asked(small(few), ARMS[EDITED], (0, 4))[1]
    assert (making.cell.sampler, making.cell.steps, making.cell.fall) == ("lcm", 4, 0.7)
    own = PipelineSettings(cell=EditSettings(fall=0.2, steps=9))
    making = sets._asked(small(few, making=own), ARMS[EDITED], (0, 4))[1]
    assert (making.cell.sampler, making.cell.steps, making.cell.fall) == ("lcm", 4, 0.2)


def test_hard_categories_leave_normal_edits_their_share(tmp_path: Path) -> None:
    place = (0, 4)
    file = sets.hard_file(tmp_path, place)
    file.parent.mkdir(parents=True)
    atomic.write_json(file, {"LSIL": 0.5, "HSIL": 1.5})
    even = {"LSIL": 1.0, "HSIL": 1.0}
    assert sets.hard_weights(tmp_path, place, even)["category_weights"] == {"LSIL": 0.5, "HSIL": 1.5}
    with_normal = sets.hard_weights(tmp_path, place, even | {"NILM": 2.0})["category_weights"]
    assert with_normal == {"LSIL": 0.5, "HSIL": 1.5, "NILM": 2.0}


def test_a_gain_is_the_mean_difference_of_chains_on_shared_resamplings() -> None:
    after, before = outcome(4, 0.5, 0.05, 1), outcome(4, 0.4, 0.05, 2)
    observed, drawn = analysis.paired(after, before, ABNORMAL_AP)
    by_hand = [after[k]["scores"][ABNORMAL_AP] - before[k]["scores"][ABNORMAL_AP] for k in range(4)]
    assert observed == pytest.approx(by_hand)
    assert drawn == pytest.approx(np.repeat(np.array(by_hand)[:, None], 200, axis=1)), "what all share falls out"


def test_one_class_is_all_that_is_not_normal_each_cell_once() -> None:
    cells = [Cell((0, 0, 10, 10), "LSIL", 0.6), Cell((1, 0, 11, 10), "HSIL", 0.9), Cell((50, 0, 60, 10), "NILM", 0.8),
             Cell((80, 0, 90, 10), "SCC", 0.2)]  # fmt: skip
    assert [(cell.category, cell.score) for cell in most_confident(cells)] == [("abnormal", 0.9), ("abnormal", 0.2)]
    assert len(one_class(cells)) == 3


def test_what_a_model_has_seen_may_not_be_held_out(models: dict[str, str], data: Path, tmp_path: Path) -> None:
    run = tmp_path / "runs/cell"
    (run / "weights").mkdir(parents=True)
    (run / "recipe.yaml").write_text("data: [{root: drawn, scale: 0.5, split: train}]\n")
    held = [Source(root="drawn", split="test")]
    leaks.unseen({"cell": str(run)}, held, data)
    known = seen.of_model(str(run), "cell", data)
    assert known is not None
    by_hand = {
        hashlib.sha256((data / "drawn/images" / name).read_bytes()).hexdigest(): f"drawn/{name}"
        for name in ("field_6.png", "field_7.png", "field_8.png")
    }
    assert known == by_hand
    with pytest.raises(UserError, match=r"this cell was trained or chosen on drawn/field_\d.png, which is held out"):
        leaks.unseen({"cell": str(run)}, [Source(root="drawn", split="train")], data)
    alone = tmp_path / "given/cell"
    alone.mkdir(parents=True)
    with pytest.raises(UserError, match="which images this cell was trained on is not known"):
        leaks.unseen({"cell": str(alone)}, held, data)
    assert seen.write(alone / seen.FILE, [known]) == 3
    assert seen.of_model(str(alone), "cell", data) == by_hand
    leaks.unseen({"cell": str(alone), "gate": "nucleus", "foundation": "some/hub-id"}, held, data)
    (alone / seen.FILE).write_text("nonsense\n")
    with pytest.raises(UserError, match="line 1: not a SHA-256"):
        seen.of_model(str(alone), "cell", data)


def test_distilled_weights_have_seen_what_their_teacher_has(data: Path, tmp_path: Path) -> None:
    teacher, few = tmp_path / "cell", tmp_path / "few"
    for run, part, more in ((teacher, "train", ""), (few, "centre", f"kind: distill-cell\ncell: {teacher}\n")):
        (run / "weights").mkdir(parents=True)
        (run / "recipe.yaml").write_text(f"{more}data: [{{root: drawn, scale: 0.5, split: {part}}}]\n")
    known, taught = seen.of_model(str(few), "fast_cell", data), seen.of_model(str(teacher), "cell", data)
    assert known is not None and taught is not None
    assert known.items() >= taught.items() and len(known) == len(taught) + 6
    (teacher / "recipe.yaml").unlink()
    assert seen.of_model(str(few), "fast_cell", data) is None, "a teacher that says nothing"


def test_a_detector_has_seen_what_it_began_from_and_synthetic_images_have(data: Path, tmp_path: Path) -> None:
    first, second, third = (tmp_path / name for name in ("first", "second", "third"))
    more = {first: "", second: f"weights: {first}\n", third: "synthetic: [{root: drawn, split: test}]\n"}
    for run, line in more.items():
        (run / "weights").mkdir(parents=True)
        part = "test" if run == first else "train"
        (run / "recipe.yaml").write_text(f"kind: detector\n{line}data: [{{root: drawn, split: {part}}}]\n")
        with pytest.raises(UserError, match=r"trained or chosen on drawn/field_\d+\.png, which is held out here"):
            leaks.unseen({"detector": str(run)}, [Source(root="drawn", split="test")], data)
    (first / "recipe.yaml").unlink()
    assert seen.of_model(str(second), "detector", data) is None, "it began from one that says nothing"


def test_initial_weights_of_an_arm_must_be_there_and_stay_the_same(
    models: dict[str, str], data: Path, tmp_path: Path
) -> None:
    arms = {REAL: Strategy(kind="none").model_dump(), "begun": {"kind": "none", "weights": "no/such/place"}}
    with pytest.raises(UsageError, match="weights=no/such/place: no detector there; give none, torchvision, imagenet"):
        efficiency.efficiency(small(models, arms=arms), tmp_path / "run", data)
    assert not (tmp_path / "run/recipe.yaml").exists()
    run = tmp_path / "detector"
    shutil.copytree(models["detector"], run / "weights")
    (run / "recipe.yaml").write_text("kind: detector\n")
    known = inputs.begun({"begun": str(run), "R": "", "other": "imagenet"})
    assert list(known) == ["detector that begun begins from"]
    (run / "weights/model.safetensors").write_bytes(b"another")
    other = inputs.begun({"begun": str(run)})
    assert inputs.difference(known, other) == "another detector that begun begins from"
    assert not inputs.difference({}, other), "a run of an earlier version continues"


def test_a_renamed_test_image_is_known_by_its_digest(models: dict[str, str], data: Path, tmp_path: Path) -> None:
    shutil.copytree(data / "drawn", tmp_path / "mine")
    shutil.copytree(data / "drawn", tmp_path / "drawn")
    one = json.loads((tmp_path / "mine/annotations.json").read_text())
    for image in one["images"]:
        path = tmp_path / "mine/images" / image["file_name"]
        image["file_name"] = f"mine_{image['id']}.png"
        path.rename(path.with_name(image["file_name"]))
    atomic.write_json(tmp_path / "mine/annotations.json", one)
    (tmp_path / "mine/split.json").unlink()
    recipe = small(models, real=Source(root="mine", split="all"))
    with pytest.raises(UsageError, match=r"real: mine/mine_\d+.png is the file of drawn/field_\d+.png, a test image"):
        efficiency.efficiency(recipe, tmp_path / "run", tmp_path)
    with pytest.raises(UserError, match="is also a test image"):
        efficiency.prepare(small(models, real=Source(root="drawn", split="all")), tmp_path / "run", tmp_path)


def test_a_pasted_test_cell_is_refused(data: Path, tmp_path: Path) -> None:
    from cytosynth.synthesis.pasting.paste import paste

    paste(Source(root="drawn", split="all"), tmp_path / "pasted", data, count=6)
    with pytest.raises(UserError, match=r"made from .*, a test image"):
        leaks.refuse(tmp_path / "pasted", [Source(root="drawn", split="test")], data)


def test_rounds_take_the_tuning_images_out(data: Path) -> None:
    both = Source(root="drawn", split="centre")
    recipe = small({}, real=both, tuning=both, tuning_images=2)
    out = trials.taken_out(recipe, data)
    assert len(out) == 2
    folder = chains.subset(both, [2, 4], (0, 4), 0, data / "rounds", data, out)
    assert folder.name == "all" and not out & {image.file_name for image in coco.read(folder).images}
    assert trials.taken_out(small({}), data) == frozenset()


def test_hard_categories_weigh_by_what_is_missed() -> None:
    assert sets.hard({"LSIL": 0.8, "HSIL": 0.02}) == {"LSIL": 0.8, "HSIL": 0.1}


def test_the_presets_are_those_of_the_protocol() -> None:
    public = PRESETS["public"]
    assert (public.sizes, public.confirmatory, public.chains, public.real.split) == ([4, 8, 16], 8, 5, "centre")
    assert public.one_class and public.draws == 1000 and public.least == 10
    assert list(public.arms) == list(ARMS) == [REAL, "R + S", EDITED, PASTED, STRONG]
    for recipe in PRESETS.values():
        assert recipe.test.split == "test" != recipe.tuning.split
        assert recipe.training["lr_schedule"] == "constant"
    assert PRESETS["own"].sizes == [142] and PRESETS["own"].margin == 0.02
    assert isinstance(table.FLAT, float)
    few = EfficiencyRecipe.model_validate(PRESETS["few"].model_dump())
    asked = override(public, [
        "sizes=[2]", "seed=2", "confirmatory=2", "candidate=R + S", "making.precision=bf16",
        "models={foundation: bundled, normal: bundled, cell: bundled, detector: bundled, fast_normal: bundled, "
        "fast_cell: bundled}", "making.category_weights={NILM: 4, ASC-US: 1, ASC-H: 1, LSIL: 1, HSIL: 1}",
        "making.min_cells=8", "making.max_cells=12",
        'arms={"R": {"kind": "none", "augmentation": "strong"}, "R + S": {"kind": "fields", "ratio": 24, "share": 0.5, '
        '"augmentation": "strong"}, "R + R2S": {"kind": "edited", "ratio": 8, "share": 0.5, "augmentation": "strong"}, '
        '"R + copy-paste": {"kind": "pasted", "ratio": 8, "share": 0.5, "augmentation": "strong"}}',
    ])  # fmt: skip
    assert few == asked, "the command of the third run"
    assert few.earlier == [], "p-values are of one test set, not of a preset"
    with pytest.raises(UsageError, match="must differ in their letters"):
        override(public, ['arms={"R": {"kind": "none"}, "R ": {"kind": "fields"}}'])
    with pytest.raises(UsageError, match="not an arm of kind 'edited'"):
        override(public, ['arms={"R": {"kind": "none"}, "P": {"kind": "pasted", "like": "X"}}'])


@pytest.mark.parametrize(
    ("options", "said_"),
    [
        (["--on", "test", "--choose"], "decisions are not made on the test images"),
        (["--check-power", "--check-steps"], "cannot be combined"),
        (["--set", "confirmatory=5"], "confirmatory 5: not among the sizes"),
    ],
)
def test_nothing_is_decided_on_the_test_images(options: list[str], said_: str, tmp_path: Path) -> None:
    from typer.testing import CliRunner

    import cytosynth.cli.experiment  # noqa: F401
    from cytosynth.cli import app

    result = CliRunner().invoke(app, ["experiment", "efficiency", str(tmp_path / "run"), *options])
    assert isinstance(result.exception, UsageError) and said_ in str(result.exception)
