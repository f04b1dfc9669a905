"""The gate: seams, classifiers, copies, second tries, and what is said of them."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torchvision import models

from conftest import CATEGORIES, disturb, drawn, save_classifier, slide, write_fields
from cytosynth.annotations import Box, Cell
from cytosynth.cell.edit import CellEditor, PlannedEdit
from cytosynth.cell.quality import gate as gates
from cytosynth.cell.quality.classifier import load_gate
from cytosynth.cell.quality.gate import Gate, Reference, Verdict, retry_seed
from cytosynth.cell.quality.seam import border_ratio, seam
from cytosynth.cell.queue import Canvas, EditQueue, Spot
from cytosynth.cell.settings import EditSettings, GateSettings
from cytosynth.classifier.crop import square
from cytosynth.classifier.model import CellClassifier
from cytosynth.config import override
from cytosynth.data.check import check
from cytosynth.data.formats import coco
from cytosynth.errors import UsageError, UserError
from cytosynth.io import progress
from cytosynth.synthesis import synthesize
from cytosynth.synthesis.settings import PipelineSettings

BOX = (40.0, 50.0, 100.0, 120.0)
APPEARANCE = ("seam", "colour", "detail", "grain", "straightness")
"""Criteria of how a region looks in its image, which have a test file of their own."""
LOOSE = [f"gate.{name}=null" for name in APPEARANCE if name != "seam"]
WHOLE = (0.0, 0.0, 160.0, 160.0)


def noisy(deviation: float, seed: int = 0) -> np.ndarray:
    values = 128 + deviation * np.random.default_rng(seed).standard_normal((160, 160, 3))
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def stepped(pixels: np.ndarray, step: int, box: Box = BOX) -> np.ndarray:
    x0, y0, x1, y1 = map(int, box)
    result = pixels.copy()
    result[y0:y1, x0:x1] += np.uint8(step)
    return result


def test_the_seam_of_a_step_is_what_the_formula_says() -> None:
    flat = np.full((160, 160, 3), 100, np.uint8)
    assert border_ratio(flat, BOX) == 1.0
    assert border_ratio(stepped(flat, 10), BOX) == pytest.approx((10 + 0.5) / 0.5)
    red = flat.copy()
    red[50:120, 40:100, 0] += 30
    assert border_ratio(red, BOX) == pytest.approx((10 + 0.5) / 0.5), "a third of the channels, three times the step"
    ramp = np.broadcast_to((np.arange(160) * 1)[None, :, None], (160, 160, 3)).astype(np.uint8)
    assert border_ratio(ramp, BOX) == 1.0, "an even gradient has no seam"


def test_texture_alone_has_no_seam_and_a_larger_step_a_larger_one() -> None:
    ratios = [border_ratio(noisy(8, seed), BOX) for seed in range(20)]
    assert 0.95 < np.mean(ratios) < 1.05
    assert max(ratios) < 1.2
    image = noisy(4)
    values = [seam(stepped(image, step), image, BOX) for step in (0, 5, 15, 40)]
    assert values[0] == 1.0
    assert values == sorted(values)
    assert values[2] > 1.5 < values[3]


def test_a_border_that_was_there_before_is_not_held_against_the_edit() -> None:
    membrane = stepped(noisy(2), 40)
    edited = membrane.copy()
    edited[60:110, 50:90] = 90
    assert border_ratio(edited, BOX) > 5
    assert seam(edited, membrane, BOX) == pytest.approx(1.0, abs=0.05)


def test_sides_on_the_edge_of_the_image_are_left_out() -> None:
    image = noisy(3)
    assert border_ratio(image, WHOLE) == 1.0
    corner = (0.0, 0.0, 60.0, 60.0)
    assert border_ratio(stepped(image, 40, corner), corner) > 3


class Rule:
    """A classifier that reads the class off the mean of the box: dark is HSIL, bright is NILM."""

    classes = ("NILM", "LSIL", "HSIL")

    def probabilities(self, windows: Sequence[np.ndarray], boxes: Sequence[Box]) -> np.ndarray:
        rows = []
        for window, box in zip(windows, boxes, strict=True):
            x0, y0, x1, y1 = (max(0, int(v)) for v in box)
            bright = window[y0:y1, x0:x1].mean() / 255
            rows.append([bright * 0.9, 0.1, 0.9 - bright * 0.9])
        return np.array(rows)

    def features(self, windows: Sequence[np.ndarray], boxes: Sequence[Box]) -> np.ndarray:
        return np.stack([w.mean(axis=(0, 1)) for w in windows])


def verdict(new: int, category: str = "HSIL", reference: Reference | None = None, **changes: object) -> Verdict:
    original = np.full((300, 300, 3), 150, np.uint8)
    edited = original.copy()
    edited[100:160, 100:160] = new
    wanted = GateSettings(**(dict.fromkeys(APPEARANCE) | changes))  # type: ignore[arg-type]
    box = (110.0, 110.0, 150.0, 150.0)
    return Gate(Rule(), wanted, reference).verdict(original, edited, box, (100.0, 100.0, 160.0, 160.0), category)


def test_every_reason_of_the_gate() -> None:
    assert verdict(30).reasons == ()
    assert verdict(30).scores["probability"] == pytest.approx(0.9 - 30 / 255 * 0.9, abs=1e-6)
    assert verdict(250).reasons == ("class", "normal"), "brighter: less like HSIL, more like NILM"
    assert verdict(250, less_normal=False).reasons == ("class",)
    assert verdict(30, "LSIL", top=1).reasons == ("class",), "second at most, at 0.1"
    assert verdict(30, "LSIL", top=1, probability=0.1).reasons == ()
    assert verdict(30, "LSIL", top=3).reasons == ()
    assert verdict(30, top=0, probability=0.99).reasons == ("class",)
    assert verdict(30, seam=1.5).reasons == ("seam",), "120 levels against nothing"
    assert verdict(150).reasons == ("normal",), "nothing changed, so NILM is no less likely"
    near = verdict(140)
    assert near.scores["normal_after"] < near.scores["normal_before"]
    assert near.reasons == ("normal",), "HSIL is second and NILM less likely than it was, but still the likeliest"
    assert verdict(140, less_normal=False).reasons == ()
    assert verdict(250, "NILM").reasons == (), "a cell edited into NILM becomes more like it"
    with pytest.raises(UsageError, match="knows NILM, LSIL, HSIL, not ASC-H"):
        Gate(Rule(), GateSettings()).check(["HSIL", "ASC-H"])


def test_without_a_classifier_a_cell_needs_a_nucleus_and_no_seam() -> None:
    gate = load_gate("nucleus", GateSettings(**dict.fromkeys(APPEARANCE[1:])), Path())
    gate.check(["HSIL"])
    empty, box, changed = slide([]), (110.0, 110.0, 150.0, 150.0), (100.0, 100.0, 160.0, 160.0)
    cell = slide([(128, 128, 24, 10)])
    kept = gate.verdict(empty, cell, box, changed, "HSIL")
    assert kept.reasons == ()
    assert kept.scores["nucleus_diameter"] == pytest.approx(21, abs=1.5)
    assert gate.verdict(cell, empty, box, changed, "HSIL").reasons == ("nucleus",)
    stained = slide([(128, 128, 24, 0)])
    assert gate.verdict(cell, stained, box, changed, "HSIL").reasons == ("nucleus",), "cytoplasm alone"
    assert gate.verdict(empty, slide([(100, 128, 24, 10)]), box, changed, "HSIL").reasons == ("nucleus",), (
        "off the middle"
    )
    lifted = cell.copy()
    lifted[100:160, 100:160] -= 40
    assert "seam" in gate.verdict(cell, lifted, box, changed, "HSIL").reasons
    with pytest.raises(UsageError, match=r"gate.reference: needs a classifier"):
        load_gate("nucleus", override(GateSettings(), ["reference=[{root: real}]"]), Path())


def test_a_run_with_the_nucleus_gate_says_what_it_rejected(tiny: Path, tmp_path: Path) -> None:
    names = {n: str(tiny / n) for n in ("foundation", "normal", "cell", "detector")}
    changes = [
        "normal.size=320",
        "normal.steps=1",
        "cell.steps=1",
        "threshold=0.1",
        "cell.box_scale=1.2",
        "min_cells=2",
    ]
    out = tmp_path / "out"
    data = synthesize.synthesize(
        out,
        count=2,
        settings=override(PipelineSettings(seed=5), [*changes, *LOOSE, "gate.tries=2"]),
        gate="nucleus",
        **names,
    )
    records = [json.loads(line) for line in (out / "provenance.jsonl").read_text().splitlines()]
    rejected = [cell for record in records for cell in record["rejected"]]
    assert rejected, "untrained networks paint no nuclei"
    assert all(
        "nucleus" in cell["attempts"][-1]["reasons"] or "seam" in cell["attempts"][-1]["reasons"] for cell in rejected
    )
    assert all(len(cell["attempts"]) == 2 for cell in rejected)
    kept = [cell for record in records for cell in record["cells"]]
    assert sum(len(image.cells) for image in data.images) == len(kept)
    assert all(cell["attempts"][-1]["scores"]["nucleus_diameter"] > 0 for cell in kept)
    assert records[0]["models"]["gate"] == "nucleus built-in"
    assert "## The quality gate" in (out / "README.md").read_text()
    assert check(out) == []


def test_a_copy_of_a_training_crop_is_detected_by_its_distance(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(0)
    windows = [np.broadcast_to(rng.integers(20, 230, 3), (256, 256, 3)).astype(np.uint8) for _ in range(40)]
    boxes = [(100.0, 100.0, 150.0, 150.0)] * 40
    monkeypatch.setattr(progress, "LINE_EVERY", 0.0)
    reference = Reference.of(Rule(), windows, boxes, 10)
    assert "features of the reference: 40/40" in capsys.readouterr().err
    units = np.stack([w[0, 0] / np.linalg.norm(w[0, 0].astype(float)) for w in windows])
    table = np.linalg.norm(units[:, None] - units[None], axis=-1) + 9 * np.eye(40)
    assert reference.threshold == pytest.approx(np.percentile(table.min(axis=1), 10), abs=1e-6)
    assert reference.distance(windows[3], boxes[0]) == pytest.approx(0, abs=1e-6)
    far = np.broadcast_to(np.array([0, 0, 255], np.uint8), (256, 256, 3))
    assert reference.distance(far, boxes[0]) == pytest.approx(
        np.linalg.norm(units - np.array([0, 0, 1]), axis=1).min(), abs=1e-6
    )
    own = Reference(Rule(), np.array([[1, 1, 1]]) / np.sqrt(3), 0.01)
    assert verdict(30, reference=own).reasons == ("copy",), "grey as the reference"
    assert verdict(30, reference=Reference(Rule(), np.array([[0.0, 0, 1]]), 0.01)).reasons == ()


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_classifier(tmp_path_factory.mktemp("classifiers") / "tiny")


def test_a_classifier_gives_what_its_network_gives_on_the_crop(classifier: Path) -> None:
    loaded = CellClassifier.load(classifier)
    image, cells = drawn(2)
    crops = [square(image, cell.box, 1.5, 32) for cell in cells[:2]]
    inputs = (
        torch.tensor(np.stack(crops)).permute(0, 3, 1, 2) / 255 - torch.tensor([0.8, 0.7, 0.8]).view(3, 1, 1)
    ) / 0.2
    torch.manual_seed(1)
    network = models.shufflenet_v2_x0_5(num_classes=5)
    disturb(network, "fc")
    network.eval()
    with torch.no_grad():
        expected = network(inputs).softmax(1).numpy()
        body = torch.nn.Sequential(*list(network.children())[:-1])(inputs).mean([2, 3]).numpy()
    given = ([image] * 2, [cell.box for cell in cells[:2]])
    assert loaded.classes == CATEGORIES
    assert np.allclose(loaded.probabilities(*given), expected, atol=1e-6)
    assert np.allclose(loaded.features(*given), body, atol=1e-6)


def test_the_crop_is_square_about_the_box_never_enlarged_and_mirrored_at_the_edge() -> None:
    image = np.zeros((100, 100, 3), np.uint8)
    image[40:60, 30:70] = 200
    crop = square(image, (30.0, 40.0, 70.0, 60.0), 1.0, 40)
    assert (crop[10:30] == 200).all()
    assert (crop[:10] == 0).all() and (crop[30:] == 0).all()
    assert (square(image, (45.0, 45.0, 55.0, 55.0), 1.0, 40) == crop).all(), "a small box takes in more of the field"
    assert square(image, (30.0, 40.0, 70.0, 60.0), 2.0, 20).shape == (20, 20, 3), "a large one is reduced"
    ramp = np.broadcast_to(np.arange(50, dtype=np.uint8)[None, :, None], (50, 50, 3))
    edge = square(ramp, (0.0, 0.0, 10.0, 10.0), 2.0, 16)
    assert square(ramp, (0.0, 0.0, 16.0, 16.0), 1.5, 24)[0, :, 0].tolist() == [4, 3, 2, 1, *range(20)]
    assert edge.shape == (16, 16, 3)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"architecture": "resnet51"}, "neither a classification network of torchvision"),
        ({"architecture": "fasterrcnn_resnet50_fpn"}, "neither a classification network of torchvision"),
        ({"architecture": "squeezenet1_1"}, "no linear layer"),
        ({"classes": ["NILM", "HSIL"]}, "model.safetensors: "),
        ({"mean": [0.5]}, "mean"),
        ({"size": 0}, "size"),
    ],
)
def test_a_classifier_that_cannot_be_used_is_one_line(
    changes: dict[str, object], complaint: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=complaint) as caught:
        CellClassifier.load(save_classifier(tmp_path / "classifier", **changes))
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="no cell classifier found"):
        CellClassifier.load(tmp_path)


def test_a_classifier_for_larger_crops_is_one_line(tmp_path: Path) -> None:
    folder = save_classifier(tmp_path / "classifier", architecture="densenet121", size=16)
    network = models.densenet121(num_classes=len(CATEGORIES))
    save_file(network.state_dict(), folder / "model.safetensors")
    with pytest.raises(UserError, match="densenet121 does not accept crops of 16 pixels"):
        CellClassifier.load(folder)


def test_the_reference_is_read_from_training_data(classifier: Path, tmp_path: Path) -> None:
    write_fields(tmp_path / "real", 4)
    wanted = override(GateSettings(), ["reference=[{root: real, split: all}]", "copy_percentile=50"])
    loaded = load_gate(str(classifier), wanted, tmp_path)
    assert loaded.reference is not None
    assert loaded.reference.features.shape == (20, 1024)
    assert np.allclose(np.linalg.norm(loaded.reference.features, axis=1), 1)
    assert load_gate(str(classifier), GateSettings(), tmp_path).reference is None


class Picky:
    """Rejects every attempt whose seed is not among the good ones; asks the queue's cells in order."""

    classes = ("NILM", "HSIL", "LSIL")

    def __init__(self, answers: dict[tuple[float, ...], list[bool]]) -> None:
        self.answers, self.asked = answers, dict.fromkeys(answers, 0)
        self.turn = False

    def probabilities(self, windows: Sequence[np.ndarray], boxes: Sequence[Box]) -> np.ndarray:
        self.turn = not self.turn
        key = (round(boxes[0][2] - boxes[0][0]),)
        if self.turn:
            return np.array([[0.6, 0.2, 0.2]])
        good = self.answers[key][self.asked[key]]
        self.asked[key] += 1
        return np.array([[0.1, 0.8, 0.1]]) if good else np.array([[0.9, 0.05, 0.05]])


@pytest.fixture(scope="module")
def editor(tiny: Path) -> CellEditor:
    return CellEditor.load(str(tiny / "foundation"), str(tiny / "cell"))


def spot(x: float, width: float, category: str = "HSIL") -> Spot:
    box = (x, 20.0, x + width, 80.0)
    return Spot(Cell(box, "NILM"), PlannedEdit(box, category, int(x)))


def test_rejected_cells_are_tried_again_and_then_left_normal(editor: CellEditor) -> None:
    image, _ = drawn(1)
    answers = {(40,): [True], (44,): [False, False, True], (48,): [False] * 3, (52,): [True]}
    how = EditSettings(steps=1, batch=2)
    queue = EditQueue(editor, how, Gate(Picky(answers), GateSettings(**dict.fromkeys(APPEARANCE))))
    canvas = Canvas("a.png", image, [spot(0, 40), spot(60, 44), spot(120, 48)], [spot(180, 52, "")])
    assert queue.add(canvas) + queue.flush() == [canvas]
    assert [s.cell.size[0] for s in canvas.kept] == [40, 44, 52], "the spare one stands in for the rejected"
    assert [s.cell.size[0] for s in canvas.rejected] == [48]
    assert canvas.spots[-1].edit.category == "HSIL"
    seeds = [seed for seed, _ in canvas.spots[1].verdicts]
    assert seeds == [60, retry_seed(60, 1), retry_seed(60, 2)]
    assert len(set(seeds)) == 3
    changed = (canvas.compose(how) != image).any(axis=2)
    assert changed[20:80, 60:104].any()
    assert not changed[20:80, 120:168].any(), "a rejected cell stays as it was"
    alone = editor.edit(image, [PlannedEdit(spot(60, 44).edit.box, "HSIL", seeds[-1])], how)
    assert np.array_equal(alone[20:80, 60:104], canvas.compose(how)[20:80, 60:104]), "the seed on record makes it again"


FAST = ["normal.size=320", "normal.steps=1", "cell.steps=1", "threshold=0.1", "cell.box_scale=1.2"]


def gated(out: Path, tiny: Path, classifier: Path, *changes: str, count: int = 3) -> None:
    strict = ["gate.top=1", "gate.probability=1", "gate.tries=2"]
    wanted = override(PipelineSettings(seed=2), [*FAST, *strict, *LOOSE, *changes])
    given = {name: str(tiny / name) for name in ("foundation", "normal", "cell", "detector")}
    synthesize.synthesize(out, count=count, settings=wanted, gate=str(classifier), **given)


def test_a_gated_run_says_what_it_rejected_and_is_exact(
    tiny: Path, classifier: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "set"
    gated(out, tiny, classifier, "category_weights={HSIL: 1, LSIL: 1}", "gate.seam=3", "seed=3")
    assert check(out) == []
    records = [json.loads(line) for line in (out / "provenance.jsonl").open()]
    kept = [cell for record in records for cell in record["cells"]]
    rejected = [cell for record in records for cell in record["rejected"]]
    assert kept and rejected, "this classifier keeps some and rejects some"
    assert all(cell["attempts"][-1]["reasons"] == [] for cell in kept)
    assert all(len(cell["attempts"]) == 2 and all(a["reasons"] for a in cell["attempts"]) for cell in rejected)
    assert {"probability", *APPEARANCE, "normal_before", "normal_after"} == set(kept[0]["attempts"][0]["scores"])
    assert all(record["models"]["gate"].startswith("own:tiny ") for record in records)
    data = coco.read(out)
    assert sum(len(image.cells) for image in data.images) == len(kept), "rejected cells are not annotated"
    rows = gates.acceptance(records)
    assert sum(row["tried"] for row in rows) == len(kept) + len(rejected)
    assert sum(row["kept"] for row in rows) == len(kept)
    card, said = (out / "README.md").read_text(), capsys.readouterr().err
    assert all(line in card and line in said for line in gates.table(rows))
    whole = {p.name: p.read_bytes() for p in (out / "images").iterdir()}
    (out / "images/000001.png").unlink()
    gated(out, tiny, classifier, "category_weights={HSIL: 1, LSIL: 1}", "gate.seam=3", "seed=3")
    assert {p.name: p.read_bytes() for p in (out / "images").iterdir()} == whole
    plan = json.loads((out / "plan.json").read_text())
    given = {name: str(tiny / name) for name in ("foundation", "normal", "cell")}
    synthesize.synthesize(
        tmp_path / "again", plan=out / "plan.json", settings=override(PipelineSettings(), [*FAST]), **given
    )
    assert sum(len(image["cells"]) for image in plan["images"]) == len(kept)
    for name in whole:
        first, second = (np.asarray(Image.open(folder / "images" / name)) for folder in (out, tmp_path / "again"))
        assert np.array_equal(first, second), "the plan of a gated run makes the same pixels without a gate"


def test_with_counts_another_cell_stands_in_for_a_rejected_one(tiny: Path, classifier: Path, tmp_path: Path) -> None:
    gated(tmp_path / "set", tiny, classifier, "counts={HSIL: 3}", count=2)
    records = [json.loads(line) for line in (tmp_path / "set/provenance.jsonl").open()]
    assert sum(len(record["cells"]) for record in records) == 3
    assert any(record["rejected"] for record in records)
    with pytest.raises(UsageError, match="the classifier knows"):
        gated(tmp_path / "x", tiny, save_classifier(tmp_path / "few", classes=["NILM", *"abcd"]))


def test_appearance_is_asked_for_on_real_images_alone_unless_it_is_said() -> None:
    given = GateSettings(seam=1.2, colour=0.1)
    assert given.on(real=True) == given
    off = given.on(real=False)
    assert (off.colour, off.detail, off.grain, off.straightness, off.seam) == (None, None, None, None, 1.2)
    assert given.model_copy(update={"appearance": True}).on(real=False).colour == 0.1
    assert given.model_copy(update={"appearance": False}).on(real=True).colour is None
