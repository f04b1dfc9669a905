"""Robustness of detectors, detectors of other programs, the reader of the RIVA benchmark."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PILImage

from cytosynth.annotations import Cell, DataSet, Image
from cytosynth.data import convert, split
from cytosynth.data.formats import coco, riva
from cytosynth.data.preview import save_png
from cytosynth.data.sources import Source
from cytosynth.detection import external, results
from cytosynth.errors import FormatProblem, UsageError, UserError
from cytosynth.evaluate.detection.recall import FreeResponse, by_centre, by_overlap
from cytosynth.robustness import card
from cytosynth.robustness.benchmark import benchmark
from cytosynth.robustness.export import export_all
from cytosynth.robustness.measures import flips
from cytosynth.robustness.recipe import RobustnessRecipe
from cytosynth.robustness.summary import Trainings

BLOBS = """
import json, sys
import numpy as np
from PIL import Image
from scipy import ndimage
folder, annotations, results = sys.argv[1:4]
content, found = json.load(open(annotations)), []
for image in content["images"]:
    grey = np.asarray(Image.open(f"{folder}/{image['file_name']}").convert("L")).astype(float)
    labels, count = ndimage.label(ndimage.gaussian_filter(grey, 1) < 120)
    for rows, columns in ndimage.find_objects(labels):
        x, y, w, h = columns.start, rows.start, columns.stop - columns.start, rows.stop - rows.start
        if min(w, h) > 5:
            score = float(np.clip(1 - grey[rows, columns].mean() / 255, 0, 1))
            found.append({"image_id": image["file_name"], "category_id": 1, "bbox": [x, y, w, h], "score": score})
json.dump(found, open(results, "w"))
"""


def data_set(folder: Path, count: int = 4, side: int = 128, seed: int = 0) -> DataSet:
    """Write fields with dark discs on bright glass, each a NILM cell."""
    rng, images = np.random.default_rng(seed), []
    for number in range(count):
        pixels = np.full((side, side, 3), 235, dtype=np.uint8)
        y, x = np.mgrid[:side, :side]
        cells = []
        for cx, cy in ((30, 30), (90, 40), (50, 95)):
            cx, cy, r = cx + int(rng.integers(-6, 7)), cy + int(rng.integers(-6, 7)), int(rng.integers(10, 14))
            pixels[np.hypot(x - cx, y - cy) < r] = (90, 60, 120)
            cells.append(Cell((cx - r, cy - r, cx + r, cy + r), "NILM"))
        save_png(pixels, folder / "images" / f"f{number}.png")
        images.append(Image(f"f{number}.png", side, side, tuple(cells)))
    data = DataSet(folder / "images", tuple(images), ("NILM",))
    coco.write(data, folder)
    return data


@pytest.fixture
def blobs(tmp_path: Path) -> str:
    script = tmp_path / "blobs.py"
    script.write_text(BLOBS)
    return f"command:{sys.executable} {script} {{images}} {{annotations}} {{results}}"


def test_the_benchmark_ranks_strengths_and_continues_to_the_same_bytes(tmp_path: Path, blobs: str) -> None:
    data_set(tmp_path / "data")
    asked = {"variations": ["defocus", "scale"], "strengths": [1, 5], "draws": 10}
    recipe = RobustnessRecipe(data=Source(root="data", split="all"), **asked)
    finder = external.load(blobs, ["NILM"])
    outcome = benchmark(recipe, {"blobs": [finder]}, tmp_path, tmp_path / "run")
    found = outcome.trainings["blobs"]
    clean = found.estimate("AP.5", "clean")
    assert clean.value == pytest.approx(1.0)
    assert found.estimate("AP.5", "scale-1").value > 0.9, "boxes move with the image"
    assert found.estimate("AP", "defocus-5").value < found.estimate("AP", "defocus-1").value
    mean = np.mean([found.estimate("AP", c).value for c in found.results if c != "clean"])
    assert found.corrupted("AP").value == pytest.approx(mean)
    assert found.relative("AP").value == pytest.approx(mean / found.estimate("AP", "clean").value)
    assert found.worst("AP")[0].startswith("defocus")
    files = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    assert {"robustness.json", "flips.md", "heat_map.png", "curves.png", "variations.png"} <= {p.name for p in files}
    (tmp_path / "blobs.py").unlink()  # nothing is predicted again
    benchmark(recipe, {"blobs": [finder]}, tmp_path, tmp_path / "run")
    assert all(path.read_bytes() == content for path, content in files.items())
    with pytest.raises(UserError, match="have no category in common"):
        benchmark(recipe, {"other": [external.load(blobs, ["HSIL"])]}, tmp_path, tmp_path / "other")
    assert not (tmp_path / "other/recipe.yaml").exists(), "the folder can be used with a corrected recipe"


def test_what_is_relative_to_nothing_is_not_said() -> None:
    def result(value: float, drawn: list[float]) -> dict[str, dict[str, object]]:
        return {"scores": {"recall": value}, "drawn": {"recall": drawn}}

    varied = [result(0.5, [0.5, 0.25, 0.75])]
    nothing = Trainings({"clean": [result(0.0, [0.0, 0.0, 0.5])], "jpeg-1": varied}, 3)  # type: ignore[dict-item]
    assert np.isnan(nothing.relative("recall").value), "not infinite"
    some = Trainings({"clean": [result(1.0, [0.0, 1.0, 1.0])], "jpeg-1": varied}, 3)  # type: ignore[dict-item]
    found = some.relative("recall")
    assert found.value == 0.5 and found.low is not None and found.high is not None
    assert 0.25 <= found.low < found.high <= 0.75, "a resample without a clean value says nothing"


@pytest.mark.parametrize("changed", ["pixel", "box", "order"])
def test_other_content_of_the_same_data_set_is_refused(tmp_path: Path, blobs: str, changed: str) -> None:
    data_set(tmp_path / "data", 2)
    recipe = RobustnessRecipe(data=Source(root="data", split="all"), variations=["jpeg"], strengths=[1], draws=10)
    finders = {"mine": [external.load(blobs, ["NILM"])]}
    benchmark(recipe, finders, tmp_path, tmp_path / "run")
    export_all(recipe, tmp_path, tmp_path / "exported")
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    known = tmp_path / "data/annotations.json"
    said = json.loads(known.read_text())
    if changed == "pixel":  # one level of one pixel; the annotations are the same
        pixels = np.array(PILImage.open(tmp_path / "data/images/f1.png"))
        pixels[0, 0, 0] -= 1
        save_png(pixels, tmp_path / "data/images/f1.png")
    elif changed == "box":
        said["annotations"][0]["bbox"][0] += 1
    else:
        said["images"].reverse()
    known.write_text(json.dumps(said))
    with pytest.raises(UsageError, match=r"data.json: this run was started with other images or boxes; use another"):
        benchmark(recipe, finders, tmp_path, tmp_path / "run")
    with pytest.raises(UsageError, match=r"exported/.*json: this run was started with"):
        export_all(recipe, tmp_path, tmp_path / "exported")
    assert all(path.read_bytes() == content for path, content in before.items())


def test_the_section_of_a_card_replaces_the_one_before(tmp_path: Path, blobs: str) -> None:
    data_set(tmp_path / "data", 2)
    recipe = RobustnessRecipe(data=Source(root="data", split="all"), variations=["jpeg"], strengths=[1], draws=10)
    outcome = benchmark(recipe, {"mine": [external.load(blobs, ["NILM"])]}, tmp_path, tmp_path / "run")
    said = card.section("mine", outcome, recipe, "data, part all")
    assert "NILM: of 6 cells 0 missed" in said and "jpeg-1" in said
    old = f"# Mine\n\nText.\n\n{card.HEADING}\n\nold\n\n## After\n\nmore\n"
    new = card.replaced(old, said)
    assert "old" not in new and new.count(card.HEADING) == 1 and new.endswith("## After\n\nmore\n")
    assert card.replaced(card.replaced("# Mine\n", said), said) == card.replaced("# Mine\n", said)
    # A detector of another program has no folder: its section is not lost.
    path = card.fill(None, tmp_path / "run", "mine", outcome, recipe, "data, part all")
    assert path == tmp_path / "run/card_mine.md" and path.read_text().endswith(said)
    # Names that differ in other letters than those of ASCII have files of their own.
    outcome.trainings.update(dict.fromkeys(("détecteur", "dètecteur", "a b", "a+b"), outcome.trainings["mine"]))
    outcome.clean.update(dict.fromkeys(outcome.trainings, outcome.clean["mine"]))
    given = [card.fill(None, tmp_path / "run", name, outcome, recipe, "data") for name in outcome.trainings]
    assert len(set(given)) == 5 and all(path.is_file() for path in given)


def test_results_that_were_made_elsewhere_are_scored_alike(tmp_path: Path) -> None:
    data = data_set(tmp_path)
    results = [
        {"image_id": number, "category_id": 1, "bbox": [x0, y0, x1 - x0, y1 - y0], "score": 0.9}
        for number, image in enumerate(data.images, 1)
        for x0, y0, x1, y1 in (cell.box for cell in image.cells)
    ]
    (tmp_path / "results.json").write_text(json.dumps(results, default=float))
    finder = external.load(f"results:{tmp_path / 'results.json'}", ["NILM"], truth=tmp_path / coco.FILE, scale=0.5)
    found = finder.find_all(((i.file_name, np.zeros((1, 1, 3), np.uint8)) for i in data.images), 4, 0.05, "clean")
    assert [[cell.box for cell in one] for one in found] == [
        [tuple(value * 0.5 for value in cell.box) for cell in image.cells] for image in data.images
    ]
    with pytest.raises(UserError, match="give a folder"):
        finder.find_all(iter(()), 0, 0.05, "jpeg-1")


def test_results_of_the_same_name_and_size_are_another_detector(tmp_path: Path) -> None:
    data_set(tmp_path)
    (tmp_path / "results").mkdir()
    digests = []
    for score in ("0.9", "0.8", "0.9"):
        entry = f'[{{"image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4], "score": {score}}}]'
        (tmp_path / "results/clean.json").write_text(entry)
        digests.append(external.load(f"results:{tmp_path / 'results'}", ["NILM"], truth=tmp_path / coco.FILE).digest)
    assert digests[0] == digests[2] != digests[1]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("{}", "expected a list of COCO results"),
        ('[{"image_id": 1}]', "entry 0"),
        ('[{"image_id": 1, "category_id": 1, "bbox": [1, 2, NaN, 4], "score": 0.5}]', "entry 0"),
        ('[{"image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4], "score": 7}]', r"score \(7\.0; expected 0 to 1\)"),
        (
            '[{"image_id": "x", "category_id": 1, "bbox": [1, 2, 3, 4], "score": 0.5}]',
            "has an image_id and category_id of these images",
        ),
        ('[{"image_id": [1], "category_id": 1, "bbox": [1, 2, 3, 4], "score": 0.5}]', "entry 0"),
        ("[", "not readable"),
    ],
)
def test_results_that_are_none_are_refused_by_entry(tmp_path: Path, content: str, says: str) -> None:
    (tmp_path / "results.json").write_text(content)
    with pytest.raises(FormatProblem, match=says):
        results.read_results(tmp_path / "results.json", *results.known(None, ["a.png"], ["NILM"]))


def test_a_command_that_fails_says_why(tmp_path: Path) -> None:
    data = data_set(tmp_path / "data", 1)
    fails = (sys.executable, "-c", "import sys; sys.exit('no model {images} {results}')")
    with pytest.raises(UserError, match="code 1: no model"):
        external.run(fails, data, tmp_path, ["NILM"])
    with pytest.raises(UsageError, match=r"must name \{results\}"):
        external.load("command:predict {images}", ["NILM"])


def test_a_command_is_trained_on_what_it_is_given(tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text(
        "import json, sys\n"
        "train, annotations, results, seed, steps = sys.argv[1:]\n"
        "boxes = [a['bbox'] for a in json.load(open(train + '/annotations.json'))['annotations']]\n"
        "ids = [i['id'] for i in json.load(open(annotations))['images']]\n"
        "found = [dict(image_id=i, category_id=1, bbox=boxes[0], score=int(seed) / 10) for i in ids]\n"
        "json.dump(found, open(results, 'w'))\n"
    )
    data_set(tmp_path / "data", 2)
    from cytosynth.data import sources

    samples = sources.load([Source(root="data", split="all")], tmp_path)
    text = f"command:{sys.executable} {script} {{train}} {{annotations}} {{results}} {{seed}} {{steps}} {{images}}"
    script.write_text(script.read_text().replace("steps = sys", "steps, _ = sys"))
    finder = external.TrainedCommand(external.words(text, external.TRAINS), samples, ("NILM",), 7, 100)
    found = finder.find_all(((s.name, s.pixels) for s in samples), 2, 0.05, "clean")
    assert [[(cell.box, cell.score) for cell in one] for one in found] == [[(samples[0].cells[0].box, 0.7)]] * 2


def test_recall_at_false_positives_is_what_counting_by_hand_gives() -> None:
    def cell(x: float, score: float | None = None) -> Cell:
        return Cell((x, 0, x + 10, 10), "LSIL", score)

    truth = [[cell(0), cell(50)], [cell(0)], []]
    found = [[cell(1, 0.9), cell(100, 0.8), cell(51, 0.7)], [cell(200, 0.95), cell(0, 0.4)], [cell(0, 0.5)]]
    response = FreeResponse(truth, found)
    # by score: .95 wrong, .9 right, .8 wrong, .7 right, .5 wrong, .4 right
    assert response.recall(0.0) == 0.0
    assert response.recall(1 / 3) == pytest.approx(1 / 3)
    assert response.recall(2 / 3) == pytest.approx(2 / 3)
    assert response.recall(1.0) == 1.0
    assert response.recall(0.0, np.array([0, 0])) == pytest.approx(0.5)
    assert np.isnan(response.recall(1.0, np.array([2])))
    crowd = Cell((0, 0, 100, 100), "LSIL", extra={"iscrowd": 1})
    assert FreeResponse([[crowd, cell(300)]], [[cell(20, 0.9), cell(300, 0.5)]]).recall(0.0) == 1.0
    small, large = Cell((45, 45, 55, 55), "LSIL"), Cell((0, 0, 100, 100), "LSIL", 0.9)
    assert by_centre(small, large) and not by_overlap(small, large)


def test_flips_count_cells_that_change_their_name() -> None:
    before = [["NILM", "ASC-US", None], ["NILM", "NILM"]]
    after = [["ASC-US", "NILM", "ASC-US"], ["NILM", None]]
    known = flips(before, after, knows_normal=True)
    assert known["NILM to ASC-US"].tolist() == [[1, 1], [0, 2]] and known["ASC-US to NILM"].tolist() == [[1, 1], [0, 0]]
    assert flips(before, after, knows_normal=False)["NILM to ASC-US"].tolist() == [[2, 2], [0, 2]]


def test_several_trainings_widen_the_interval() -> None:
    def result(value: float) -> dict[str, object]:
        rng = np.random.default_rng(0)
        return {"scores": {"AP": value}, "drawn": {"AP": (value + rng.normal(0, 0.01, 50)).tolist()}}

    one = Trainings({"clean": [result(0.5)]}, 20).estimate("AP", "clean")
    three = Trainings({"clean": [result(0.4), result(0.5), result(0.6)]}, 20).estimate("AP", "clean")
    assert one.low is not None and three.low is not None and three.value == pytest.approx(0.5)
    assert three.low < 0.3 < one.low


def riva_release(root: Path) -> None:
    for part, rows in {
        "train": ["p1_a.png,50,40,20,10,ASCUS,3,P1", "p1_a.png,2,3,10,10,NILM,0,P1", "p1_b.png,60,60,20,20,INFL,2,P1"],
        "val": ["p2_a.png,30,30,20,20,ASCH,6,P2"],
    }.items():
        for name in {row.split(",")[0] for row in rows}:
            save_png(np.full((80, 100, 3), 200, np.uint8), root / "images" / "images" / part / name)
        folder = root / "annotations" / "annotations"
        folder.mkdir(parents=True, exist_ok=True)
        head = "image_filename,x,y,width,height,class_name,class,patient"
        (folder / f"{part}.csv").write_text("\n".join([head, *rows]) + "\n")
    (root / "annotations" / "annotations" / "sample_submission.csv").write_text("id,class\n")


def test_the_riva_benchmark_is_read_by_centre_and_divided_by_patient(tmp_path: Path) -> None:
    riva_release(tmp_path / "riva")
    assert convert.guess(tmp_path / "riva") == "riva"
    data = riva.read(tmp_path / "riva")
    assert [len(image.cells) for image in data.images] == [2, 1, 1]
    first, cut = data.images[0].cells
    assert (first.box, first.category) == ((40, 35, 60, 45), "ASC-US") and cut.box == (0, 0, 7, 8)
    assert [split.group(image) for image in data.images] == ["P1", "P1", "P2"]
    convert.convert(tmp_path / "riva", tmp_path / "out", None, "coco")
    again = coco.read(tmp_path / "out")
    assert [image.cells[0].category for image in again.images] == ["ASC-US", "INFL", "ASC-H"]
    assert [len(split.part(again, part, tmp_path / "out")) for part in ("train", "val")] == [2, 1]


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ("p1_a.png,50,40,20,10,XYZ,3,P1", "unknown class"), ("p1_a.png,50,40,0,10,NILM,3,P1", "line 2"),
        ("p1_a.png,nan,40,5,10,NILM,3,P1", "line 2"), ("p1_a.png,500,40,5,10,NILM,3,P1", "line 2"),
        ("p1_a.png,x,40,5,10,NILM,3,P1", "must be numbers"), ("../p1_a.png,50,40,20,10,NILM,3,P1", "p1_a"),
    ],
)  # fmt: skip
def test_a_row_of_riva_that_cannot_be_is_named(tmp_path: Path, row: str, says: str) -> None:
    riva_release(tmp_path)
    file = tmp_path / "annotations" / "annotations" / "train.csv"
    file.write_text(file.read_text().splitlines()[0] + "\n" + row + "\n")
    with pytest.raises(UserError, match=says):
        riva.read(tmp_path)


def test_the_middle_of_a_box_says_where_a_cell_lies() -> None:
    from cytosynth.robustness.controlled import place

    middle = Cell((240, 240, 260, 260), "NILM")
    near = [Cell((200 + 20 * n, 240, 220 + 20 * n, 260), "NILM") for n in (0, 4)]
    assert place(middle, [middle], (512, 512)) == "centre"
    assert place(middle, [middle, *near], (512, 512)) == "cluster"
    assert place(Cell((0, 240, 40, 260), "NILM"), [], (512, 512)) == "edge"


def test_a_pair_is_right_when_the_edit_and_not_the_normal_cell_is_found() -> None:
    from cytosynth.robustness.controlled import ControlledRecipe, outcomes
    from cytosynth.robustness.ranking import shares

    records = []
    for field in range(6):
        box = [10.0, 10.0, 30.0, 30.0]
        records.append({"file_name": f"{field}.png", "controlled": {"field": field, "targets": {"centre": box}}})
        about = {"field": field, "place": "centre", "size": 1.0, "category": "HSIL"}
        records.append({"file_name": f"{field}_HSIL.png", "controlled": about})

    def hit(category: str, score: float = 0.9) -> Cell:
        return Cell((5, 5, 40, 40), category, score)

    found = {
        "0.png": [hit("NILM")], "0_HSIL.png": [hit("LSIL", 0.5), hit("HSIL")],  # right, and of its class
        "1.png": [hit("LSIL")], "1_HSIL.png": [hit("LSIL")],  # found before the edit already
        "2.png": [], "2_HSIL.png": [hit("HSIL", 0.1), Cell((50, 50, 70, 70), "HSIL", 0.9)],  # too weak, elsewhere
    }  # fmt: skip
    found |= {name.replace(name[0], str(int(name[0]) + 3), 1): cells for name, cells in found.items()}
    rows = outcomes(records, found, 0.3)
    assert [(r["before"], r["after"], r["named"]) for r in rows] == 2 * [
        (False, True, True), (True, True, False), (False, False, False),
    ]  # fmt: skip
    after, before, right, named = shares(rows, ControlledRecipe())
    assert [round(e.value, 3) for e in (after, before, right, named)] == [0.667, 0.333, 0.333, 0.333]
    assert after.low is not None and after.low < after.value


def test_rank_correlation_is_clustered_by_detector() -> None:
    from cytosynth.robustness.ranking import rank_correlation

    points = [(name, str(c), level + c / 10, level * 2 + c / 5) for level, name in enumerate("abc") for c in range(4)]
    found = rank_correlation(points, 200, 0)
    assert found.value == pytest.approx(1.0) and found.low is not None
    assert rank_correlation(points[:8], 200, 0).low is None, "two detectors say nothing of detectors"
    turned = [(n, c, first, -second) for n, c, first, second in points]
    assert rank_correlation(turned, 200, 0).value == pytest.approx(-1.0)


def test_a_detector_that_learnt_from_the_generator_is_not_ranked(tmp_path: Path) -> None:
    from cytosynth.robustness.ranking import refuse_trained

    models = {
        "cell": "bundled aaaa",
        "normal": "bundled bbbb",
        "foundation": "bundled cccc",
        "detector": "bundled dddd",
    }
    (tmp_path / "run" / "weights").mkdir(parents=True)
    assert "unknown" in refuse_trained(tmp_path / "run" / "weights", tmp_path, models)
    (tmp_path / "run" / "recipe.yaml").write_text("data:\n- root: set\n")
    assert "not below" in refuse_trained(tmp_path / "run" / "weights", tmp_path, models)
    (tmp_path / "set").mkdir()
    assert "not trained on images of this generator" in refuse_trained(tmp_path / "run" / "weights", tmp_path, models)
    record = {"file_name": "0.png", "models": {"cell": "mine aaaa"}}
    (tmp_path / "set" / "provenance.jsonl").write_text(json.dumps(record) + "\n")
    with pytest.raises(UserError, match="images of the generator"):
        refuse_trained(tmp_path / "run" / "weights", tmp_path, models)


def test_other_centres_are_scored_by_middles_and_without_unannotated_images(tmp_path: Path) -> None:
    from cytosynth.robustness.centres import CentreData, compare

    data = data_set(tmp_path / "data", 3)
    images = [Image(i.file_name, i.width, i.height, tuple(Cell(c.box, "HSIL") for c in i.cells)) for i in data.images]
    images[2] = Image(images[2].file_name, 128, 128, (), {"has_boxes": False})
    coco.write(DataSet(data.folder, tuple(images), ("HSIL",)), tmp_path / "data")

    class Small:
        """Finds the middle of every cell in a small box, and one thing beside."""

        digest, categories = "x", ("HSIL",)

        def find_all(self, shown, count, threshold, condition):  # type: ignore[no-untyped-def]
            names = [name for name, _ in shown]
            assert len(names) == count == 2
            middles = {i.file_name: [cell.centre for cell in i.cells] for i in images}
            cells = {n: [Cell((x - 3, y - 3, x + 3, y + 3), "HSIL", 0.5) for x, y in m] for n, m in middles.items()}
            return [[*cells[name], Cell((110, 110, 120, 120), "HSIL", 0.9)] for name in names]

    centre = {"c": CentreData(root="data"), "some": CentreData(root="data", exhaustive=False)}
    report = compare(centre, {"small": [Small()]}, tmp_path, false_positives=1.0, threshold=0.95, draws=10)
    recalls = {(row[0], row[2]): row[5].split()[0] for row in report.rows}
    assert recalls[("c", "any abnormal")] == recalls[("c", "HSIL")] == "1"
    assert recalls[("some", "HSIL")] == "0", "nothing has a score of 0.95"


def test_a_probe_tells_what_differs_and_no_more() -> None:
    from cytosynth.robustness.style import Windows, kernel_distance, separation

    rng = np.random.default_rng(0)
    groups = [str(n // 4) for n in range(80)]
    first, same, other = (rng.normal(shift, 1, (80, 16)) for shift in (0.0, 0.0, 1.5))
    assert float(separation(Windows(first, groups), Windows(other, groups), 20).split()[0]) > 0.95
    assert 0.3 < float(separation(Windows(first, groups), Windows(same, groups), 20).split()[0]) < 0.7
    assert separation(Windows(first[:1], ["0"]), Windows(other[:1], ["0"]), 20) == "-", "one image of each"
    assert abs(kernel_distance(first, same)) < 0.1 < kernel_distance(first, other)


@pytest.mark.parametrize("condition", ["fog-1", "defocus", "defocus-9", "scale-1"])
def test_a_condition_of_the_controlled_test_that_cannot_be_is_refused(condition: str) -> None:
    from cytosynth.config import validated
    from cytosynth.robustness.controlled import ControlledRecipe

    with pytest.raises(UsageError, match=condition.split("-")[0]):
        validated(ControlledRecipe, {"conditions": ["clean", condition]}, "controlled")


def test_the_commands_take_detectors_of_other_programs(tmp_path: Path, blobs: str) -> None:
    from typer.testing import CliRunner

    from cytosynth.cli import app, evaluate, robustness  # noqa: F401

    data_set(tmp_path / "data", 2)
    data = str(tmp_path / "data")
    asked = ["evaluate", "detection", data, "--detector", blobs, "--split", "all", "--json", "--draws", "0"]
    found = CliRunner().invoke(app, asked)
    assert json.loads(found.stdout.splitlines()[-1])["map_50"] == 1.0
    base = ["evaluate", "robustness", f"blobs={blobs}", data, "--output", str(tmp_path / "run"), "--split", "all"]
    base += ["--quick", "--set", "variations=[scale]"]
    done = CliRunner().invoke(app, base)
    assert done.exit_code == 0, done.output
    values = json.loads((tmp_path / "run" / "values.json").read_text())
    assert set(values["blobs"]) == {"clean", "scale-3"} and values["blobs"]["clean"]["AP.5"]["value"] == 1.0
    exporting = [*base, "--export", str(tmp_path / "out")]
    assert CliRunner().invoke(app, exporting).exit_code == 0
    assert len(coco.read(tmp_path / "out" / "scale-3").images) == 2
    # Images of another call are not mixed with these, and no option is accepted that has no effect.
    for more in (["--set", "limit=1"], ["--set", "seed=1"], ["--mpp", "0.3"], ["--scale", "0.5"]):
        other = CliRunner().invoke(app, [*exporting, "--set", "strengths=[4]", *more])
        assert isinstance(other.exception, UsageError) and "was started with" in str(other.exception), more
        assert not (tmp_path / "out" / "scale-4").exists()
    for more in (["--card"], ["--also", f"b={blobs}"]):
        ended = CliRunner().invoke(app, [*exporting, *more])
        assert isinstance(ended.exception, UsageError) and more[0] in str(ended.exception)


LEARNS = """
import json, sys
train, images, annotations, results, seed = sys.argv[1:]
boxes = [a["bbox"] for a in json.load(open(train + "/annotations.json"))["annotations"]]
found = [dict(image_id=image["id"], category_id=1, bbox=box, score=0.5 + int(seed) / 10)
         for image in json.load(open(annotations))["images"] for box in boxes]
json.dump(found, open(results, "w"))
"""


def test_experiment_and_select_train_detectors_of_other_programs(tmp_path: Path) -> None:
    from cytosynth.augmentation import experiment, grid
    from cytosynth.augmentation.recipe import REAL, AugmentationRecipe
    from cytosynth.augmentation.select.recipe import SelectRecipe
    from cytosynth.augmentation.select.sweep import Sweep
    from cytosynth.evaluate.detection import scoring

    (tmp_path / "learns.py").write_text(LEARNS)
    command = f"{sys.executable} {tmp_path / 'learns.py'} {{train}} {{images}} {{annotations}} {{results}} {{seed}}"
    data = data_set(tmp_path / "data", 4)
    parts = {"train": [i.file_name for i in data.images[:2]], "val": [i.file_name for i in data.images[2:]]}
    (tmp_path / "data" / "split.json").write_text(json.dumps(parts))
    train, val = (Source(root="data", split=part) for part in ("train", "val"))
    recipe = AugmentationRecipe(
        title="t", preset="bundled", detectors=["mine"], commands={"mine": command}, training_sets=[REAL],
        categories=["NILM"], real=[train], test=val, draws=10, epochs=3,
    )  # fmt: skip
    (trial, *_) = experiment.plan(recipe, {REAL: [train]}, {REAL: 2})
    assert trial.lengths == (6,)
    grid.work(trial, "cpu", recipe, tmp_path / "run", tmp_path)
    file = trial.result(tmp_path / "run", 6)
    result = scoring.read(file, grid.Result, ["NILM"], 10, file)
    assert 0 < result["scores"]["mAP.5"] <= 1
    with pytest.raises(ValueError, match="unknown detector 'yolo'"):
        AugmentationRecipe.model_validate(recipe.model_dump() | {"detectors": ["yolo"]})
    chosen = SelectRecipe(
        preset="bundled", categories=["NILM"], real=[train], validation=val, draws=10, command=command
    )
    runs = Sweep(chosen, tmp_path / "select", tmp_path, 6).runs("real")
    assert runs.seeds("mAP.5").tolist() == [result["scores"]["mAP.5"]] * 3
