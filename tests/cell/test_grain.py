"""Grain: what is added inside the region has the level, colours and spectrum of what the autoencoder lost around it."""

from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from conftest import drawn
from cytosynth.cell import grain
from cytosynth.cell.edit import CellEditor, PlannedEdit
from cytosynth.cell.settings import EditSettings
from cytosynth.data.image_files import Pixels

BOX = (80.0, 96.0, 176.0, 192.0)


def textured(rng: np.random.Generator, plain: np.ndarray, deviation: np.ndarray) -> Pixels:
    """Return `plain` with noise that is correlated along x and between red and green, of the `deviation` asked for."""
    white = rng.standard_normal((*plain.shape[:2], 3))
    white = (white + np.roll(white, 1, axis=1)) / np.sqrt(2)
    white[..., 1] = 0.8 * white[..., 0] + 0.6 * white[..., 1]
    return np.clip(np.rint(plain + deviation[..., None] * white), 0, 255).astype(np.uint8)


def inside(pixels: np.ndarray) -> np.ndarray:
    return pixels[96:192, 80:176].astype(np.float64)


def beside(pixels: np.ndarray, axis: int) -> float:
    """Return the correlation of red with red of the next pixel along `axis`."""
    red = np.moveaxis(pixels[..., 0], axis, 0)
    return float(np.corrcoef(red[1:].ravel(), red[:-1].ravel())[0, 1])


def test_level_colours_and_spectrum_are_those_around() -> None:
    rng = np.random.default_rng(0)
    plain = np.full((256, 256, 3), 200, np.uint8)
    plain[:, :128] = 90  # darker, and of more texture
    deviation = np.where(plain[..., 0] == 90, 9.0, 3.0)
    original = textured(rng, plain, deviation)
    found = inside(grain.added(plain, original, plain, BOX, seed=1)) - inside(plain)
    dark, light = found[:, :40], found[:, -40:]
    assert dark.std() == pytest.approx(9, rel=0.12)
    assert light.std() == pytest.approx(3, rel=0.12)
    lost = original - plain.astype(np.float64)
    fine = inside(lost - gaussian_filter(lost, (grain.COARSE, grain.COARSE, 0)))
    for part, given in ((dark, fine[:, :40]), (light, fine[:, -40:])):
        colours = np.corrcoef(part.reshape(-1, 3).T)
        assert colours[0, 1] == pytest.approx(0.8, abs=0.08)
        assert abs(colours[0, 2]) < 0.12
        assert beside(part, 1) == pytest.approx(beside(given, 1), abs=0.08)
        assert beside(part, 0) == pytest.approx(beside(given, 0), abs=0.08)
    assert abs(found.mean()) < 1


def test_nothing_outside_changes_and_the_seed_decides() -> None:
    rng = np.random.default_rng(1)
    plain = np.full((256, 256, 3), 150, np.uint8)
    original = textured(rng, plain, np.full((256, 256), 5.0))
    one = grain.added(plain, original, plain, BOX, seed=1)
    assert np.array_equal(one, grain.added(plain, original, plain, BOX, seed=1))
    assert not np.array_equal(one, grain.added(plain, original, plain, BOX, seed=2))
    one[96:192, 80:176] = plain[96:192, 80:176]
    assert np.array_equal(one, plain)
    half = inside(grain.added(plain, original, plain, BOX, seed=1, amount=0.5)) - 150
    assert half.std() == pytest.approx(2.5, rel=0.15)


def test_next_to_nothing_is_added_where_nothing_was_lost() -> None:
    """An edge that moved is no grain: it is bounded, and has no ghost in the region."""
    plain = np.full((256, 256, 3), 150, np.uint8)
    found = grain.added(plain, plain, plain, BOX, seed=1)
    assert np.array_equal(found, plain)
    moved = plain.copy()
    moved[20:40, 20:60] = 30
    added = inside(grain.added(plain, moved, plain, BOX, seed=1)) - 150
    assert added.std() < 25
    everything = grain.added(plain, moved, plain, (0.0, 0.0, 256.0, 256.0), seed=1)
    assert np.array_equal(everything, plain), "no surroundings, no grain"


def test_an_edit_has_it_in_the_region_and_a_whole_patch_has_none(tiny: Path) -> None:
    editor = CellEditor.load(str(tiny / "foundation"), str(tiny / "cell"))
    pixels, _ = drawn(3, 256, 256)
    edit = PlannedEdit(BOX, "HSIL", 4)

    def painted(real: bool = True, **changes: object) -> Pixels:
        settings = EditSettings.model_validate({"steps": 1, "batch": 1, **changes})
        return editor.paint([(pixels, edit)], editor.settled(settings, real=real))[0]

    without, grained = painted(), painted(grain=1)
    assert np.array_equal(painted(grain=0), without), "none unless asked for"
    assert np.array_equal(painted(real=False, grain=1), grained)
    changed = (without != grained).any(axis=-1)
    assert changed[96:192, 80:176].mean() > 0.3
    changed[96:192, 80:176] = False
    assert not changed.any()
    assert np.array_equal(painted(paste="patch", grain=1), without)
