"""What the gate sees of a region in its image: colours, sharpness, straight edges; and the stain it is edited in."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PILImage
from scipy.linalg import sqrtm
from scipy.ndimage import gaussian_filter

from conftest import drawn, slide
from cytosynth.cell import training_images
from cytosynth.cell.edit import CellEditor, PlannedEdit
from cytosynth.cell.quality.colour import unseen
from cytosynth.cell.quality.gate import Gate
from cytosynth.cell.quality.sharpness import against_surroundings
from cytosynth.cell.quality.straight_edges import straightness
from cytosynth.cell.settings import EditSettings, GateSettings
from cytosynth.cell.stain import RANGE, Stain, Transfer, density
from cytosynth.cell.training_images import TrainingImages
from cytosynth.config import override
from cytosynth.errors import UsageError
from cytosynth.synthesis import synthesize
from cytosynth.synthesis.plan import PlanSettings
from cytosynth.synthesis.settings import PipelineSettings

BOX = (90.0, 90.0, 150.0, 150.0)


def as_pixels(densities: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(255 * 10.0**-densities), 0, 255).astype(np.uint8)


def painted(image: np.ndarray, colour: tuple[int, int, int], part: float = 1.0) -> np.ndarray:
    result = image.copy()
    result[90 : 90 + round(60 * part), 90:150] = colour
    return result


def test_colours_that_the_image_lacks_are_counted() -> None:
    field = slide([(60, 60, 30, 8), (200, 180, 35, 9), (60, 200, 30, 8)])
    assert unseen(field, field, BOX) == 0.0
    assert unseen(painted(field, (150, 95, 50)), field, BOX) > 0.98, "brown among green"
    assert unseen(painted(field, (150, 205, 200)), field, BOX) < 0.02, "the cytoplasm's own green"
    assert unseen(painted(field, (150, 95, 50), 0.5), field, BOX) == pytest.approx(0.5, abs=0.02)
    assert unseen(painted(field, (30, 20, 55)), field, BOX) < 0.02, "a nucleus may be darker than the others"
    grey = np.clip(field.astype(int) - 60, 0, 255).astype(np.uint8)
    assert unseen(painted(grey, (252, 252, 252)), grey, BOX) > 0.98, "white where the glass is grey"


def test_detail_is_the_ratio_of_amplitudes() -> None:
    """Of a wave the high pass takes one share whatever its amplitude, so that the ratio is that of the amplitudes."""
    wave = np.sin(2 * np.pi * np.arange(256) / 6)[None, :, None] * np.ones((256, 1, 3))
    amplitude = np.full((256, 256, 1), 0.08)
    amplitude[88:152, 88:152] = 0.02
    stain = np.clip(np.arange(256) / 10, 0, 1)[:, None, None] * 0.4  # from glass at the upper edge
    detail, grain = against_surroundings(as_pixels(stain + amplitude * wave), BOX)
    assert detail == pytest.approx(0.25, abs=0.03)
    assert grain == pytest.approx(0.25, abs=0.03)
    glass = np.full((256, 256, 3), 240, np.uint8)
    assert against_surroundings(glass, BOX) == (1.0, 1.0), "nothing stained, nothing to compare"


def test_blur_and_noise_are_distinguished() -> None:
    rng = np.random.default_rng(0)
    cells = np.where(gaussian_filter(rng.standard_normal((256, 256)), 10) > 0.01, 0.5, 0.15)[..., None] * np.ones(3)
    original = as_pixels(cells + 0.004 * rng.standard_normal(cells.shape))
    blurred, noisy = original.copy(), original.copy()
    soft = as_pixels(gaussian_filter(cells, (3, 3, 0)))
    blurred[90:150, 90:150] = soft[90:150, 90:150]
    noisy[90:150, 90:150] = as_pixels(cells + 0.05 * rng.standard_normal(cells.shape))[90:150, 90:150]
    detail, grain = against_surroundings(original, BOX)
    assert 0.7 < detail < 1.4 and 0.7 < grain < 1.4
    assert against_surroundings(blurred, BOX)[0] < 0.4
    assert against_surroundings(noisy, BOX)[1] > 2


def test_a_step_along_the_border_is_what_the_formula_says() -> None:
    flat = np.full((256, 256, 3), 0.3)
    step = flat.copy()
    step[90:150, 90:150] += 0.05
    plain, edited = as_pixels(flat), as_pixels(step)
    exact = abs(float((density(edited)[120, 120] - density(plain)[0, 0]).mean()))
    assert straightness(edited, plain, BOX) == pytest.approx((exact + 0.01) / 0.01, rel=1e-6)
    assert straightness(plain, plain, BOX) == 1.0
    ramp = np.minimum.outer(*[np.clip(np.minimum(np.arange(256) - 89.5, 150.5 - np.arange(256)) / 8, 0, 1)] * 2)
    blended = as_pixels(flat + 0.05 * ramp[..., None])
    assert straightness(blended, plain, BOX) > 4, "the blend hides it from no eye"
    rng = np.random.default_rng(0)
    texture = as_pixels(0.3 + 0.1 * gaussian_filter(rng.standard_normal((256, 256)), 3)[..., None] * np.ones(3))
    assert 0.6 < straightness(texture, texture, BOX) < 1.6
    corner = (0.0, 0.0, 60.0, 60.0)
    assert straightness(as_pixels(flat), as_pixels(flat), corner) == 1.0


def test_each_criterion_is_a_reason_and_can_be_switched_off() -> None:
    field = slide([(60, 60, 30, 8), (200, 180, 35, 9), (60, 200, 30, 8), (120, 120, 26, 9)])
    box, brown = (100.0, 100.0, 140.0, 140.0), painted(field, (150, 95, 50))
    wanted = GateSettings()
    assert set(Gate(None, wanted).verdict(field, brown, box, BOX, "HSIL").reasons) >= {"colour", "straightness"}
    off = override(wanted, [f"{name}=null" for name in ("seam", "colour", "detail", "grain", "straightness")])
    verdict = Gate(None, off).verdict(field, brown, box, BOX, "HSIL")
    assert set(verdict.reasons) <= {"nucleus"}
    assert verdict.scores["colour"] > 0.9
    assert Gate(None, wanted).verdict(field, field, box, BOX, "HSIL").reasons == ()


def moments(seed: int) -> np.ndarray:
    vectors = np.random.default_rng(seed).uniform(0.1, 0.5, (40, 3))
    return vectors.T @ vectors / 40


def test_the_map_between_stains_is_the_optimal_one() -> None:
    first, second = Stain(np.zeros(3), moments(0)), Stain(np.full(3, 0.1), moments(1))
    matrix = first.matrix(second)
    noise = 0.05**2 * np.eye(3)
    assert np.allclose(matrix @ (first.moment + noise) @ matrix.T, second.moment + noise, atol=1e-9)
    root = sqrtm(first.moment + noise)
    expected = np.linalg.inv(root) @ sqrtm(root @ (second.moment + noise) @ root) @ np.linalg.inv(root)
    assert np.allclose(matrix, expected.real, atol=1e-6)
    assert np.allclose(first.matrix(first), np.eye(3), atol=1e-9)
    assert first.distance(first) == pytest.approx(0, abs=1e-9)
    strong = Stain(np.zeros(3), 1e4 * moments(0))
    assert np.linalg.eigvalsh(first.matrix(strong)).max() == pytest.approx(RANGE)


def recoloured(pixels: np.ndarray, matrix: np.ndarray, glass: float) -> np.ndarray:
    return as_pixels(density(pixels) @ matrix.T + glass)


def test_a_stain_is_taken_and_given_back() -> None:
    image = slide([(60, 60, 40, 10), (180, 180, 45, 12), (60, 190, 40, 10)])
    matrix = np.array([[0.7, 0.1, 0.0], [0.1, 0.6, 0.1], [0.0, 0.1, 0.8]])
    pale = recoloured(image, matrix, 0.05)
    ours, theirs = Stain.of(image), Stain.of(pale)
    assert ours is not None and theirs is not None
    way = Transfer(theirs, ours)
    assert np.abs(way.there(pale).astype(int) - image).mean() < 6, "the stain it had before"
    assert np.abs(way.back(way.there(pale)).astype(int) - pale).max() <= 2
    assert Stain.of(np.full((64, 64, 3), 240, np.uint8)) is None, "bare glass has no stain"


def with_images(tiny: Path, folder: Path, images: TrainingImages) -> Path:
    shutil.copytree(tiny / "cell", folder)
    (folder / training_images.FILE).write_text(images.model_dump_json())
    return folder


@pytest.fixture(scope="module")
def purple() -> TrainingImages:
    """Statistics of images whose stain is not that of `drawn`."""
    found = TrainingImages.of([drawn(seed)[0][..., ::-1] // 2 + 60 for seed in range(3)])
    assert found is not None
    return found


def test_edits_in_another_stain_do_not_depend_on_other_edits(
    tiny: Path, purple: TrainingImages, tmp_path: Path
) -> None:
    editor = CellEditor.load(str(tiny / "foundation"), str(with_images(tiny, tmp_path / "cell", purple)))
    plain = CellEditor.load(str(tiny / "foundation"), str(tiny / "cell"))
    assert editor.digest == plain.digest
    settings = editor.settled(EditSettings(steps=1, batch=2, grain=0.5), real=True)
    assert settings.stain == "outside"
    assert editor.settled(EditSettings(stain=True), real=True).stain is True
    assert editor.settled(EditSettings(), real=False).stain is False
    assert plain.settled(EditSettings(), real=True).stain is False
    with pytest.raises(UsageError, match=r"stain=true: .*training_images\.json"):
        plain.settled(EditSettings(stain=True), real=True)
    requests = [(drawn(seed)[0], PlannedEdit((90.0, 90.0, 150.0, 150.0), "HSIL", seed)) for seed in (1, 2, 3)]
    together = editor.paint(requests, settings)
    for number, request in enumerate(requests):
        assert np.array_equal(editor.paint([request], settings)[0], together[number])
    assert np.array_equal(editor.paint(requests[::-1], settings)[0], together[2])
    without = editor.paint(requests, settings.model_copy(update={"stain": False}))
    assert not np.array_equal(without[0], together[0])
    assert np.array_equal(without[0], plain.paint(requests, settings.model_copy(update={"stain": False}))[0])


def test_images_of_the_training_images_stain_are_edited_as_they_are(tiny: Path, tmp_path: Path) -> None:
    known = TrainingImages.of([drawn(seed)[0] for seed in range(4)])
    assert known is not None
    editor = CellEditor.load(str(tiny / "foundation"), str(with_images(tiny, tmp_path / "cell", known)))
    requests = [(drawn(1)[0], PlannedEdit((90.0, 90.0, 150.0, 150.0), "HSIL", 1))]

    def painted(stain: object) -> np.ndarray:
        return editor.paint(requests, EditSettings.model_validate({"steps": 1, "stain": stain}))[0]

    assert np.array_equal(painted("outside"), painted(False))
    assert not np.array_equal(painted("outside"), painted(True))


def test_plans_of_earlier_versions_are_followed_as_they_were() -> None:
    before = EditSettings(box_scale=1.8, grain=1.0).model_dump()
    del before["stain"], before["outline"], before["nucleus_scale"]
    assert PlanSettings.model_validate({"cell": before}).cell.stain is False
    assert PlanSettings.model_validate({"cell": before}).cell.outline == "box"
    assert PlanSettings.model_validate({"cell": before}).cell.nucleus_scale == {}
    assert PlanSettings.model_validate({"cell": {"steps": 10}}).cell.stain is None, "written by hand"
    assert PlanSettings.model_validate({"cell": before | {"stain": True}}).cell.stain is True


def test_an_image_unlike_the_training_images_is_reported(purple: TrainingImages) -> None:
    own = [drawn(seed)[0] for seed in range(4)]
    images = TrainingImages.of(own)
    assert images is not None and images.images == 4
    assert all(images.outside(one) == {} for one in own)
    outside = images.outside(recoloured(own[0], 0.25 * np.eye(3), 0.0))
    assert outside.keys() >= {"density"}
    assert outside["density"][0] < images.ranges["density"][0]
    assert tuple(outside["density"][1:]) == images.ranges["density"]
    assert {"red", "blue"} & purple.outside(own[0]).keys()
    said = training_images.line([outside], 3)
    assert said.startswith("1 of 3 images differ from those the cell synthesizer was trained on (density ")
    assert TrainingImages.model_validate_json(images.model_dump_json()) == images


def test_a_run_says_so_in_a_line_and_in_its_card(
    tiny: Path, purple: TrainingImages, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "own").mkdir()
    for seed in range(2):
        PILImage.fromarray(drawn(seed)[0]).save(tmp_path / "own" / f"{seed}.png")
    names = {n: str(tiny / n) for n in ("foundation", "detector")}
    names["cell"] = str(with_images(tiny, tmp_path / "cell", purple))
    settings = override(PipelineSettings(), ["cell.steps=1", "threshold=0.1", "cell.box_scale=1.2", "max_cells=1"])
    synthesize.edit(tmp_path / "own", tmp_path / "out", settings=settings, **names)
    line = "2 of 2 images differ from those the cell synthesizer was trained on"
    assert line in capsys.readouterr().err
    assert line in (tmp_path / "out/README.md").read_text()
    records = [json.loads(one) for one in (tmp_path / "out/provenance.jsonl").read_text().splitlines()]
    assert all(record["outside_training"] for record in records)
    plan = json.loads((tmp_path / "out/plan.json").read_text())
    assert plan["settings"]["cell"]["stain"] == "outside"
    synthesize.edit(tmp_path / "own", tmp_path / "out", settings=settings, **names)
    assert line in capsys.readouterr().err, "said of images made before, too"
