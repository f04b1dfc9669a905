"""Variations against known physics: laws, published values, independent integrals."""

from pathlib import Path

import numpy as np
import pytest
from scipy import constants, integrate

from cytosynth.config import validated
from cytosynth.errors import UsageError, UserError
from cytosynth.registry import VARIATIONS
from cytosynth.variation import blood, defocus, staining, stitching, white_balance
from cytosynth.variation.air_bubbles import transmitted
from cytosynth.variation.catalogue import at_strength, variation, varied
from cytosynth.variation.centre import Centre, drawn, resizes, vary
from cytosynth.variation.light import coded, linear
from cytosynth.variation.sensor_noise import READ
from cytosynth.variation.style import FieldStyle, Style, measured, noise, restyled
from cytosynth.variation.view import View

NONE = np.zeros((0, 4))


def field(side: int = 160, seed: int = 0) -> np.ndarray:
    """Cells as discs on bright glass: two stains and a nucleus."""
    rng = np.random.default_rng(seed)
    densities = np.full((side, side, 3), 0.02)
    y, x = np.mgrid[:side, :side]
    eosin, green = (np.array(staining.PAPANICOLAOU[name]) for name in ("eosin", "light green"))
    for _ in range(12):
        cy, cx = rng.uniform(0, side, 2)
        distance = np.hypot(y - cy, x - cx)
        densities[distance < 22] += 0.5 * (eosin if rng.random() < 0.5 else green)
        densities[distance < 6] += 0.8 * np.array(staining.PAPANICOLAOU["haematoxylin"])
    return coded(0.9 * 10**-densities)


def angle(first: np.ndarray, second: np.ndarray) -> float:
    return float(np.degrees(np.arccos(np.clip(first @ second / np.linalg.norm(first) / np.linalg.norm(second), -1, 1))))


def test_bytes_survive_the_way_to_light_and_back() -> None:
    pixels = np.arange(256, dtype=np.uint8)[None, :, None].repeat(3, axis=2)
    assert (coded(linear(pixels)) == pixels).all()


def test_two_stains_of_a_known_mixture_are_separated() -> None:
    true = np.array([staining.PAPANICOLAOU["eosin"], staining.PAPANICOLAOU["light green"]])
    rng = np.random.default_rng(0)
    amounts = rng.gamma(1.0, 0.4, (40_000, 2)) * (rng.random((40_000, 2)) < 0.7)
    seen = staining.density(linear(coded(10 ** -(amounts @ true))), np.ones(3))
    found = staining.two_vectors(staining.stained(seen))
    assert all(angle(*pair) < 2 for pair in zip(found, true, strict=True))
    separated, rest = staining.separate(seen, found)
    bright = amounts.sum(axis=1) < 1.2  # beyond, eight bits hold little
    assert np.abs(separated - amounts)[bright].mean() < 0.02
    assert np.allclose(separated @ found + rest, seen)


def test_three_stains_far_apart_are_separated_and_those_of_papanicolaou_are_not() -> None:
    true = np.array([[0.9, 0.3, 0.2], [0.2, 0.9, 0.3], [0.3, 0.2, 0.9]])
    rng = np.random.default_rng(1)
    amounts = rng.dirichlet([0.3] * 3, 30_000) * rng.uniform(0.2, 1.0, (30_000, 1))
    found = staining.three_vectors(amounts @ true + rng.normal(0, 0.002, (30_000, 3)))
    assert all(min(angle(vector, other) for other in found) < 2 for vector in true)
    dyes = np.array(list(staining.PAPANICOLAOU.values()))
    normal = np.cross(dyes[1], dyes[2])
    assert abs(90 - angle(dyes[0], normal)) < 2, "haematoxylin lies in the plane of the other two"
    assert staining.condition(dyes) > 50
    with pytest.raises(ValueError, match="cannot be separated"):
        staining.three_vectors(np.abs(amounts @ dyes + rng.normal(0, 0.002, (30_000, 3))))


def test_four_dyes_have_no_unique_amounts_in_three_bands() -> None:
    dyes = np.array([*staining.PAPANICOLAOU.values(), (0.05, 0.3, 0.95)])
    null = np.linalg.svd(dyes.T)[2][-1]
    amounts = np.array([1.0, 1.0, 1.0, 1.0])
    other = amounts + 0.5 * null
    assert (other > 0).all() and np.abs(other - amounts).max() > 0.2
    assert np.allclose(amounts @ dyes, other @ dyes)
    with pytest.raises(ValueError, match="at most three"):
        staining.separate(np.zeros((2, 3)), dyes)


def test_a_perfect_objective_in_focus_has_the_transfer_function_of_diffraction() -> None:
    perfect = defocus.Optics(glass=0.0)
    found = defocus.transfer(0.0, 0.55, perfect)
    assert np.abs(found - defocus.diffraction(np.linspace(0, 1, len(found)))).max() < 0.01
    pixels = field()
    assert (defocus.blur(View(pixels, NONE, 0.49), 0.0, perfect).pixels == pixels).all()


@pytest.mark.parametrize("share", [0.1, 0.3, 0.6])
def test_defocus_is_the_overlap_of_two_pupils(share: float) -> None:
    """Hopkins's integral over the lens where pupils overlap, paraxial: Proc. R. Soc. A 231:91, 1955."""
    aperture, wavelength, distance = 0.1, 0.55, 60.0
    optics = defocus.Optics(aperture=aperture, glass=0.0)
    slope = 2 * np.pi / wavelength * distance * aperture**2 / 2 * 4 * share

    def chord(x: float) -> float:
        return float(np.sqrt(max(1 - (abs(x) + share) ** 2, 0.0)))

    expected = 2 * integrate.quad(lambda x: chord(x) * np.cos(slope * x), -(1 - share), 1 - share, limit=200)[0] / np.pi
    found = defocus.transfer(distance, wavelength, optics)
    assert abs(found[round(share * (len(found) - 1))] - expected) < 0.01


def test_only_spherical_aberration_distinguishes_near_from_far() -> None:
    perfect = defocus.Optics(glass=0.0)
    assert np.allclose(defocus.transfer(3.0, 0.55, perfect), defocus.transfer(-3.0, 0.55, perfect), atol=1e-9)
    near, far = defocus.transfer(3.0, 0.55), defocus.transfer(-3.0, 0.55)
    assert np.abs(near - far).max() > 0.05
    view = View(field(), NONE, 0.49)
    assert (varied(view, "defocus", 3, 0, "a").pixels != varied(view, "defocus", -3, 0, "a").pixels).any()


def test_motion_spreads_a_point_over_its_length() -> None:
    pixels = np.zeros((129, 129, 3), dtype=np.uint8)
    pixels[64, 64] = 255
    spread = linear(varied(View(pixels, NONE, 0.5), "motion", 10.0, 0, "a").pixels)[..., 0].astype(float)
    y, x = np.mgrid[:129, :129] - 64
    spread[spread < 0.004] = 0  # ringing of the exact line, cut at 0 by bytes
    spread /= spread.sum()
    covariance = [[(spread * a * b).sum() for a in (x, y)] for b in (x, y)]
    across, along = np.sqrt(np.linalg.eigvalsh(covariance))
    assert abs(along - 20 / np.sqrt(12)) < 0.5 and across < 1.2


def test_noise_has_the_variance_of_counted_electrons() -> None:
    grey = coded(np.full((200, 200, 3), 0.4))
    noisy = linear(varied(View(grey, NONE, 0.49), "sensor-noise", 500, 0, "a").pixels)
    level = linear(grey)[0, 0, 0]
    assert abs(noisy.mean() - level) < 0.002
    assert abs(noisy.var() / ((level * 500 + READ**2) / 500**2) - 1) < 0.05


def test_gains_of_a_lamp_follow_planck() -> None:
    h, c, k = constants.h, constants.c, constants.k

    def radiance(micrometres: float, kelvin: float) -> float:
        metres = micrometres * 1e-6
        return float(2 * h * c**2 / metres**5 / (np.exp(h * c / (metres * k * kelvin)) - 1))

    warm = 1e6 / (1e6 / 5500 + 50)
    ratio = [radiance(band, warm) / radiance(band, 5500) for band in (0.61, 0.55, 0.465)]
    assert np.allclose(white_balance.gains(50), np.array(ratio) / ratio[1], rtol=1e-4)


def test_light_lost_at_the_corner_is_what_was_asked() -> None:
    pixels = np.full((100, 140, 3), 240, dtype=np.uint8)
    light = linear(varied(View(pixels, NONE, 0.49), "vignetting", 0.4, 0, "a").pixels)[..., 0] / linear(pixels)[0, 0, 0]
    assert abs(light.min() - 0.6) < 0.01 and light.max() > 0.99


def test_thickness_scales_density() -> None:
    pixels = coded(np.full((400, 400, 3), 0.5))
    pixels[:80, :80] = 255  # bare glass
    view = varied(View(pixels, NONE, 1.0), "thickness", 0.2, 0, "a")
    path = -np.log10(linear(view.pixels)[80:, :, 0]) / -np.log10(linear(pixels)[80, 80, 0])
    assert abs(path.std() - 0.2) < 0.05 and abs(path.mean() - 1) < 0.1


def test_red_cells_have_the_published_shape_and_cover_what_was_asked() -> None:
    assert blood.thickness(np.array([0.0]))[0] == pytest.approx(0.81)
    assert 2.3 < blood.thickness(np.linspace(0, 1, 200)).max() < 2.7
    assert blood.thickness(np.array([1.0, 2.0])).tolist() == [0, 0]
    white = np.full((600, 600, 3), 250, dtype=np.uint8)
    covered = varied(View(white, NONE, 0.49), "blood", 0.05, 0, "a").pixels[..., 2] < 240
    assert 0.03 < covered.mean() < 0.09


def test_a_bubble_lets_no_light_through_beyond_total_reflection() -> None:
    share = np.array([0.0, 0.3, 1 / 1.5 + 1e-6, 0.9, 1.0])
    light = transmitted(share)
    assert light[0] == 1 and 0 < light[1] < 1 and light[2] == light[3] == 0 and light[4] == 1


def test_boxes_follow_scale() -> None:
    view = varied(View(field(200), np.array([[20.0, 40, 60, 80]]), 0.5), "scale", 0.25, 0, "a")
    assert view.pixels.shape == (160, 160, 3) and view.mpp == pytest.approx(0.625)
    assert view.boxes.tolist() == [[16, 32, 48, 64]]


@pytest.mark.parametrize("seed", range(12))
def test_cells_stay_in_their_boxes_over_a_seam(seed: int) -> None:
    rng = np.random.default_rng(seed)
    pixels = np.full((120, 160, 3), 240, dtype=np.uint8)
    x, y = int(rng.integers(20, 120)), int(rng.integers(20, 80))
    pixels[y : y + 20, x : x + 20] = 30
    view = stitching.stitching(View(pixels, np.array([[x, y, x + 20.0, y + 20]]), 1.0), 8.0, rng)
    dark = np.argwhere(view.pixels[..., 0] < 100)
    x0, y0, x1, y1 = view.boxes[0]
    assert len(dark) and (dark.min(axis=0) >= (y0, x0)).all() and (dark.max(axis=0) + 1 <= (y1, x1)).all()


@pytest.mark.parametrize("name", VARIATIONS)
def test_a_variation_is_the_same_for_an_image_and_stronger_by_strength(name: str) -> None:
    pixels = field(300)
    view = View(pixels, np.array([[10.0, 10, 40, 40]]), 0.49)
    again = [at_strength(view, name, 3, 7, "a")[0] for _ in range(2)]
    assert (again[0].pixels == again[1].pixels).all() and (again[0].boxes == again[1].boxes).all()
    others = [at_strength(view, name, 3, seed, image)[0] for seed, image in ((8, "a"), (7, "b"))]
    random = name not in ("scale", "jpeg", "stain", "stain-hue", "white-balance", "defocus")  # else signs at most
    assert not random or all((other.pixels != again[0].pixels).any() for other in others)
    assert view.pixels is pixels and (pixels == field(300)).all(), "what is given stays as it is"
    if name not in ("scale", "stitching"):
        changes = [
            np.abs(at_strength(view, name, s, 7, "a")[0].pixels - pixels.astype(float)).mean() for s in (1, 3, 5)
        ]
        assert 0 < changes[0] < changes[1] < changes[2]
    low, high = variation(name).limits
    assert all(low <= amount <= high for amount in variation(name).severities)
    with pytest.raises(UsageError, match="must be between"):
        varied(view, name, high + 1, 0, "a")


def test_a_centre_samples_within_its_ranges_and_in_the_order_of_light() -> None:
    asked = {"mpp": 0.5, "variations": [
        {"name": "jpeg", "amount": [30, 60]}, {"name": "stain", "strength": [1, 2]},
        {"name": "defocus", "share": 0.5, "amount": [-2, 2]},
    ]}  # fmt: skip
    centre = validated(Centre, asked, "centre")
    got = [drawn(centre, 3, f"{index}.png") for index in range(200)]
    order = list(VARIATIONS)
    assert all([order.index(a.name) for a in one] == sorted(order.index(a.name) for a in one) for one in got)
    focus = [a.amount for one in got for a in one if a.name == "defocus"]
    assert 70 < len(focus) < 130 and min(focus) < -1.5 and max(focus) > 1.5
    assert all(30 <= a.amount <= 60 for one in got for a in one if a.name == "jpeg")
    view, record = vary(field(), NONE, centre, 3, "5.png")
    assert record == [{"name": a.name, "amount": a.amount, "unit": a.unit} for a in got[5]]
    assert (view.pixels == vary(field(), NONE, centre, 3, "5.png")[0].pixels).all()
    assert not resizes(centre)


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        ({"name": "fog", "strength": [1, 2]}, "choose one of stain"),
        ({"name": "jpeg"}, "give strength"),
        ({"name": "jpeg", "amount": [0, 50]}, "must be ascending and between 1.0 and 95.0"),
        ({"name": "stain", "strength": [3, 2]}, "ascend"),
    ],
)
def test_a_centre_that_cannot_be_is_refused(entry: dict[str, object], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        validated(Centre, {"variations": [entry]}, "centre.yaml")


def test_a_style_gives_an_image_the_statistics_of_a_field() -> None:
    source = field(256, 1)
    glass = staining.white(source)
    stained = np.array([coded(0.8 * np.array([1.0, 0.9, 0.8]) * (linear(field(256, n)) / 0.9) ** [1.6, 1.1, 0.7])
                        for n in range(2, 8)])  # fmt: skip
    style = Style.of(list(stained))
    view, number = restyled(source, NONE, style, 0.49, 0, "a.png")
    again, same = restyled(source, NONE, style, 0.49, 0, "a.png")
    assert (view.pixels == again.pixels).all() and number == same
    assert len({restyled(source, NONE, style, 0.49, 0, f"{n}.png")[1] for n in range(12)}) > 2, "fields differ by name"
    want, before, after = style.fields[number], measured(source), measured(view.pixels)

    def error(found: FieldStyle) -> float:
        return float(np.abs(np.array(found.mean) - np.array(want.mean)).max())

    assert error(after) < 0.5 * error(before)
    assert np.allclose(after.glass, want.glass, atol=0.03) and not np.allclose(glass, want.glass, atol=0.03)


def test_a_style_takes_focus_noise_and_scale() -> None:
    sharp = field(256, 1)
    soft = [varied(View(field(256, n), NONE, 0.49), "defocus", 2.5, 0, "x").pixels for n in range(2, 8)]
    view, number = restyled(sharp, np.array([[10.0, 20, 30, 40]]), Style.of(soft, 0.98), 0.49, 0, "a")
    assert view.pixels.shape[:2] == (128, 128) and view.boxes.tolist() == [[5, 10, 15, 20]] and view.mpp == 0.98
    focused = restyled(sharp, NONE, Style.of(soft), 0.49, 0, "a")[0].pixels
    want, before = Style.of(soft).fields[number].structure[0], measured(sharp).structure[0]
    assert abs(measured(focused).structure[0] - want) < 0.5 * abs(before - want)
    grey = coded(np.full((200, 200, 3), 0.4))
    noisy = varied(View(grey, NONE, 0.49), "sensor-noise", 300, 0, "a").pixels
    assert abs(noise(noisy) / linear(noisy).std() - 1) < 0.1
    with pytest.raises(UserError, match="5 to 50"):
        Style.of(soft[:3])


def test_a_finished_image_is_shown_by_its_centre_and_can_be_made_again() -> None:
    from cytosynth.synthesis.centre import boxes_shown, brought
    from cytosynth.synthesis.settings import PipelineSettings

    cell = {"bbox_xyxy": [20.0, 40.0, 60.0, 80.0], "category": "HSIL", "seed": 1}
    record = {"file_name": "000001.png", "seed": 3, "width": 200, "height": 200, "cells": [cell]}
    assert brought(field(200), record, PipelineSettings())[1] is record
    vary = {"variations": [{"name": "scale", "amount": [0.25, 0.25]}, {"name": "jpeg", "strength": [2, 2]}]}
    settings = PipelineSettings.model_validate({"vary": vary})
    pixels, made = brought(field(200), record, settings)
    assert pixels.shape[:2] == (160, 160) and boxes_shown(made) == (160, 160, [[16.0, 32.0, 48.0, 64.0]])
    assert made["cells"] == [cell] and made["width"] == 200, "the plan keeps the geometry of the edit"
    assert made["shown"]["variations"][0] == {"name": "scale", "amount": 0.25, "unit": "relative"}
    assert boxes_shown(record) == (200, 200, [[20.0, 40.0, 60.0, 80.0]])


def test_training_images_vary_at_every_step_or_as_copies() -> None:
    from cytosynth.annotations import Cell
    from cytosynth.data.sources import Sample
    from cytosynth.data.varied import at_this_step, keep_size, with_copies

    centre = validated(Centre, {"variations": [{"name": "scale", "amount": [0.2, 0.3]}]}, "centre")
    sample = Sample("a.png", "set", field(100), (Cell((10.0, 10.0, 50.0, 50.0), "NILM"),))
    rng = np.random.default_rng(0)
    first, second = (at_this_step(sample.pixels, sample.cells, centre, rng) for _ in range(2))
    assert first[0].shape != second[0].shape
    assert first[1][0].size[0] == pytest.approx(40 * first[0].shape[1] / 100)
    assert at_this_step(sample.pixels, sample.cells, None, rng)[0] is sample.pixels
    copies = with_copies([sample], centre, 2, 7)
    assert copies[0] is sample and len(copies) == 3 and copies[1].size != copies[2].size
    assert (copies[1].pixels == copies[1].pixels).all() and copies[1].pixels.shape[1::-1] == copies[1].size
    assert copies[1].cells[0].box[2] == pytest.approx(50 * copies[1].size[0] / 100)
    with pytest.raises(UsageError, match="changes the size"):
        keep_size(centre, "the autoencoder")


def test_a_folder_of_fields_or_too_few(tmp_path: Path) -> None:
    from cytosynth.data.preview import save_png
    from cytosynth.synthesis.centre import style_of

    for number in range(6):
        save_png(field(128, number), tmp_path / "fields" / f"{number}.png")
    style = style_of(tmp_path / "fields", 0.3)
    assert len(style.fields) == 6 and style.mpp == 0.3
    for number in (0, 1):
        (tmp_path / "fields" / f"{number}.png").unlink()
    with pytest.raises(UserError, match="4 images"):
        style_of(tmp_path / "fields")
    with pytest.raises(UserError, match="a folder of"):
        style_of(tmp_path / "fields" / "5.png")
