"""The linear probe: what it tells apart, what it must not learn, and its area under the curve computed otherwise."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.special import expit
from scipy.stats import mannwhitneyu

from colour import COLOUR
from conftest import write_fields
from cytosynth.cell.edit import CellEditor
from cytosynth.cell.settings import EditSettings
from cytosynth.data.sources import Source
from cytosynth.evaluate.cells import comparison, patches
from cytosynth.evaluate.cells import probe as cells_probe
from cytosynth.evaluate.cells.patches import CellPatch
from cytosynth.evaluate.cells.recipe import Editing, Measuring
from cytosynth.evaluate.probe import FOLDS, PENALTY, Probed, area, logistic, probe, separation

NUMBER, DIMENSION = 80, 32
IMAGES = [f"image {index // 4}" for index in range(NUMBER)]
SECOND = np.arange(2 * NUMBER) >= NUMBER


def both(shift: float, seed: int) -> np.ndarray:
    """Return features of two sets, the second `shift` deviations away in one of their directions."""
    features = np.random.default_rng(seed).normal(3.0, 2.0, (2 * NUMBER, DIMENSION))
    features[NUMBER:, 0] += 2.0 * shift
    return features


def test_what_is_separable_is_told_apart_and_what_is_alike_is_not() -> None:
    images = [*IMAGES, *IMAGES]
    assert area(probe(both(20, 0), SECOND, images)) == 1
    alike = [area(probe(both(0, seed), SECOND, images)) for seed in range(40)]
    assert abs(np.mean(alike) - 0.5) < 0.03
    between = np.mean([area(probe(both(1, seed), SECOND, images)) for seed in range(4)])
    assert 0.6 < between < 0.76, "0.76 is the area of the one direction that differs, were it known"


def test_images_do_not_cross_folds() -> None:
    images = [*IMAGES, *IMAGES]
    found = probe(both(0, 0), SECOND, images)
    places = [{int(fold) for fold, name in zip(found.folds, images, strict=True) if name == one} for one in IMAGES]
    assert all(len(place) == 1 for place in places), "what is of one image, in either set, is in one fold"
    assert set(found.folds) == set(range(FOLDS))
    # Every image has a colour of its own, and is of one set: to know the image is to know the set.
    rng = np.random.default_rng(1)
    colours = np.repeat(rng.normal(0, 1, (40, 200)), 4, axis=0) + rng.normal(0, 0.1, (2 * NUMBER, 200))
    own = [*IMAGES, *(f"other {name}" for name in IMAGES)]
    unknown = [area(probe(colours[order], SECOND, own)) for order in _orders(rng)]
    assert abs(np.mean(unknown) - 0.5) < 0.1, "it never saw the image"
    assert area(probe(colours, SECOND, [str(index) for index in range(2 * NUMBER)])) > 0.95, "it did"


def _orders(rng: np.random.Generator) -> list[np.ndarray]:
    """Return orders of 160 cells in which whole images of four change place."""
    return [(rng.permutation(40)[:, None] * 4 + np.arange(4)).ravel() for _ in range(12)]


def test_the_area_is_that_of_mann_and_whitney_within_folds() -> None:
    found = probe(both(0.7, 3), SECOND, [*IMAGES, *IMAGES])
    coarse = Probed(np.round(found.scores, 1), found.second, found.folds)  # with ties
    chosen = np.random.default_rng(0).integers(2 * NUMBER, size=2 * NUMBER)
    for one, indices in ((found, np.arange(2 * NUMBER)), (coarse, np.arange(2 * NUMBER)), (coarse, chosen)):
        scores, second, folds = (part[indices] for part in one)
        won = pairs = 0.0
        for fold in range(FOLDS):
            first, other = scores[(folds == fold) & ~second], scores[(folds == fold) & second]
            won += mannwhitneyu(other, first).statistic
            pairs += len(first) * len(other)
        assert area(one, indices) == pytest.approx(won / pairs, abs=1e-12)


def test_the_regression_is_at_its_minimum() -> None:
    features, truth = both(0.5, 4) - 3.0, SECOND[::-1]
    weights = logistic(features, truth)
    # Where the derivative by the intercept is 0, too, there is one minimum: that of the penalised loss.
    low, high = -20.0, 20.0
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if expit(features @ weights + middle).mean() < truth.mean() else (low, middle)
    slopes = expit(features @ weights + low) - truth
    assert features.T @ slopes / len(truth) + PENALTY * weights == pytest.approx(np.zeros(DIMENSION), abs=1e-5)
    assert np.abs(weights).max() > 0.05


def test_the_interval_is_over_images() -> None:
    images = [*IMAGES, *IMAGES]
    found = probe(both(0.5, 5), SECOND, images)
    told = separation([found], images, 200)
    assert told is not None and told.low is not None and told.high is not None
    assert told.value == area(found) and told.low < told.value < told.high < 1
    wide = separation([found], [str(int(name.split()[1]) // 5) for name in images], 200)
    assert wide is not None and wide.low is not None and wide.high is not None
    twice = separation([found, replace_scores(found)], images, 200)
    assert twice is not None and twice.value == pytest.approx((area(found) + 0.5) / 2), "the mean of several"
    assert separation([probe(both(9, 0), SECOND, ["one"] * 2 * NUMBER)], ["one"] * 2 * NUMBER, 20) is None
    assert separation([], images, 20) is None


def replace_scores(found: Probed) -> Probed:
    return found._replace(scores=np.zeros_like(found.scores))


def cells(level: float, name: str, category: str, seed: int, count: int = 40) -> list[CellPatch]:
    """Return cells of eight images, each of one colour about `level`."""
    rng = np.random.default_rng(seed)
    found = []
    for index in range(count):
        pixels = np.clip(rng.normal(level, 10, 3), 0, 255) * np.ones((256, 256, 1))
        box = (108.0, 108.0, 148.0, 148.0)
        found.append(CellPatch(pixels.astype(np.uint8), box, category, f"image {index % 8}", f"{name}{seed}{index}"))
    return found


def test_the_table_of_drawn_cells(tmp_path: Path) -> None:
    real = cells(120, "r", "HSIL", 0)
    known = cells_probe.Sets("HSIL", real, cells(124, "e", "HSIL", 1), cells(200, "u", "NILM", 2), list(real))
    few = cells_probe.Sets("LSIL", *([*part[:7]] for part in known[1:]))
    how = Measuring(categories=["HSIL", "LSIL"], draws=20, window=64)
    report = cells_probe.table([known, few], [COLOUR], tmp_path, how, {"seed": 0})
    assert report.rows[1] == ("LSIL", "colour", 7, None, None, None, None), "fewer than eight"
    category, features, number, *told = report.rows[0]
    assert (category, features, number) == ("HSIL", "colour", 40)
    edited, reconstruction, unedited, floor = (float(str(value).split()[0]) for value in told)
    assert edited == pytest.approx(area(probe(
        np.array([c.pixels[0, 0] / 25.5 for c in [*real, *known.edited]], np.float32), np.arange(80) >= 40,
        [c.image for c in [*real, *known.edited]],
    )), abs=1e-3)  # fmt: skip
    assert reconstruction == 0.5, "it is the same to the bit"
    assert unedited == 1 and 0.3 < floor < 0.7 and edited < 0.9


def test_random_halves_share_no_image_and_differ_each_time() -> None:
    images = [f"image {number}" for number in range(9) for _ in range(1 + number)]
    halves = [cells_probe.halved(images, np.random.default_rng(seed)) for seed in range(40)]
    for second in halves:
        first, other = ({name for name, side in zip(images, second, strict=True) if side == half} for half in (0, 1))
        assert first and other and not first & other
        assert abs(second.mean() - 0.5) < 0.15
    alike = np.mean([one[-1] == one[-10] for one in halves])  # the two fullest images
    assert 0.2 < alike < 0.8
    assert cells_probe.halved(["one"] * 5, np.random.default_rng(0)).sum() == 0


def test_the_sets_of_the_probe(tiny: Path, tmp_path: Path) -> None:
    write_fields(tmp_path / "drawn", 12)
    source, settings = Source(root="drawn", split="all"), EditSettings(steps=1, batch=4)
    editor = CellEditor.load(str(tiny / "foundation"), str(tiny / "cell"))
    settings = editor.settled(settings, real=True)
    editing = Editing(real=source, cell=settings)
    real = patches.real(source, tmp_path)
    before = [cell for cell in real if cell.category == "NILM"][:5]
    after = {name: [replace(cell, category=name) for cell in before] for name in ("HSIL", "LSIL")}
    high, low, everything = cells_probe.sets(before, after, real, editor, editing, tmp_path)
    assert (high.category, low.category, everything.category) == ("HSIL", "LSIL", "all")
    for one in (high, low):
        assert {len(part) for part in one[1:]} == {5}, "as many real cells as edited ones"
        assert {cell.category for cell in [*one.real, *one.reconstructed]} == {one.category}
        assert one.unedited == before
    assert everything.real == [*high.real, *low.real] and everything.edited == [*high.edited, *low.edited]
    cell, again = high.real[0], high.reconstructed[0]
    vae = editor.model.vae
    with torch.no_grad():
        pixels = torch.from_numpy(cell.pixels.copy()).permute(2, 0, 1)[None].float() / 127.5 - 1
        decoded = vae.decode(vae.encode(pixels).latent_dist.mode()).sample[0].permute(1, 2, 0)
    whole = ((decoded.clamp(-1, 1) + 1) * 127.5).round().numpy()
    kept = patches.reconstructed(editor, [cell], editing, tmp_path / "reconstructed")[0]
    assert np.abs(kept - whole).max() <= 1
    assert np.array_equal(again.pixels, comparison.after_edit([cell], [kept], "HSIL", settings)[0].pixels)
    x0, y0, x1, y1 = map(int, patches.region(cell, settings))
    outside = np.ones((256, 256), dtype=bool)
    outside[y0:y1, x0:x1] = False
    assert np.array_equal(again.pixels[outside], cell.pixels[outside]), "put back as an edit is"
    assert np.abs(again.pixels[~outside].astype(int) - cell.pixels[~outside]).mean() > 1
