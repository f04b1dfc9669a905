"""Evidence on edited cells: what is measured of drawn cells, what is compared with what, and figures 7 and 8."""

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from colour import COLOUR
from conftest import CATEGORIES, GREEN, PINK, drawn, save_classifier, slide, write_fields
from cytosynth.annotations import Box, Cell
from cytosynth.bethesda import ABNORMAL
from cytosynth.cell.edit import CellEditor
from cytosynth.cell.quality import morphology
from cytosynth.cell.settings import EditSettings
from cytosynth.classifier import crops, model, networks
from cytosynth.classifier.config import ClassifierConfig
from cytosynth.classifier.model import CellClassifier
from cytosynth.classifier.recipe import ClassifierRecipe
from cytosynth.config import override
from cytosynth.data.sources import Source
from cytosynth.detection import model as detectors
from cytosynth.errors import UsageError, UserError
from cytosynth.evaluate import distance
from cytosynth.evaluate.cells import agreement, comparison, patches
from cytosynth.evaluate.cells.background import background_psnr
from cytosynth.evaluate.cells.evaluate import Models, _border_ratios, evaluate_cells
from cytosynth.evaluate.cells.load import load
from cytosynth.evaluate.cells.patches import CellPatch
from cytosynth.evaluate.cells.recipe import Editing, Measuring
from cytosynth.evaluate.networks import cytology
from cytosynth.evaluate.statistics import estimates
from cytosynth.experiments.figure7 import figure7, find, from_models, tiles
from cytosynth.experiments.figure8 import figure8
from cytosynth.synthesis.settings import PipelineSettings

MIDDLE = (108.0, 108.0, 148.0, 148.0)
FAST = EditSettings(steps=1, batch=4)


@pytest.mark.parametrize("cytoplasm", [GREEN, PINK])
@pytest.mark.parametrize("inner", [6, 10, 16])
def test_nucleus_and_ratio_of_a_drawn_cell(inner: int, cytoplasm: tuple[int, int, int]) -> None:
    found = morphology.measure(slide([(128, 128, 50, inner)], cytoplasm), MIDDLE)
    assert found is not None
    assert found.diameter == pytest.approx(2 * inner + 1, abs=1.2)
    assert found.area == pytest.approx(np.pi * found.diameter**2 / 4)
    assert found.ratio == pytest.approx((2 * inner + 1) ** 2 / 101**2, rel=0.2)


def test_a_neighbour_is_not_counted_in() -> None:
    alone = morphology.measure(slide([(128, 128, 40, 10)]), MIDDLE)
    beside = morphology.measure(slide([(205, 128, 40, 10), (128, 128, 40, 10)]), MIDDLE)
    assert alone is not None and beside is not None
    assert beside.area == pytest.approx(alone.area, rel=0.05)
    assert beside.ratio == pytest.approx(alone.ratio, rel=0.1), "half-way between the two nuclei is the border"


def test_thick_counterstain_is_no_nucleus() -> None:
    pixels = slide([(128, 128, 50, 10)])
    pixels[112:144, 139:146] = (10, 120, 150)  # absorbs more than the nucleus, but lets blue and green through
    found = morphology.measure(pixels, MIDDLE)
    assert found is not None and found.diameter == pytest.approx(21, abs=1.2)


def test_no_nucleus_where_there_is_none() -> None:
    assert morphology.measure(np.full((256, 256, 3), 240, np.uint8), MIDDLE) is None
    assert morphology.measure(slide([(40, 40, 30, 8)]), MIDDLE) is None


def test_background_psnr() -> None:
    before = np.full((64, 64, 3), 100, np.uint8)
    after = before.copy()
    after[10:30, 20:40] = 200
    box = (20.0, 10.0, 40.0, 30.0)
    assert background_psnr([(before, after, box)]) == float("inf")
    assert background_psnr([(before, after + np.uint8(5), box)]) == pytest.approx(20 * np.log10(255 / 5))
    both = [(before, after, box), (before, after + np.uint8(5), box)]
    assert background_psnr(both) == pytest.approx(20 * np.log10(255 / 5) + 10 * np.log10(2)), "half the error"


class Darkness:
    """A classifier that takes a dark middle for HSIL, a grey one for LSIL, a bright one for NILM."""

    classes = ("NILM", "LSIL", "HSIL")

    def probabilities(self, windows: Sequence[np.ndarray], boxes: Sequence[Box]) -> np.ndarray:
        middles = [
            w[(int(b[1] + b[3])) // 2, (int(b[0] + b[2])) // 2].mean() for w, b in zip(windows, boxes, strict=True)
        ]
        return np.eye(3)[[0 if m > 170 else 1 if m > 85 else 2 for m in middles]]


def plain(level: int, image: str, category: str = "NILM", size: int = 256) -> CellPatch:
    pixels = np.full((size, size, 3), level, np.uint8)
    return CellPatch(pixels, MIDDLE, category, image, f"{image}-{level}")


def test_confusion_counts_what_the_classifier_says() -> None:
    levels = [20, 30, 100, 200, 210, 220]
    given = agreement.answers(
        Darkness(), [plain(level, "a").pixels for level in levels], [MIDDLE] * len(levels), "cells"
    )
    assert given == ("HSIL", "HSIL", "LSIL", "NILM", "NILM", "NILM")
    rows = agreement.confusion([agreement.Classified("edited", "HSIL", given)], Darkness.classes)
    assert rows == [("edited", "HSIL", 6, 3, 1, 2)]


def test_agreement_of_edited_unedited_and_real_cells() -> None:
    names = [f"image {number}" for number in range(10)]
    before = [plain(220, name) for name in names]
    after = [plain(20 if number < 7 else 220, name, "HSIL") for number, name in enumerate(names)]
    real = [plain(20, f"real {number}", "HSIL") for number in range(10)]
    sides = comparison.Sides("HSIL", after, before, real[:5], real[5:])
    given = {
        "edited": ("HSIL",) * 7 + ("NILM",) * 3, "unedited": ("NILM",) * 10, "reference": ("HSIL",) * 5,
        "other": ("HSIL",) * 4 + ("LSIL",),
    }  # fmt: skip
    line = comparison.agreement_line(sides, given, Measuring(draws=50))
    assert line.edited is not None and line.unedited is not None and line.real is not None and line.nearer is not None
    assert (line.edited.value, line.unedited.value, line.real.value, line.nearer.value) == (0.7, 0, 0.9, 0.7)
    assert line.edited.low is not None and 0.3 <= line.edited.low < 0.7 < (line.edited.high or 0) <= 1


def coloured(level: float, count: int, image: str, rng: np.random.Generator, category: str = "NILM") -> list[CellPatch]:
    found = []
    for number in range(count):
        pixels = np.clip(rng.normal(level, 8, 3), 0, 255) * np.ones((256, 256, 1))
        found.append(CellPatch(pixels.astype(np.uint8), MIDDLE, category, f"{image} {number // 3}", f"{image}{number}"))
    return found


def test_distances_are_given_with_those_of_unedited_cells_and_the_floor(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    sides = comparison.Sides(
        "HSIL", coloured(120, 30, "a", rng), coloured(220, 30, "a", rng),
        coloured(100, 30, "b", rng, "HSIL"), coloured(100, 24, "c", rng, "HSIL"),
    )  # fmt: skip
    how = Measuring(draws=40, window=64)
    frechet, kernel = comparison.feature_distances(sides, COLOUR, tmp_path, how)
    features = {name: np.stack([c.pixels[0, 0] / 25.5 for c in getattr(sides, name)[:24]]) for name in
                ("edited", "unedited", "reference", "other")}  # fmt: skip
    for line, measure in ((frechet, distance.frechet), (kernel, None)):
        assert line.n == 24
        assert line.edited and line.unedited and line.real and line.nearer
        assert line.real.value < line.edited.value < line.unedited.value
        assert line.nearer.value == pytest.approx(line.unedited.value - line.edited.value)
        assert line.nearer.low is not None and 0 < line.nearer.low < line.nearer.value
        if measure:
            for value, name in ((line.edited, "edited"), (line.unedited, "unedited"), (line.real, "other")):
                assert value.value == pytest.approx(measure(features[name], features["reference"]), rel=1e-3, abs=1e-3)
    few = replace(sides, reference=sides.reference[:5])
    assert [line.edited for line in comparison.feature_distances(few, COLOUR, tmp_path, how)] == [None, None]
    for others in (0, 5):
        line = comparison.feature_distances(replace(sides, other=sides.other[:others]), COLOUR, tmp_path, how)[0]
        assert line.n == 30 and line.edited and line.real is None, "no floor, but the edit is compared"


def test_morphology_compared_with_real_cells() -> None:
    rng = np.random.default_rng(0)

    def shapes(mean: float, count: int) -> list[morphology.Morphology | None]:
        return [morphology.Morphology(np.pi * d**2 / 4, d, d / 100, 0.3) for d in rng.normal(mean, 1, count)]

    sides = comparison.Sides(
        "HSIL", [plain(0, str(i)) for i in range(20)], [plain(0, str(i)) for i in range(20)],
        [plain(0, f"r{i}") for i in range(20)], [plain(0, f"s{i}") for i in range(20)],
    )  # fmt: skip
    given = {"edited": shapes(18, 20), "unedited": shapes(10, 20), "reference": shapes(20, 20), "other": shapes(20, 20)}
    given["edited"][3] = None
    lines = {line.quantity: line for line in comparison.morphology_lines(sides, given, Measuring(draws=30))}
    share = lines["nucleus found, share"].edited
    assert share is not None and share.value == 0.95
    median, line = lines["nucleus diameter, px: median"], lines["nucleus diameter, px: distance"]
    kept = [(e.diameter, u.diameter) for e, u in zip(given["edited"], given["unedited"], strict=True) if e and u]
    assert median.edited and median.edited.value == pytest.approx(np.median([e for e, _ in kept]))
    target = np.sort([shape.diameter for shape in given["reference"][:19] if shape])
    for column, value in enumerate((line.edited, line.unedited)):
        ours = np.sort([pair[column] for pair in kept])
        assert value and value.value == pytest.approx(np.abs(ours - target).mean()), (
            "equal numbers: mean of sorted gaps"
        )
    assert line.n == 19 and line.nearer and line.nearer.value > 5 and line.real and line.real.value < 1


def bordered(step: int, image: str, category: str) -> CellPatch:
    cell = plain(100, image, category)
    x0, y0, x1, y1 = map(int, patches.region(cell, EditSettings(box_scale=1.5)))
    cell.pixels[y0:y1, x0:x1] += np.uint8(step)
    return cell


def test_the_seam_of_edited_cells_is_given_with_that_of_real_ones() -> None:
    names = [str(number) for number in range(10)]
    sides = comparison.Sides(
        "HSIL", [bordered(6 + 2 * (number % 2), name, "HSIL") for number, name in enumerate(names)],
        [bordered(0, name, "NILM") for name in names],
        [bordered(1, f"r{name}", "HSIL") for name in names], [bordered(2, f"s{name}", "HSIL") for name in names[:5]],
    )  # fmt: skip
    settings = EditSettings(box_scale=1.5)
    given = {side: _border_ratios(getattr(sides, side), settings) for side in
             ("edited", "unedited", "reference", "other")}  # fmt: skip
    line = comparison.seam_line(sides, given, Measuring(draws=50))
    assert line.edited and line.unedited and line.real
    assert line.edited.value == pytest.approx(((6 + 0.5) / 0.5 + (8 + 0.5) / 0.5) / 2)
    assert line.unedited == (1, 1, 1)
    assert line.real.value == pytest.approx((10 * 1.5 + 5 * 2.5) / 0.5 / 15), "both halves of the real cells"
    assert line.edited.low and 13 < line.edited.low < 15 < (line.edited.high or 0) < 17
    assert line.nearer is None


def test_intervals_come_from_images_not_from_cells() -> None:
    values = np.repeat(np.arange(4.0), 25)
    images = [str(int(value)) for value in values]
    by_image = estimates(lambda i: [values[i].mean()], [images], 300, centred=False)[0]
    by_cell = estimates(lambda i: [values[i].mean()], [list(map(str, range(100)))], 300, centred=False)[0]
    assert by_image.value == by_cell.value == 1.5
    assert by_image.high and by_image.low and by_cell.high and by_cell.low
    assert by_image.high - by_image.low > 3 * (by_cell.high - by_cell.low)
    assert estimates(lambda i: [values[i].mean()], [["one"] * 100], 20)[0].low is None


def test_halves_share_no_image() -> None:
    rng = np.random.default_rng(0)
    cells = [plain(0, f"image {number % 7}") for number in range(40)]
    first, second = patches.halves(cells, rng)
    assert not {cell.image for cell in first} & {cell.image for cell in second}
    assert len(first) + len(second) == 40 and abs(len(first) - len(second)) <= 6
    assert patches.halves(cells[::7], rng)[1] == []
    before, after = ([plain(level, f"image {number}") for number in range(7)] for level in (0, 1))
    sides = comparison.sides("HSIL", before, after, [replace(cell, category="HSIL") for cell in cells], 0)
    assert not {cell.image for cell in sides.reference} & {cell.image for cell in sides.edited + sides.other}
    assert [cell.image for cell in sides.edited] == [cell.image for cell in sides.unedited]
    assert sides.edited


@pytest.fixture(scope="module")
def editor(tiny: Path) -> CellEditor:
    return CellEditor.load(str(tiny / "foundation"), str(tiny / "cell"))


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("many")
    write_fields(root / "drawn", 24)
    return root


def test_evaluate_cells_from_end_to_end(
    editor: CellEditor, many: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    editing = Editing(real=Source(root="drawn", split="all"), cell=FAST)
    how = Measuring(categories=["LSIL", "HSIL"], count=12, draws=10, window=64, fewest=4)
    models = Models(editor, [COLOUR], Darkness())
    reports = evaluate_cells(editing, how, models, many, tmp_path)
    names = {"cells.md", "cells.json", "cells.csv", "all.csv", "confusion.json", "cells.png", "morphology.png",
             "cells_probe.md", "cells_probe.csv"}  # fmt: skip
    assert names <= {path.name for path in tmp_path.iterdir()}
    table = json.loads((tmp_path / "cells.json").read_text())
    rows = {(row["category"], row["quantity"]): row for row in table["rows"]}
    assert rows["HSIL", "background PSNR, paste=box, dB"]["edited"] == "infinite"
    assert 5 < float(rows["HSIL", "background PSNR, paste=patch, dB"]["edited"]) < 60
    border = rows["LSIL", "border ratio of the region, mean"]
    assert 0 < float(border["edited"].split()[0]) != float(border["unedited"].split()[0]) and border["real"]
    assert rows["LSIL", "FD (colour)"]["n"] >= 4 and rows["LSIL", "FD (colour)"]["nearer"]
    confusion = {(row["cells"], row["category, or target category"]): row for row in
                 json.loads((tmp_path / "confusion.json").read_text())["rows"]}  # fmt: skip
    assert confusion["real", "HSIL"]["n"] == confusion["real", "HSIL"]["taken for HSIL"] == 16, "nuclei are drawn dark"
    assert confusion["edited", "LSIL"]["n"] == 12
    assert len(reports) == 3
    probed = {row["category"]: row for row in json.loads((tmp_path / "cells_probe.json").read_text())["rows"]}
    assert {name: row["n"] for name, row in probed.items()} == {"LSIL": 12, "HSIL": 12, "all": 24}
    assert all(0 <= float(row[of].split()[0]) <= 1 for row in probed.values() for of in list(row)[3:])
    assert len(list((tmp_path / "reconstructed").iterdir())) == 24, "the real cells that edited ones are compared with"

    kept = sorted((tmp_path / "edited").rglob("*.png"))
    assert len(kept) == 24
    with Image.open(kept[0]) as image:
        assert "synthetic" in image.info["Description"]
    before = {path: path.read_bytes() for path in kept}
    names = ("cells.json", "all.csv", "confusion.csv", "cells_probe.csv")
    tables = {name: (tmp_path / name).read_bytes() for name in names}
    kept[5].unlink()
    painted = []
    paint = CellEditor.paint
    monkeypatch.setattr(
        CellEditor, "paint", lambda self, requests, s: painted.append(len(requests)) or paint(self, requests, s)
    )
    evaluate_cells(editing, how, models, many, tmp_path)
    assert painted == [1], "what was edited is not edited again"
    assert {path: path.read_bytes() for path in kept} == before
    assert {name: (tmp_path / name).read_bytes() for name in tables} == tables
    with pytest.raises(UsageError, match="seed=0, now 1"):
        evaluate_cells(editing.model_copy(update={"seed": 1}), how, models, many, tmp_path)
    shutil.copytree(many, tmp_path / "other")
    content = json.loads((tmp_path / "other/drawn/annotations.json").read_text())
    content["annotations"][0]["bbox"][0] += 1
    (tmp_path / "other/drawn/annotations.json").write_text(json.dumps(content))
    with pytest.raises(UsageError, match=r"data.json: this run was started with other images or boxes"):
        evaluate_cells(editing, how, models, tmp_path / "other", tmp_path)
    with pytest.raises(UsageError, match="the classifier knows NILM, LSIL, HSIL"):
        evaluate_cells(editing, how.model_copy(update={"categories": ["ASC-H"]}), models, many, tmp_path)


def test_a_classifier_is_taken_from_its_run(tiny: Path, tmp_path: Path) -> None:
    save_classifier(tmp_path / "run/weights")
    (tmp_path / "run/recipe.yaml").write_text("kind: classifier\n")
    names = {"foundation": str(tiny / "foundation"), "cell": str(tiny / "cell")}
    found = [
        load(names, place, [], [], drawn=False).classifier for place in (tmp_path / "run", tmp_path / "run/weights")
    ]
    assert found[0] is not None and found[1] is not None and found[0].digest == found[1].digest
    networks = [
        cytology.load(place, "mine", "shufflenet", "D") for place in (tmp_path / "run", tmp_path / "run/weights")
    ]
    image = drawn(0)[0][:64, :64]
    features = [network.module(network.prepare(image)[None]) for network in networks]
    assert torch.equal(*features)


def test_weights_of_a_network_that_is_not_used_are_refused() -> None:
    with pytest.raises(UsageError, match="--weights other=x: expected NAME=PATH"):
        load({}, None, ["efficientnet-lite0"], ["other=x"], drawn=False)


def test_the_classifier_reads_what_train_features_writes(tmp_path: Path) -> None:
    torch.manual_seed(0)
    recipe = ClassifierRecipe(size=32, context=2.0, shift=3, categories=list(CATEGORIES))
    network = networks.build("resnet50", len(CATEGORIES)).half().float().eval()  # as it is on disk
    config = ClassifierConfig(architecture="resnet50", classes=CATEGORIES, size=32, context=2.0,
                              mean=(0.8,) * 3, std=(0.2,) * 3)  # fmt: skip
    tmp_path.joinpath("weights").mkdir(exist_ok=True)
    model.save(network, config, tmp_path / "weights")
    classifier = CellClassifier.load(tmp_path / "weights")
    pixels, cells = drawn(3)
    large = Cell((100.0, 90.0, 190.0, 150.0), "NILM")
    small = Cell((100.0, 90.0, 112.0, 104.0), "NILM")
    chosen = [large, small, cells[0]]
    found = [crops.cut(pixels, cell, recipe.model_copy(update={"shift": 0})).pixels for cell in chosen]
    with torch.no_grad():
        inputs = torch.stack([(torch.tensor(p).permute(2, 0, 1) / 255 - 0.8) / 0.2 for p in found])
        expected = network(inputs).softmax(1).numpy()
    given = classifier.probabilities([pixels] * 3, [cell.box for cell in chosen])
    assert classifier.classes == CATEGORIES
    assert np.allclose(given, expected, atol=1e-5)
    assert found[1].shape == (32, 32, 3) and np.array_equal(found[1], pixels[81:113, 90:122]), "not enlarged"


BOXES: list[Box] = [(20.0, 20.0, 60.0, 60.0), (140.0, 100.0, 180.0, 140.0), (240.0, 220.0, 280.0, 260.0)]


def test_figure_7(editor: CellEditor, tmp_path: Path) -> None:
    normal, _ = drawn(1)
    made = figure7(normal, BOXES, editor, FAST, 3, tmp_path)
    assert set(made.single) == {(number, name) for number in range(3) for name in ABNORMAL}
    for (number, name), pixels in made.single.items():
        inside = np.zeros(normal.shape[:2], bool)
        x0, y0, x1, y1 = map(int, made.edits[number][name].box)
        inside[y0:y1, x0:x1] = True
        assert np.array_equal(pixels[~inside], normal[~inside])
        assert not np.array_equal(pixels[inside], normal[inside])
    for names, pixels in made.combinations:
        expected = normal.copy()
        for number, name in enumerate(names):
            x0, y0, x1, y1 = map(int, made.edits[number][name].box)
            expected[y0:y1, x0:x1] = made.single[number, name][y0:y1, x0:x1]
        assert np.array_equal(pixels, expected), "a combination is the union of single edits"
    assert len(made.combinations) == 4
    assert len(tiles(made)) == 4 * 5
    with Image.open(tmp_path / "figure7.png") as image:
        assert image.width == 5 * 256 + 4 * 6
    said = json.loads((tmp_path / "figure7.json").read_text())
    assert [cell["bbox_xyxy"] for cell in said["cells"]] == [list(box) for box in BOXES]
    again = figure7(normal, BOXES, editor, FAST, 3, tmp_path)
    assert all(np.array_equal(again.single[key], made.single[key]) for key in made.single)


def test_figure_7_of_a_generated_field_and_of_an_own_image(tiny: Path, fields: Path, tmp_path: Path) -> None:
    settings = override(
        PipelineSettings(), ["normal.size=320", "normal.steps=1", "cell.steps=1", "threshold=0", "cell.box_scale=0.5"]
    )
    given = {name: str(tiny / name) for name in ("foundation", "normal", "cell", "detector")}
    made = from_models(tmp_path, settings=settings, **given)
    assert made.normal.shape == (320, 320, 3) and len(made.boxes) == 3
    own = fields / "drawn/images/field_0.png"
    made = from_models(tmp_path, image=own, boxes=BOXES, settings=settings, **given)
    assert np.array_equal(made.normal, drawn(0)[0])


def test_figure_7_refuses_cells_that_overlap_or_lie_outside(editor: CellEditor, tiny: Path, tmp_path: Path) -> None:
    normal, _ = drawn(1)
    with pytest.raises(UserError, match="overlaps another;"):
        figure7(normal, [BOXES[0], (50.0, 20.0, 90.0, 60.0)], editor, FAST, 0, tmp_path)
    with pytest.raises(UserError, match="within the image of 320x288"):
        figure7(normal, [(300.0, 0.0, 340.0, 40.0)], editor, FAST, 0, tmp_path)
    with pytest.raises(UserError, match="3 are needed"):
        find(normal, detectors.load(tiny / "detector"), FAST, 1.0, 0)


def test_figure_8_puts_both_kinds_side_by_side(tiny: Path, fields: Path, tmp_path: Path) -> None:
    settings = override(
        PipelineSettings(), ["normal.size=256", "normal.steps=1", "cell.steps=1", "threshold=0", "max_cells=2"]
    )
    given = {name: str(tiny / name) for name in ("foundation", "normal", "cell", "detector")}
    path = figure8(fields / "drawn", tmp_path, count=2, settings=settings, label="Negative", **given)
    with Image.open(path) as image:
        assert image.size == (2 * 512 + 6, 2 * (512 + 16) + 6)
    for kind in ("pure", "real-to-synthetic"):
        found = json.loads((tmp_path / kind / "annotations.json").read_text())
        assert len(found["images"]) == 2
    with pytest.raises(UserError, match="2 images could be made, 3 are needed"):
        figure8(fields / "drawn", tmp_path / "more", count=3, settings=settings, label="Negative", **given)
