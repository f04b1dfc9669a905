"""The size of the nucleus as a condition of stage 2."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from skimage.draw import disk

from conftest import drawn
from cytosynth.annotations import Box, Cell
from cytosynth.cell import editing, synthesizer
from cytosynth.cell.crops import Crop, crops_of, diameters
from cytosynth.cell.edit import CellEditor, PlannedEdit
from cytosynth.cell.quality import morphology
from cytosynth.cell.recipe import CellRecipe
from cytosynth.cell.settings import EditSettings
from cytosynth.cell.train import CellTask
from cytosynth.data.sources import Sample
from cytosynth.errors import UsageError
from cytosynth.foundation.load import load

BOX = (96.0, 96.0, 160.0, 160.0)


def slide(x: int, y: int, radius: int) -> np.ndarray:
    """Return a (256, 256, 3) field with one cell whose nucleus is a disc."""
    pixels = np.full((256, 256, 3), 240, np.uint8)
    pixels[disk((y, x), 50, shape=(256, 256))] = (140, 205, 190)
    pixels[disk((y, x), radius, shape=(256, 256))] = (60, 40, 90)
    return pixels


@pytest.mark.parametrize("radius", [7, 12, 16])
def test_the_square_about_a_drawn_nucleus(radius: int) -> None:
    found = morphology.nucleus_square(slide(131, 122, radius), BOX)
    assert found is not None
    assert np.allclose(found, (131.5 - radius, 122.5 - radius, 131.5 + radius, 122.5 + radius), atol=1.0)
    assert morphology.nucleus_square(np.full((256, 256, 3), 240, np.uint8), BOX) is None


@pytest.mark.parametrize("factor", [4, 8])
def test_the_disc_covers_its_area_about_its_middle(factor: int) -> None:
    disc = synthesizer.disc_of((100.0, 60.0, 130.0, 90.0), 256, factor)
    assert disc.shape == (1, 256 // factor, 256 // factor)
    assert float(disc.sum()) * factor**2 == pytest.approx(np.pi * 15**2, rel=0.02)
    places = (torch.arange(256 // factor) + 0.5) * factor
    middle = [float((disc[0].sum(axis) * places).sum() / disc.sum()) for axis in (0, 1)]
    assert middle == pytest.approx([115, 75], abs=0.1)
    assert not synthesizer.disc_of(None, 256, factor).any()


def test_the_mask_is_below_zero_where_the_nucleus_shall_be_and_the_background_stays() -> None:
    latents = torch.randn(1, 4, 32, 32)
    mask = synthesizer.mask_of(BOX, 256, 8)[None]
    disc = synthesizer.disc_of((112.0, 112.0, 144.0, 144.0), 256, 8)[None]
    extra = synthesizer.extra_channels(latents, mask, disc)
    assert torch.equal(extra[:, :4], latents * mask)
    assert extra[0, 4, 16, 16] == -1 and extra[0, 4, 0, 0] == 1 and extra[0, 4, 12, 12] == 0


def test_crops_know_their_nucleus_through_turns_and_moves() -> None:
    pixels = np.full((700, 800, 3), 240, np.uint8)
    pixels[disk((350, 400), 50)] = (140, 205, 190)
    pixels[disk((353, 396), 11)] = (60, 40, 90)
    recipe = CellRecipe(nucleus=True, jitter=30, variants=8)
    crops = crops_of([Sample("a", "s", pixels, (Cell((380.0, 330.0, 420.0, 370.0), "HSIL"),))], recipe, 8)
    for crop in crops:
        assert crop.nucleus is not None
        x, y = ((crop.nucleus[0] + crop.nucleus[2]) / 2, (crop.nucleus[1] + crop.nucleus[3]) / 2)
        dark = np.argwhere(crop.pixels[..., 0] == 60)
        assert (y, x) == pytest.approx(tuple(dark.mean(axis=0) + 0.5), abs=0.6)
    plain = crops_of([Sample("a", "s", pixels, (Cell((380.0, 330.0, 420.0, 370.0), "HSIL"),))], CellRecipe(), 1)
    assert plain[0].nucleus is None


def with_nuclei(name: str, sizes: list[float], image: int = 0) -> list[Crop]:
    rng = np.random.default_rng(0)

    def square(size: float) -> Box:
        return 32 - size / 2, 32 - size / 2, 32 + size / 2, 32 + size / 2

    pixels = rng.integers(0, 256, (64, 64, 3), np.uint8)
    return [Crop(pixels, (16.0, 16.0, 48.0, 48.0), name, square(size), image) for size in sizes]


def test_diameters_are_sampled_from_those_of_the_training_cells() -> None:
    sizes = np.random.default_rng(1).normal(24, 4, 400).tolist()
    known = diameters([*with_nuclei("LSIL", sizes), Crop(np.zeros((64, 64, 3), np.uint8), BOX, "HSIL")])
    assert set(known) == {"LSIL"}
    assert np.allclose(known["LSIL"], np.quantile(sizes, editing.QUANTILES), atol=0.01)
    trained = editing.Editing(nucleus=known)
    values = [trained.diameter("LSIL", seed) for seed in range(500)]
    assert np.allclose(np.quantile(values, (0.25, 0.5, 0.75)), np.quantile(sizes, (0.25, 0.5, 0.75)), rtol=0.05)
    assert trained.diameter("HSIL", 0) is None
    assert editing.Editing().diameter("LSIL", 0) is None


def test_images_with_many_cells_do_not_outweigh_those_with_few(tiny: Path, tmp_path: Path) -> None:
    crops = with_nuclei("LSIL", [20.0] * 9, image=0) + with_nuclei("LSIL", [20.0], image=1)

    def of_second(balance: float) -> float:
        recipe = CellRecipe(foundation=str(tiny / "foundation"), image_balance=balance)
        weights = CellTask(recipe, load(recipe.foundation), crops, [], tmp_path).weights
        return float(weights[-1] / weights.sum())

    assert [of_second(balance) for balance in (0.0, 0.5, 1.0)] == pytest.approx([0.1, 1 / (1 + 3), 0.5])


def test_the_condition_reaches_the_network_and_is_written_with_the_weights(tiny: Path, tmp_path: Path) -> None:
    recipe = CellRecipe(foundation=str(tiny / "foundation"), nucleus=True, nucleus_dropout=0.5)
    task = CellTask(recipe, load(recipe.foundation), with_nuclei("HSIL", [16.0, 24.0]), [], tmp_path / "latents")
    shown = task.batch(np.random.default_rng(0), 400)["nuclei"].amax((1, 2, 3)) > 0
    assert shown.float().mean() == pytest.approx(0.5, abs=0.08)
    with torch.no_grad():
        task.unet.conv_in.weight[:, -1] += 1  # the mask: 0 before training
    task.export(tmp_path / "weights")
    written = json.loads((tmp_path / "weights" / editing.FILE).read_text())
    assert len(written["nucleus"]["HSIL"]) == len(editing.QUANTILES)
    editor = CellEditor.load(str(tiny / "foundation"), str(tmp_path / "weights"))
    edit = PlannedEdit((100.0, 100.0, 160.0, 170.0), "HSIL", 5)
    square = editor.nucleus(edit)
    assert square is not None and square[2] - square[0] == pytest.approx(editor.trained.diameter("HSIL", 5))
    assert ((square[0] + square[2]) / 2, (square[1] + square[3]) / 2) == (130.0, 135.0)
    larger = editor.nucleus(edit, scale={"HSIL": 1.5})
    assert larger is not None and larger[2] - larger[0] == pytest.approx(1.5 * editor.trained.diameter("HSIL", 5))
    pixels = np.ascontiguousarray(drawn(4)[0])
    fast = EditSettings(steps=2)
    sized = editor.edit(pixels, [edit], fast)
    own = editor.edit(pixels, [edit], fast.model_copy(update={"nucleus_scale": {"HSIL": 1.5}}))
    assert not np.array_equal(sized, own)
    editor.trained = editor.trained.model_copy(update={"nucleus_scale": {"HSIL": 1.5}})
    assert np.array_equal(own, editor.edit(pixels, [edit], fast)), (
        "the synthesizer's, unless the settings say otherwise"
    )
    assert np.array_equal(sized, editor.edit(pixels, [edit], fast.model_copy(update={"nucleus_scale": {}})))
    assert editor.settled(fast, real=True).nucleus_scale == {"HSIL": 1.5}
    with pytest.raises(UsageError, match=r"nucleus_scale={.SCC.: 2.0}: 'SCC': .* no size .* it has HSIL"):
        editor.settled(fast.model_copy(update={"nucleus_scale": {"SCC": 2.0}}), real=True)
    editor.trained = editing.Editing()
    assert not np.array_equal(sized, editor.edit(pixels, [edit], fast))
