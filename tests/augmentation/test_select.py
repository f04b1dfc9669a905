"""`select`: what is ranked first, when adding stops, and that nothing held out is looked at."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from candidate_sets import MODELS, selecting, small, write_candidates, write_synthetic
from conftest import CATEGORIES
from cytosynth.annotations import Cell, Image
from cytosynth.augmentation import leaks
from cytosynth.augmentation.gains import Runs
from cytosynth.augmentation.select import candidates, ranking, real_parts, rule, select, subset, sweep, uncertainty
from cytosynth.augmentation.select.recipe import PRESETS
from cytosynth.cli import app
from cytosynth.config import override
from cytosynth.data.check import check
from cytosynth.data.formats import coco
from cytosynth.data.sources import Source
from cytosynth.errors import UsageError, UserError
from cytosynth.evaluate.distance import neighbourhood
from cytosynth.io import atomic, plain
from cytosynth.provenance import NOTICES, said, write_records


@pytest.fixture(scope="module")
def data(fields: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_candidates(fields, tmp_path_factory.mktemp("select"))


def everything(root: Path, *names: str) -> list[candidates.SyntheticSet]:
    """Write all candidates of the sets `names` of `root` as `root/out`, in their order; return the sets."""
    sets = candidates.gather(small(synthetic=list(names)), [], root)
    chosen = [ranking.Ranked(one, 0.5, 1.0, 0.5) for one in candidates.candidates(sets, CATEGORIES[1:])]
    subset.write(root / "out", chosen, sets, ["as they came"], {})
    return sets


@pytest.mark.parametrize(
    "wrong",
    [
        {"original": ["x"]}, {"origin": "foo"}, {"origin": ["x"]}, {"models": ["x"]}, {"models": {"cell": []}},
        {"original": "a.png", "original_sha256": 3},
    ],
)  # fmt: skip
def test_untrusted_records_do_not_stop_a_subset(wrong: dict[str, object], tmp_path: Path) -> None:
    write_synthetic(tmp_path / "made", 3, 100)
    write_records(tmp_path / "made", [record | wrong for record in said(tmp_path / "made").values()])
    sets = everything(tmp_path, "made")
    assert all(one.original in (None, "a.png") for one in candidates.candidates(sets, CATEGORIES))
    assert check(tmp_path / "out") == []
    origin = "other" if "origin" in wrong else "synthetic"
    assert {record["origin"] for record in said(tmp_path / "out").values()} == {origin}
    assert NOTICES[origin] in (tmp_path / "out/README.md").read_text()


@pytest.mark.parametrize("licence", [[], {}, 7, "1", None])
def test_untrusted_annotations_do_not_stop_a_subset(licence: object, tmp_path: Path) -> None:
    write_synthetic(tmp_path / "made", 2, 100)
    content = json.loads((tmp_path / "made/annotations.json").read_text())
    content["info"]["derived_from"] = "x"
    content["images"][0]["license"] = licence
    atomic.write_json(tmp_path / "made/annotations.json", content)
    everything(tmp_path, "made")
    assert check(tmp_path / "out") == []
    assert "derived_from" not in coco.read(tmp_path / "out").info


def test_folders_of_any_name_can_be_chosen_from(tmp_path: Path) -> None:
    names = [os.fsdecode(b"caf\xe9"), "a:b\\c"]
    for number, name in enumerate(names):
        write_synthetic(tmp_path / name, 2, 100 * number)
    everything(tmp_path, *names)
    assert check(tmp_path / "out") == []
    assert set(said(tmp_path / "out")) == {"caf_udce9_000000.png", "a_b_c_000000.png"}


def test_no_image_of_a_subset_takes_the_place_of_another(tmp_path: Path) -> None:
    sources = {"a": ["b.png", "b/c.png", "b_c.png", "x" * 190 + ".png"], "a_b": ["c.png", "d.jpg"]}
    for number, (folder, names) in enumerate(sources.items()):
        write_synthetic(tmp_path / folder, len(names) + 1, 100 * number)
        content = json.loads((tmp_path / folder / "annotations.json").read_text())
        records = said(tmp_path / folder)
        for image, name in zip(content["images"], names, strict=False):
            (tmp_path / folder / "images" / name).parent.mkdir(exist_ok=True)
            (tmp_path / folder / "images" / image["file_name"]).rename(tmp_path / folder / "images" / name)
            records[image["file_name"]]["file_name"] = name
            image["file_name"] = name
        atomic.write_json(tmp_path / folder / "annotations.json", content)
        write_records(tmp_path / folder, records.values())
    sets = everything(tmp_path, *sources)
    assert check(tmp_path / "out") == []
    chosen, records = coco.read(tmp_path / "out"), said(tmp_path / "out")
    names = [image.file_name for image in chosen.images]
    assert names[:3] + names[4:] == ["a_b.png", "a_b_c.png", "_a_b_c.png", "__a_b_c.png", "a_b_d.jpg"]
    assert sorted(names) == sorted(path.name for path in (tmp_path / "out/images").iterdir()) == sorted(records)
    for one, image in zip(candidates.candidates(sets, CATEGORIES[1:]), chosen.images, strict=True):
        assert (tmp_path / "out/images" / image.file_name).read_bytes() == one.path.read_bytes()
        assert [cell.box for cell in image.cells] == [cell.box for cell in one.image.cells]
        told = records[image.file_name]["chosen"]
        assert (told["set"], told["file_name"]) == (one.label, one.image.file_name)


def test_a_cell_is_uncertain_when_missed_misclassified_or_nearly_so() -> None:
    annotated = [Cell((x, 0, x + 40, 40), "LSIL") for x in (0, 100, 200, 300, 400)]
    annotated.append(Cell((500, 0, 540, 40), "NILM"))  # of no category that counts
    found = [
        Cell((1, 1, 41, 41), "LSIL", 0.9),  # the first: found
        Cell((0, 2, 40, 42), "LSIL", 0.3),
        Cell((102, 0, 142, 40), "LSIL", 0.6),  # the second: found, nearly HSIL
        Cell((100, 0, 140, 40), "HSIL", 0.5),
        Cell((200, 0, 240, 40), "HSIL", 0.8),  # the third: mistaken
        Cell((330, 0, 370, 40), "LSIL", 0.9),  # the fourth: beside it; the fifth: missed
    ]
    unsure = uncertainty.of_cells(annotated, found, ["LSIL", "HSIL"])
    assert unsure == pytest.approx([0.1, 0.9, 1.0, 1.0, 1.0])
    assert uncertainty.of_cells(annotated[:1], [], ["LSIL"]) == [1.0]


def test_a_kept_uncertainty_that_cannot_be_ours_is_measured_anew(tmp_path: Path) -> None:
    lines = [
        "{}", "[]", "7", '{"image": "a", "uncertainty": NaN}', '{"image": ["b"], "uncertainty": 1}', '{"image": "c"}',
        '{"image": "d", "uncertainty": 0.25}', '{"image": "e", "uncertainty": 7}', '{"image": "f", "unc',
    ]  # fmt: skip
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    assert uncertainty.kept(tmp_path / "a.jsonl") == {"d": 0.25}


def test_distances_are_to_the_nearest_windows_of_other_images() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(7, 5)), rng.normal(size=(11, 5))
    groups_a, groups_b = ["x", "", "y", "", "x", "y", ""], list("xxxyyyzzzzz")
    found = neighbourhood(a, b, 3, groups_a, groups_b)
    for row, own, value in zip(a, groups_a, found, strict=True):
        others = [np.linalg.norm(row - b[j]) for j in range(11) if groups_b[j] != own]
        assert value == pytest.approx(np.mean(sorted(others)[:3]))
    with pytest.raises(UserError, match="fewer than 7 real windows"):
        neighbourhood(a, b, 7, ["z"] * 7, groups_b)


def test_the_ranking_prefers_the_uncertain_and_near() -> None:
    def one(name: str) -> candidates.Candidate:
        return candidates.Candidate("s", Path(name), Image(name, 8, 8))

    # b and d are alike in both; e has the lowest uncertainty, and is far off
    given = [one(name) for name in "abcde"]
    unsure, far = np.array([0.9, 0.5, 0.7, 0.5, 0.1]), np.array([9.0, 2.0, 1.0, 2.0, 500.0])

    def order(weight: float) -> str:
        return "".join(r.candidate.image.file_name for r in ranking.rank(given, unsure, far, weight))

    assert order(1) == "acbde"
    assert order(0) == "cbdae"
    assert order(0.5) == "cabde"  # merits .875, .625, .5, .5, 0
    merits = [round(r.merit, 3) for r in ranking.rank(given, unsure, far, 0.5)]
    assert merits == [0.875, 0.625, 0.5, 0.5, 0.0]
    assert np.array_equal(ranking.merits(unsure, far * 7, 0.5), ranking.merits(unsure**3, far, 0.5))


def runs(level: float, spread: float = 0.002) -> Runs:
    own = [level - spread, level, level + spread]
    return Runs([{"scores": {"mAP": v}, "drawn": {"mAP": [v, v + 0.001, v - 0.001]}} for v in own], {"LSIL": 50})


def walked(levels: dict[float, float], patience: int = 1, spread: float = 0.002) -> tuple[list[rule.Step], float, list]:
    asked: list[float] = []

    def found(ratio: float) -> Runs:
        asked.append(ratio)
        return runs(levels[ratio], spread)

    steps, best = rule.walk([ratio for ratio in levels if ratio], found, "mAP", patience)
    return steps, best, list(dict.fromkeys(asked))


def test_adding_stops_where_a_further_gain_is_not_significant() -> None:
    steps, best, asked = walked({0: 0.2, 0.25: 0.25, 0.5: 0.30, 1: 0.301, 2: 0.5})
    assert best == 0.5
    assert asked == [0, 0.25, 0.5, 1], "nothing is trained beyond the first ratio that adds nothing"
    assert [step.before for step in steps] == [0, 0.25, 0.5]
    assert [step.significant for step in steps] == [True, True, False]
    assert steps[2].gain.value == pytest.approx(0.101) and steps[2].gain.low > 0, "sure over real images alone, and yet"
    assert steps[2].further.value == pytest.approx(0.001)


def test_nothing_is_chosen_where_the_first_gain_holds_zero() -> None:
    for levels in ({0: 0.2, 0.25: 0.201, 0.5: 0.9}, {0: 0.2, 0.25: 0.1, 0.5: 0.9}, {0: 0.0, 0.25: 0.0}):
        steps, best, asked = walked(levels)
        assert best == 0 and asked == [0, 0.25]
        assert not steps[0].significant
    unsure, best, _ = walked({0: 0.2, 0.25: 0.25}, spread=0.1)
    assert best == 0 and unsure[0].further.low < 0 < unsure[0].further.high


def test_more_patience_looks_further() -> None:
    _, best, asked = walked({0: 0.2, 0.25: 0.201, 0.5: 0.3, 1: 0.3, 2: 0.3, 4: 0.9}, patience=2)
    assert best == 0.5 and asked == [0, 0.25, 0.5, 1, 2]
    _, best, asked = walked({0: 0.2, 0.25: 0.3, 0.5: 0.4})
    assert best == 0.5 and asked == [0, 0.25, 0.5]


def test_the_test_part_is_refused(data: Path) -> None:
    for recipe in PRESETS.values():
        assert recipe.validation.split == "val" and all(source.split == "train" for source in recipe.real)
        for setting in ("validation.split=test", "real=[{root: a, split: test}]"):
            with pytest.raises(UsageError, match="test part is only for reporting"):
                override(recipe, [setting])
    with pytest.raises(UsageError, match=r"field_4.png of .*drawn is also a val image"):
        real_parts.check(small(real=[{"root": "drawn", "split": "all"}]), data)
    with pytest.raises(UsageError, match=r"field_5.png of .*drawn is also a test image"):
        real_parts.check(
            small(validation={"root": "drawn", "split": "all"}, real=[{"root": "made", "split": "all"}]), data
        )
    assert real_parts.check(small(), data) == 4
    with pytest.raises(UserError, match="no cell of SCC in part 'val'"):
        real_parts.check(small(categories=["SCC"]), data)
    assert {source.split for source in real_parts.held(small(), data)} == {"val", "test"}


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ("ratios=[1, 0.5]", "above 0 and ascending"),
        ("seeds=[0, 1]", "seeds"),
        ("seeds=[0, 1, 1]", "must be different"),
        ("measure=LSIM", "unknown measure 'LSIM'"),
        ("extractor=vgg", "unknown feature network 'vgg'"),
    ],
)
def test_recipes_that_cannot_be_are_refused(change: str, complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint):
        override(PRESETS["bundled"], [change])


@pytest.mark.parametrize(("original", "part"), [("field_4.png", "val"), ("field_5.png", "test")])
def test_a_synthetic_image_of_a_held_out_one_is_refused(data: Path, tmp_path: Path, original: str, part: str) -> None:
    write_synthetic(tmp_path / "leak", 2, 300, original)
    run = tmp_path / "run"
    with pytest.raises(UserError, match=f"made from {original}, a {part} image"):
        select.select(small(synthetic=[str(tmp_path / "leak")]), run, data)
    assert not run.exists(), "a mistake pins nothing"


def test_initial_weights_must_not_have_seen_a_test_image(
    data: Path, tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    begun, run = tmp_path / "begun", tmp_path / "run"
    shutil.copytree(tiny / "detector", begun / "weights")
    recipe = small(training=small().training | {"weights": str(begun / "weights")})
    with pytest.raises(UserError, match="which images this detector was trained on is not known"):
        select.select(recipe, run, data)
    (begun / "recipe.yaml").write_text("kind: detector\ndata: [{root: drawn, split: all}]\n")
    with pytest.raises(UserError, match=r"trained or chosen on drawn/field_5.png, which is held out here"):
        select.select(recipe, run, data)
    with pytest.raises(UsageError, match="weights=nowhere: no detector there"):
        select.select(small(training={"weights": "nowhere"}), run, data)
    assert not run.exists(), "a mistake pins nothing"
    (begun / "recipe.yaml").write_text("kind: detector\ndata: [{root: drawn, split: train}]\n")
    capsys.readouterr()
    real_parts.check_weights(recipe, data)
    assert "trained or chosen on 1 validation image (drawn/field_4.png): scores there" in capsys.readouterr().err
    real_parts.check_weights(small(), data)
    real_parts.check_weights(recipe.model_copy(update={"command": "python a.py {train} {images} {results}"}), data)
    assert capsys.readouterr().err == ""


def test_a_run_is_not_continued_from_another_detector(data: Path, tiny: Path, tmp_path: Path) -> None:
    begun, run = tmp_path / "begun", tmp_path / "run"
    shutil.copytree(tiny / "detector", begun / "weights")
    (begun / "recipe.yaml").write_text("kind: detector\ndata: [{root: drawn, split: train}]\n")
    recipe = small(training=small().training | {"weights": str(begun)}, ratios=[0.25])
    select.anyway(recipe, run, data, 0.25)
    weights = load_file(begun / "weights/model.safetensors")
    save_file({name: value + 1 for name, value in weights.items()}, begun / "weights/model.safetensors")
    with pytest.raises(
        UsageError, match=r"inputs.json: this run was started with another detector that every training"
    ):
        select.anyway(recipe, run, data, 0.25)


def test_a_detector_of_other_cells_is_refused(data: Path, tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="this detector does not know ASC-US, ASC-H, LSIL, HSIL"):
        select.select(small(detector=str(tiny / "detector")), tmp_path / "run", data)
    assert not (tmp_path / "run").exists()


def test_names_in_folders_are_distinguished(tmp_path: Path) -> None:
    write_synthetic(tmp_path / "real/val", 1, 0)
    held = plain.load(tmp_path / "real/val/annotations.json")
    held["images"][0]["file_name"] = "slide 1/a.png"
    atomic.write_json(tmp_path / "real/val/annotations.json", held)
    source = Source(root="real/val", split="all")
    for original, leaking in (("slide 1/a.png", True), ("a.png", True), ("slide 2/a.png", False), ("b.png", False)):
        shutil.rmtree(tmp_path / "set", ignore_errors=True)
        write_synthetic(tmp_path / "set", 1, 0, original)
        if leaking:
            with pytest.raises(UserError, match="made from"):
                leaks.refuse(tmp_path / "set", [source], tmp_path)
        else:
            leaks.refuse(tmp_path / "set", [source], tmp_path)


def test_random_choices_differ_by_seed_and_stay() -> None:
    given = [candidates.Candidate("s", Path(str(n)), Image(f"{n}", 8, 8)) for n in range(40)]
    first, second = sweep.at_random(given, 10, 0), sweep.at_random(given, 10, 1)
    assert first == sweep.at_random(given, 10, 0) != second
    assert len({one.key for one in first}) == 10


@pytest.fixture(scope="module")
def nothing(data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, select.Choice]:
    """A run in which no ratio helps: detectors of one step find nothing, with or without synthetic images."""
    run = tmp_path_factory.mktemp("nothing")
    return run, select.select(small(), run, data)


def test_where_nothing_helps_nothing_is_written(nothing: tuple[Path, select.Choice]) -> None:
    run, choice = nothing
    assert choice.folder is None and not (run / "subset").exists()
    assert choice.verdict.startswith("Choose nothing: no significant gain of mAP")
    assert sorted(path.name for path in (run / "trainings").iterdir()) == ["ratio-0.25", "real"]
    said = json.loads((run / "select.json").read_text())
    assert [row["training data"] for row in said["rows"]] == ["real alone", "0.25 x, ranked"]
    assert said["rows"][1]["verdict"] == "no evidence" and said["verdict"] == choice.verdict
    assert said["candidates"] == 4, "images without an abnormal cell teach nothing"
    assert any("too few synthetic images for 4 x" in note for note in said["notes"])
    assert (run / "curve.png").read_bytes().startswith(b"\x89PNG")
    lines = (run / "ranking.csv").read_text().splitlines()
    assert len(lines) == 5 and lines[0] == "rank,set,image,uncertainty,distance,merit,cells"
    merits = [float(line.split(",")[5]) for line in lines[1:]]
    assert merits == sorted(merits, reverse=True)
    assert {line.split(",")[1] for line in lines[1:]} == {"made", "made-2"}


@pytest.fixture(scope="module")
def helped(nothing: tuple[Path, select.Choice], data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same run as if a quarter had helped: its scores are made up, all else is not."""
    run = tmp_path_factory.mktemp("helped") / "run"
    shutil.copytree(nothing[0], run)
    for seed in (0, 1, 2):
        path = run / f"trainings/ratio-0.25/seed-{seed}/result.json"
        result = json.loads(path.read_text())
        result["scores"] = dict.fromkeys(result["scores"], 0.3 + 0.001 * seed)
        result["drawn"] = {name: [0.3, 0.31] * 5 for name in result["drawn"]}
        atomic.write_json(path, result)
    choice = select.select(small(), run, data)
    assert choice.folder == run / "subset"
    assert (
        choice.verdict.startswith("Choose 1 image (0.25 x the real ones)")
        and "0.5 x adds no significant" in choice.verdict
    )
    return run


def test_what_is_chosen_is_a_data_set_that_says_how(helped: Path, data: Path) -> None:
    subset = helped / "subset"
    assert check(subset) == []
    first = (helped / "ranking.csv").read_text().splitlines()[1].split(",")
    ((name, record),) = said(subset).items()
    assert name == f"{first[1]}_{first[2]}" and record["models"] == MODELS
    assert record["chosen"] == {
        "rank": 1, "set": first[1], "file_name": first[2], "uncertainty": float(first[3]),
        "distance": float(first[4]), "merit": float(first[5]),
    }  # fmt: skip
    folder = data / ("made" if first[1] == "made" else "other/made")
    assert (subset / "images" / name).read_bytes() == (folder / "images" / first[2]).read_bytes()
    image = coco.read(subset).images[0]
    original = next(p for p in coco.read(folder).images if p.file_name == first[2])
    assert image.extra["license"] == 1 and image.extra["synthetic"]
    assert [(c.box, c.category) for c in image.cells] == [(c.box, c.category) for c in original.cells]
    card = (subset / "README.md").read_text()
    for words in ("Synthetic cervical cytology", "How these images were chosen", "Choose 1 image",
                 "part 'val' of drawn", "CC BY 4.0", "| cell | bundled | 0123 |"):  # fmt: skip
        assert words in card, words


def test_as_many_at_random_are_trained_as_ranked(helped: Path) -> None:
    rows = json.loads((helped / "select.json").read_text())["rows"]
    assert [row["training data"] for row in rows] == [
        "real alone", "0.25 x, ranked", "0.25 x, at random", "0.5 x, ranked",
    ]  # fmt: skip
    assert rows[2]["compared with"] == "0.25 x, ranked" and rows[2]["verdict"] == "hurts"
    assert "ranked images are better than as many at random" in (helped / "select.md").read_text()
    added = [
        json.loads((helped / f"trainings/random-0.25/seed-{s}/result.json").read_text())["added"] for s in (0, 1, 2)
    ]
    assert all(len(one) == 1 for one in added) and len({tuple(one) for one in added}) > 1


@pytest.mark.parametrize(("control", "rows"), [("every", ["0.25 x, at random", "0.5 x, at random"]), ("none", [])])
def test_random_images_at_every_ratio_or_none(
    helped: Path, data: Path, tmp_path: Path, control: str, rows: list[str]
) -> None:  # fmt: skip
    run = tmp_path / "run"
    shutil.copytree(helped, run)
    shutil.copytree(run / "trainings/random-0.25", run / "trainings/random-0.5")
    recipe = (run / "recipe.yaml").read_text().replace("control: chosen", f"control: {control}")
    (run / "recipe.yaml").write_text(recipe)
    choice = select.select(small(control=control), run, data)
    assert [row[0] for row in choice.report.rows if "random" in row[0]] == rows
    assert ("at random" in (run / "subset/README.md").read_text()) == bool(rows)


@pytest.mark.parametrize("damage", ["cut", "{}", "[]", "short", "text", "NaN", "no failures"])
@pytest.mark.promise("Hostile or broken input")
def test_a_damaged_result_ends_in_a_line_and_is_made_anew_where_it_is_deleted(
    damage: str, nothing: tuple[Path, select.Choice], data: Path, tmp_path: Path
) -> None:
    shutil.copytree(nothing[0], tmp_path / "run")
    path = tmp_path / "run/trainings/real/seed-1/result.json"
    whole = path.read_bytes()
    said = json.loads(whole)
    damaged = {
        "cut": whole.decode()[:40], "short": said | {"drawn": said["drawn"] | {"mAP": [0.5]}},
        "text": said | {"scores": said["scores"] | {"mAP": "high"}}, "no failures": said | {"failures": {}},
        "NaN": said | {"scores": said["scores"] | {"mAP": float("nan")}},
    }.get(damage, damage)  # fmt: skip
    path.write_text(damaged if isinstance(damaged, str) else json.dumps(damaged))
    with pytest.raises(UserError, match=r"real/seed-1/result.json: damaged.*; delete .*result.json, the same command"):
        select.select(small(), tmp_path / "run", data)
    if damage == "cut":
        path.unlink()
        select.select(small(), tmp_path / "run", data)
        assert path.read_bytes() == whole


def test_it_continues_and_ends_at_the_same_bytes(helped: Path, data: Path) -> None:
    def content() -> dict[str, bytes]:
        kept = [path for path in helped.rglob("*") if path.is_file() and "trainings" not in path.parts]
        results = helped.glob("trainings/*/*/result.json")
        return {str(path.relative_to(helped)): path.read_bytes() for path in (*kept, *results)}

    before = content()
    untouched = (helped / "trainings/real/seed-0/result.json").stat().st_mtime_ns
    shutil.rmtree(helped / "trainings/random-0.25/seed-1")
    shutil.rmtree(helped / "subset")
    shutil.rmtree(helped / "features")
    lines = (helped / "uncertainty.jsonl").read_text()
    (helped / "uncertainty.jsonl").write_text(lines[: len(lines) - 20])  # a kill cut the last line short
    for name in ("select.md", "curve.png", "ranking.csv"):
        (helped / name).unlink()
    select.select(small(), helped, data)
    after = content()
    known = [name for name in before if name != "uncertainty.jsonl"]
    assert {name: after[name] for name in known} == {name: before[name] for name in known}
    assert (helped / "trainings/real/seed-0/result.json").stat().st_mtime_ns == untouched


def test_another_recipe_or_other_images_are_another_run(helped: Path, data: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="started with patience=1, now 2"):
        select.select(small(patience=2), helped, data)
    root = tmp_path / "data"
    shutil.copytree(data, root)
    shutil.rmtree(root / "made")
    write_synthetic(root / "made", 4, 400)
    (root / "made" / "provenance.jsonl").unlink()
    with pytest.raises(UsageError, match="was started with another set made"):
        select.select(small(), helped, root)


def test_anyway_takes_by_rank_without_asking(nothing: tuple[Path, select.Choice], data: Path) -> None:
    run, _ = nothing
    choice = select.anyway(small(), run, data, 0.75)
    assert choice.folder == run / "anyway-0.75" and check(choice.folder) == []
    ranks = [line.split(",")[1:3] for line in (run / "ranking.csv").read_text().splitlines()[1:4]]
    records = [record["chosen"] for record in said(choice.folder).values()]
    assert sorted((r["rank"], r["set"], r["file_name"]) for r in records) == [
        (number, *names) for number, names in enumerate(ranks, 1)
    ]
    assert "whether they help was not tested" in (choice.folder / "README.md").read_text()
    assert not (run / "trainings/ratio-0.5").exists()
    with pytest.raises(UsageError, match="needs 5 images, but only 4 have cells"):
        select.anyway(small(), run, data, 1.25)


def test_the_command_says_in_words_that_nothing_helps(nothing: tuple[Path, select.Choice], data: Path) -> None:
    from typer.testing import CliRunner

    from cytosynth.cli import select as subcommand  # noqa: F401

    command = selecting(nothing[0], data)
    said = CliRunner().invoke(app, command)
    assert said.exit_code == 0, said.output
    assert "Choose nothing: no significant gain" in said.output
    refused = CliRunner().invoke(app, [*command, "--set", "validation.split=test"])
    assert isinstance(refused.exception, UsageError)
