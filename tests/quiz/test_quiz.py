"""Reader studies and quizzes: what is shown, what a page gives away, and what answers are worth."""

import base64
import json
import math
import re
import xml.etree.ElementTree as ET
from io import BytesIO
from itertools import combinations, pairwise, permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy.stats import norm
from typer.testing import CliRunner

from browser import TABLET, chromium, screenshot, serious, watched
from conftest import drawn
from cytosynth import cli
from cytosynth.annotations import Cell, DataSet
from cytosynth.annotations import Image as AnnotatedImage
from cytosynth.cli import quiz as commands  # noqa: F401
from cytosynth.data.formats import coco
from cytosynth.errors import UsageError, UserError
from cytosynth.provenance import png
from cytosynth.quiz import agreement, answers, cells, criteria, key, make, matching, report, scoring, signal_detection
from cytosynth.quiz.settings import QuizSettings, check

CLASSES = ("NILM", "LSIL", "HSIL")


def data_set(root: Path, synthetic: bool, count: int = 12) -> Path:
    """Write `count` drawn fields with four cells in each of three classes."""
    (root / "images").mkdir(parents=True)
    fields = []
    for number in range(count):
        pixels, _ = drawn(number + 100 * synthetic, 256, 256)
        boxes = [(x - 20.0, y - 20.0, x + 20.0, y + 20.0) for x in (70, 180) for y in (70, 180)]
        extra: dict[str, Any] = {"synthetic": True} if synthetic else {"votes": {"HSIL": 2, "LSIL": 1}}
        found = tuple(Cell(box, CLASSES[(number + i) % 3], extra=extra) for i, box in enumerate(boxes))
        name = f"{number:02d}.png"
        content = png(pixels, {"origin": "synthetic"}) if synthetic else _png(pixels)
        (root / "images" / name).write_bytes(content)
        fields.append(AnnotatedImage(name, 256, 256, found, {"synthetic": True} if synthetic else {}))
    info = {"synthetic": True} if synthetic else {}
    licences = ({"id": 1, "name": "CC BY 4.0"},)
    coco.write(DataSet(root / "images", tuple(fields), CLASSES, licences, info), root)
    return root


def _png(pixels: np.ndarray) -> bytes:
    buffer = BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("quiz")
    return data_set(root / "originals", False), data_set(root / "made", True)


def settings(**changes: Any) -> QuizSettings:
    values = {"seed": 7, "categories": CLASSES, "per_class": 4, "blocks": 2, "side": 64, **changes}
    return QuizSettings.model_validate(values)


def content(page: Path) -> dict[str, Any]:
    """Return the data in a quiz page."""
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page.read_text(), re.DOTALL)
    assert found
    return json.loads(found[1])


def test_blocks_are_balanced_and_each_reader_has_another_order_of_the_same_cells(sets: Any, tmp_path: Path) -> None:
    made = make.make(tmp_path / "out", settings(mode="origin", readers=2), *sets)
    assert len(made.items) == 3 * 2 * 4
    for block in (1, 2):
        kinds = [(item.category, item.origin) for item in made.items if item.block == block]
        assert sorted(kinds) == sorted([(c, o) for c in CLASSES for o in ("real", "synthetic")] * 2)
    first, second = (content(tmp_path / "out" / "pages" / f"reader-{n}.html")["items"] for n in (1, 2))
    assert [item["block"] for item in first] == [1] * 12 + [2] * 12
    assert [item["id"] for item in first] != [item["id"] for item in second]
    assert {item["id"]: item["image"] for item in first} == {item["id"]: item["image"] for item in second}
    again = make.make(tmp_path / "again", settings(mode="origin", readers=2), *sets)
    assert again == made
    page = "pages/reader-1.html"
    assert (tmp_path / "again" / page).read_bytes() == (tmp_path / "out" / page).read_bytes()


def test_what_is_shown_is_the_square_around_the_cell_in_the_key(sets: Any, tmp_path: Path) -> None:
    made = make.make(tmp_path / "out", settings(), sets[0], None)
    shown = {item["id"]: item["image"] for item in content(tmp_path / "out/pages/quiz.html")["items"]}
    for item in made.items:
        field = np.asarray(Image.open(sets[0] / "images" / item.image).convert("RGB"))
        x, y = (round((item.bbox_xyxy[i] + item.bbox_xyxy[i + 2]) / 2 - 32) for i in (0, 1))
        square = np.asarray(Image.open(BytesIO(base64.b64decode(shown[item.id].partition(",")[2]))))
        assert np.array_equal(square, field[y : y + 64, x : x + 64])


def test_a_study_page_gives_nothing_away(sets: Any, tmp_path: Path) -> None:
    """Neither words, nor sizes, nor metadata, nor ids, nor the order tell what a cell is."""
    made = make.make(tmp_path / "out", settings(mode="origin", per_class=8, blocks=4, seed=123456789), *sets)
    assert sorted(path.name for path in (tmp_path / "out" / "pages").iterdir()) == ["quiz.html"]
    page = (tmp_path / "out/pages/quiz.html").read_text()
    data = content(tmp_path / "out/pages/quiz.html")
    assert all(item.keys() == {"id", "block", "image"} for item in data["items"])
    assert data["criteria"] == {} and str(made.settings.seed) not in json.dumps({**data, "items": []})
    for source in made.sources:
        assert source.digest not in page and '"' + source.name + '"' not in page
    files = [base64.b64decode(item["image"].partition(",")[2]) for item in data["items"]]
    assert len({len(file) for file in files}) == 1  # compressed sizes would tell smooth from sharp
    for file in files:
        assert not Image.open(BytesIO(file)).info and file.count(b"IDAT") >= 1
        assert not any(chunk in file for chunk in (b"tEXt", b"iTXt", b"zTXt", b"eXIf", b"tIME"))
    truth = {item.id: item.origin == "synthetic" for item in made.items}
    for sequence in (sorted(truth), [item["id"] for item in data["items"]]):
        _unordered([truth[name] for name in sequence])


def _unordered(kinds: list[bool]) -> None:
    """Assert that a sequence of two kinds could be a random one: Wald and Wolfowitz' runs, and the mean rank."""
    runs = 1 + sum(a != b for a, b in pairwise(kinds))
    made, real = sum(kinds), len(kinds) - sum(kinds)
    mean = 2 * made * real / len(kinds) + 1
    deviation = math.sqrt((mean - 1) * (mean - 2) / (len(kinds) - 1))
    assert abs(runs - mean) / deviation < 3
    rank = np.mean([index for index, kind in enumerate(kinds) if kind]) - (len(kinds) - 1) / 2
    assert abs(rank) < 3 * math.sqrt(len(kinds) * (len(kinds) + 1) / 12 / made)


def test_matching_brings_size_and_sharpness_together() -> None:
    rng = np.random.default_rng(0)

    def some(origin: Any, low: int, high: int, blur: int) -> list[cells.Candidate]:
        found = []
        for _ in range(24):
            pixels = np.full((64, 64, 3), 235, np.uint8)
            y, x = np.mgrid[:64, :64]
            disc = (x - 32) ** 2 + (y - 32) ** 2 < rng.uniform(low, high) ** 2
            pixels[(x - 32) ** 2 + (y - 32) ** 2 < 27**2] = (150, 205, 200)
            pixels[disc] = (60, 45, 95)
            pixels = np.clip(pixels + rng.normal(0, rng.uniform(1, blur), pixels.shape), 0, 255).astype(np.uint8)
            found.append(cells.Candidate("a", Path("a"), Cell((22, 22, 42, 42), "LSIL"), origin, pixels))
        return found

    real, made = some("real", 5, 11, 4), some("synthetic", 8, 14, 7)
    names = ("size", "sharpness")

    def gap(first: list[cells.Candidate], second: list[cells.Candidate]) -> np.ndarray:
        one, two = matching.measured(first, names), matching.measured(second, names)
        return np.asarray(abs(one.mean(axis=0) - two.mean(axis=0)) / spread)

    spread = matching.measured([*real, *made], names).std(axis=0)
    assert gap(real, made).min() > 0.5
    assert gap(*matching.matched(real, made, 8, names)).max() < 0.35
    first, second = real[:5], made[:5]  # few enough to try all sets of two pairs
    own = matching.measured([*first, *second], names).std(axis=0)
    one, two = (matching.measured(some_cells, names) / own for some_cells in (first, second))
    costs = ((one[:, None] - two[None]) ** 2).sum(axis=2)
    best = min(costs[a, c] + costs[b, d] for a, b in combinations(range(5), 2) for c, d in permutations(range(5), 2))
    pairs = zip(*matching.matched(first, second, 2, names), strict=True)
    place = {id(cell): index for group in (first, second) for index, cell in enumerate(group)}
    assert sum(costs[place[id(a)], place[id(b)]] for a, b in pairs) == pytest.approx(best)
    assert matching.matched(real, made, 8, ()) == (real[:8], made[:8])


@pytest.mark.parametrize(
    ("changes", "real", "made", "said"),
    [
        ({"per_class": 5}, True, True, "multiple of --blocks"),
        ({"mode": "origin"}, True, False, "needs both"),
        ({"match": ("size",)}, True, False, "needs both"),
        ({}, False, False, "no cells"),
        ({"categories": ("LSIL",)}, True, False, "at least two"),
        ({"categories": ("LSIL", "LSIL")}, True, False, "twice"),
    ],
)
def test_settings_that_contradict_each_other(changes: Any, real: bool, made: bool, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        check(settings(**changes), real, made)


def test_a_set_of_the_other_origin_or_with_too_few_cells_is_refused(sets: Any, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="given as --real"):
        make.make(tmp_path / "a", settings(), sets[1], None)
    with pytest.raises(UserError, match="marked as synthetic"):
        make.make(tmp_path / "b", settings(), None, sets[0])
    with pytest.raises(UserError, match=r"16 usable cells of NILM, but --per-class is 40"):
        make.make(tmp_path / "c", settings(per_class=40), sets[0], None)
    with pytest.raises(UserError, match="teaching"):
        make.make(tmp_path / "d", settings(), sets[0], None, with_moodle=True)
    assert list(tmp_path.iterdir()) == []


def test_teaching_pages_hold_answers_criteria_and_the_mark(sets: Any, tmp_path: Path) -> None:
    made = make.make(tmp_path / "out", settings(kind="teaching"), *sets, with_moodle=True)
    data = content(tmp_path / "out/pages/quiz.html")
    assert data["criteria"]["HSIL"] == criteria.said("HSIL")
    truth = {item.id: item for item in made.items}
    for item in data["items"]:
        right = truth[item["id"]]
        assert item["truth"]["answer"] == right.category
        assert item["truth"]["synthetic"] == (right.origin == "synthetic")
        marked = Image.open(BytesIO(base64.b64decode(item["image"].partition(",")[2]))).info
        assert ("trainedAlgorithmicMedia" in str(marked)) == item["truth"]["synthetic"]
        assert item["truth"].get("panel") == (
            None if item["truth"]["synthetic"] else "Of 3 readers of the panel: 2 HSIL, 1 LSIL"
        )
    assert any("Not for diagnosis" in note for note in data["notes"])
    bank = ET.parse(tmp_path / "out/moodle.xml").getroot()
    questions = bank.findall("question[@type='multichoice']")
    assert len(questions) == len(made.items)
    for question in questions:
        item = truth[(question.findtext("name/text") or "").removeprefix("Cell ")]
        full = [a.findtext("text") for a in question.findall("answer") if a.get("fraction") == "100"]
        assert full == [item.category] and len(question.findall("answer")) == 3
        file = question.find("questiontext/file")
        assert file is not None and f"@@PLUGINFILE@@/{file.get('name')}" in (
            question.findtext("questiontext/text") or ""
        )
        assert Image.open(BytesIO(base64.b64decode(file.text or ""))).size == (64, 64)
        assert ("Synthetic image" in (question.findtext("generalfeedback/text") or "")) == (item.origin == "synthetic")


def test_signal_detection_against_known_values() -> None:
    truth, called = [True] * 20 + [False] * 20, [True] * 15 + [False] * 5 + [True] * 6 + [False] * 14
    found = signal_detection.detection(truth, called)
    assert (found.sensitivity, found.specificity) == (0.75, 0.7)
    hit, alarm = norm.ppf(15.5 / 21), norm.ppf(6.5 / 21)
    assert found.d_prime == pytest.approx(hit - alarm) and found.criterion == pytest.approx(-(hit + alarm) / 2)
    assert signal_detection.detection(truth, truth).d_prime == pytest.approx(2 * norm.ppf(20.5 / 21))
    assert signal_detection.detection([True], [True]).d_prime is None
    ratings = [3, 2, 2, 1]
    pairs = [(3 > 2) + 0.5 * (3 == 2), 1, 0.5, 1]  # synthetic 3 and 2 against real 2 and 1
    assert signal_detection.area_under_curve([True, True, False, False], ratings) == pytest.approx(sum(pairs) / 4)


def test_kappas_and_intervals_against_published_examples() -> None:
    # Fleiss' example as it is worked out at https://en.wikipedia.org/wiki/Fleiss%27_kappa: 0.210
    counts = [[0, 0, 0, 0, 14], [0, 2, 6, 4, 2], [0, 0, 3, 5, 6], [0, 3, 9, 2, 0], [2, 2, 8, 1, 1],
              [7, 7, 0, 0, 0], [3, 2, 6, 3, 0], [2, 5, 3, 2, 2], [6, 5, 2, 1, 0], [0, 2, 2, 3, 7]]  # fmt: skip
    rows = [[str(name) for name, count in enumerate(row) for _ in range(count)] for row in counts]
    assert agreement.fleiss(rows) == pytest.approx(0.210, abs=5e-4)
    # Cohen's example as at https://en.wikipedia.org/wiki/Cohen%27s_kappa: 20, 5, 10, 15 of 50: 0.4
    first = ["y"] * 25 + ["n"] * 25
    second = ["y"] * 20 + ["n"] * 5 + ["y"] * 10 + ["n"] * 15
    assert agreement.cohen(first, second) == pytest.approx(0.4)
    assert agreement.cohen(["y"], ["y"]) is None
    # Newcombe (1998), Statistics in Medicine 17:857, table I, method 3: 81/263
    assert agreement.wilson(81, 263)[1:] == pytest.approx((0.2553, 0.3662), abs=1e-4)
    assert agreement.wilson(0, 20)[1:] == pytest.approx((0.0, 0.1611), abs=1e-4)


def answered(made: key.Key, reader: str, right: float, seed: int) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    given = []
    for item in made.items:
        others = [choice for choice in made.choices if choice != made.answer(item)]
        choice = made.answer(item) if rng.random() < right else others[int(rng.integers(len(others)))]
        given.append({"item": item.id, "answer": choice, "confidence": int(rng.integers(1, 5)), "milliseconds": 1500})
    return {"quiz": made.quiz, "reader": reader, "answers": given}


def test_scores_are_what_the_answers_say(sets: Any, tmp_path: Path) -> None:
    made = make.make(tmp_path / "out", settings(mode="origin"), *sets)
    paths = []
    for number, right in enumerate((1.0, 0.6)):
        paths.append(tmp_path / f"{number}.json")
        paths[-1].write_text(json.dumps(answered(made, f"r{number}", right, number)))
    found = answers.readings(paths, made)
    tables = report.write(made, found, tmp_path / "score")
    rows = [dict(zip(tables["readers"].columns, row, strict=True)) for row in tables["readers"].rows]
    assert [row["reader"] for row in rows] == ["r0", "r1", scoring.ALL]
    right = [np.mean([r.answers[i.id].answer == i.origin for i in made.items]) for r in found]
    assert [rows[i]["accuracy"] for i in (0, 1)] == pytest.approx(right)
    assert (
        rows[2]["accuracy"] == pytest.approx(np.mean(right)) and rows[2]["low"] < rows[2]["accuracy"] < rows[2]["high"]
    )
    assert rows[0]["sensitivity"] == rows[0]["specificity"] == rows[0]["auc"] == 1
    confusion = {row[:2]: row[3:] for row in tables["confusion"].rows}
    assert sum(sum(row) for row in confusion.values()) == 2 * len(made.items)
    kappa = tables["agreement"].rows[0]
    shared = [[r.answers[i.id].answer for i in made.items] for r in found]
    assert kappa[3:] == (len(made.items), pytest.approx(agreement.cohen(*shared)))
    said = (tmp_path / "score/report.md").read_text()
    assert "2 readers answered whether the cell was real or synthetic" in said and "Hautus" not in said
    assert {path.name for path in (tmp_path / "score").iterdir()} >= {"score.png", "readers.csv", "report.md"}


def test_csv_scores_as_json_does_and_what_is_missing_is_counted(sets: Any, tmp_path: Path) -> None:
    made = make.make(tmp_path / "out", settings(), *sets)
    given = answered(made, 'a "b", c', 0.5, 3)
    given["answers"] = given["answers"][3:]
    (tmp_path / "a.json").write_text(json.dumps(given))
    lines = ["quiz,reader,item,answer,confidence,milliseconds"]
    for one in given["answers"]:
        lines.append(
            f'{made.quiz},"a ""b"", c",{one["item"]},{one["answer"]},{one["confidence"]},{one["milliseconds"]}'
        )
    (tmp_path / "a.csv").write_text("\n".join(lines) + "\n")
    first, second = (answers.read(tmp_path / name, made) for name in ("a.json", "a.csv"))
    assert first == second and first.reader == 'a "b", c'
    row = scoring.readers(made, [first]).rows[0]
    assert row[1:3] == (len(made.items) - 3, 3)
    origins = scoring.origins(made, [first])
    assert origins is not None and origins.rows[2][1] == pytest.approx(origins.rows[1][1] - origins.rows[0][1])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"quiz": "other"}, "answers to quiz 'other'"),
        ({"reader": " "}, "'reader'"),
        ({"answers": [{"item": "9999"}]}, "answer None"),
        ({"answers": [{"item": "9999", "answer": "LSIL", "confidence": 1, "milliseconds": 1}]}, "no item '9999'"),
        ({"answers": [{"item": "0001", "answer": "SCC", "confidence": 1, "milliseconds": 1}]}, "the choices are"),
        ({"answers": [{"item": "0001", "answer": "LSIL", "confidence": 5, "milliseconds": 1}]}, "from 1 to 4"),
        ({"answers": [{"item": "0001", "answer": "LSIL", "confidence": True, "milliseconds": 1}]}, "whole number"),
        ({"answers": [{"item": "0001", "answer": "LSIL", "confidence": 1, "milliseconds": 1}] * 2}, "answered twice"),
        ({"answers": []}, "no answer"),
        ({"answers": "x"}, "the list 'answers'"),
    ],
)
def test_answers_that_do_not_fit_are_named(sets: Any, tmp_path: Path, change: Any, said: str) -> None:
    made = make.make(tmp_path / "out", settings(), sets[0], None)
    (tmp_path / "a.json").write_text(json.dumps({**answered(made, "r", 1, 0), **change}))
    with pytest.raises(UserError, match=said):
        answers.read(tmp_path / "a.json", made)


@pytest.mark.slow
def test_a_study_in_a_browser_by_keyboard_scored_by_the_command(sets: Any, tmp_path: Path) -> None:
    out = tmp_path / "out"
    runner = CliRunner()
    options = ["--mode", "origin", "--per-class", "2", "--side", "64", "--seed", "3", "--categories", ",".join(CLASSES)]
    done = runner.invoke(
        cli.app, ["quiz", "make", str(out), "--real", str(sets[0]), "--synthetic", str(sets[1]), *options]
    )
    assert done.exit_code == 0, done.output
    made = key.read(out)
    truth = {item.id: item.origin for item in made.items}
    address = (out / "pages" / "quiz.html").as_uri()
    with chromium() as browser:
        page, asked, errors = watched(browser, accept_downloads=True)
        page.goto(address)
        assert serious(page) == []
        page.keyboard.type("reader one")
        page.keyboard.press("Enter")
        for number, item in enumerate(content(out / "pages" / "quiz.html")["items"]):
            if number == len(truth) // 2:
                page.get_by_text("is finished").wait_for()
                page.keyboard.press("Enter")
            page.locator("legend", has_text="real or synthetic").wait_for()
            page.wait_for_function("() => !document.querySelector('.choices button').disabled")
            if number == 1:
                assert serious(page) == []
                screenshot(page, "quiz_study")
                page.keyboard.press("1")  # taken back, so that the clock goes on
                page.keyboard.press("Escape")
            if number == 2:  # closing the page loses nothing
                page.reload()
                page.get_by_role("button", name="Continue at cell 3").click()
                page.wait_for_function("() => !document.querySelector('.choices button')?.disabled")
            page.keyboard.press("1" if truth[item["id"]] == "real" else "2")
            page.keyboard.press(str(1 + number % 4))
        page.get_by_text("Finished").wait_for()
        for name, button in (("a.json", "Save the answers"), ("a.csv", "Save as CSV")):
            with page.expect_download() as saved:
                page.get_by_role("button", name=button).click()
            saved.value.save_as(tmp_path / name)
        assert errors == [] and {url for url in asked if not url.startswith("data:")} == {address}
    assert answers.read(tmp_path / "a.json", made) == answers.read(tmp_path / "a.csv", made)
    assert all(0 < one.milliseconds < 20_000 for one in answers.read(tmp_path / "a.json", made).answers.values())
    done = runner.invoke(
        cli.app, ["quiz", "score", str(out / "key.json"), str(tmp_path / "a.json"), "--output", str(tmp_path / "score")]
    )
    assert done.exit_code == 0, done.output
    row = json.loads((tmp_path / "score" / "readers.json").read_text())["rows"][0]
    assert row["reader"] == "reader one" and row["accuracy"] == 1 and row["missing"] == 0


@pytest.mark.slow
def test_a_teaching_page_in_a_browser(sets: Any, tmp_path: Path) -> None:
    make.make(tmp_path / "out", settings(kind="teaching", per_class=2, side=64), *sets)
    page_file = tmp_path / "out/pages/quiz.html"
    items = content(page_file)["items"]
    with chromium() as browser:
        page, _, errors = watched(browser, viewport=TABLET)
        page.goto(page_file.as_uri())
        page.keyboard.type("t")
        page.keyboard.press("Enter")
        page.wait_for_function("() => !document.querySelector('.choices button')?.disabled")
        wrong = 1 + (CLASSES.index(items[0]["truth"]["answer"]) + 1) % 3
        page.keyboard.press(str(wrong))
        page.keyboard.press("2")
        assert items[0]["truth"]["answer"] in page.locator(".verdict").inner_text()
        assert page.locator(".mark").count() == int(items[0]["truth"]["synthetic"])
        assert serious(page) == []
        screenshot(page, "quiz_teaching")
        page.keyboard.press("Enter")
        page.locator("legend").wait_for()
        assert "Cell 2 of" in page.locator(".side").inner_text() and errors == []
