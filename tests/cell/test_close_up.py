"""Editing an enlarged close-up of a patch (`zoom`)."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from skimage.draw import disk

from conftest import drawn
from cytosynth.annotations import Cell
from cytosynth.cell import editing, patch, synthesizer
from cytosynth.cell.close_up import CloseUp
from cytosynth.cell.crops import crops_of, diameters
from cytosynth.cell.edit import CellEditor, PlannedEdit
from cytosynth.cell.recipe import CellRecipe
from cytosynth.cell.settings import EditSettings
from cytosynth.data.sources import Sample
from cytosynth.errors import UserError
from cytosynth.foundation import sampling

SETTINGS = EditSettings(steps=2, batch=2)


def field(width: int = 320, height: int = 320) -> np.ndarray:
    """Return a field with a cell in the middle of its upper left quarter, its nucleus a disc of radius 11."""
    pixels = np.full((height, width, 3), 240, np.uint8)
    pixels[disk((170, 150), 50)] = (140, 205, 190)
    pixels[disk((170, 150), 11)] = (60, 40, 90)
    return pixels


@pytest.fixture(scope="module")
def zoomed(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> CellEditor:
    """Return a tiny synthesizer that was trained on close-ups of twice the size."""
    folder = tmp_path_factory.mktemp("zoomed") / "cell"
    folder.mkdir()
    for file in (tiny / "cell").iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    (folder / editing.FILE).write_text(json.dumps({"zoom": 2, "nucleus": {"HSIL": [20.0] * 10}}))
    return CellEditor.load(str(tiny / "foundation"), str(folder))


@pytest.mark.parametrize("zoom", [1.0, 1.5, 2.0, 4.0])
def test_what_lies_where_in_the_patch_lies_there_in_the_close_up(zoom: float) -> None:
    window = field()[:256, :256]
    box = (135.0, 155.0, 165.0, 185.0)
    close = CloseUp.of(box, zoom)
    assert close.side == round(256 / zoom)
    enlarged = close.of_patch(window)
    assert enlarged.shape == (256, 256, 3)
    dark = np.argwhere(enlarged[..., 0] < 100)
    x0, y0, x1, y1 = close.inner(box)
    assert dark.mean(axis=0) + 0.5 == pytest.approx(((y0 + y1) / 2 + zoom / 2, (x0 + x1) / 2 + zoom / 2), abs=0.3)
    assert len(dark) == pytest.approx(np.pi * (11 * zoom) ** 2, rel=0.06)


def test_without_zoom_the_close_up_is_the_patch() -> None:
    window = drawn(3)[0][:256, :256]
    close = CloseUp.of((20.0, 30.0, 90.0, 80.0), 1.0)
    assert close == CloseUp((0, 0), 256)
    assert np.array_equal(close.of_patch(window), window)
    assert close.inner((20.0, 30.0, 90.0, 80.0)) == (20.0, 30.0, 90.0, 80.0)
    decoded = 255 - window
    assert np.array_equal(close.put_back(window, decoded, (20.0, 30.0, 90.0, 80.0)), decoded)


@pytest.mark.parametrize("box", [(0.0, 0.0, 60.0, 40.0), (200.0, 190.0, 256.0, 256.0), (80.0, 20.0, 256.0, 236.0)])
def test_close_ups_lie_in_their_patch_and_hold_the_region_with_a_margin(box: tuple[float, ...]) -> None:
    close = CloseUp.of(box, 2.0)
    x, y = close.at
    assert 0 <= x <= 256 - close.side and 0 <= y <= 256 - close.side
    x0, y0, x1, y1 = close.inner(box)
    assert min(x0, y0) >= 0 and max(x1, y1) <= 256
    assert max(x1 - x0, y1 - y0) <= patch.MOST + 1e-6
    assert close.zoom <= 2


def test_put_back_a_close_up_that_nothing_changed_is_the_patch() -> None:
    window = field()[:256, :256]
    close = CloseUp.of((120.0, 140.0, 180.0, 200.0), 2.0)
    back = close.put_back(window, close.of_patch(window), (120.0, 140.0, 180.0, 200.0))
    x, y = close.at
    outside = np.ones((256, 256), bool)
    outside[y : y + close.side, x : x + close.side] = False
    assert np.array_equal(back[outside], window[outside])
    assert np.abs(back.astype(int) - window).mean() < 0.5


def test_a_close_up_whose_colours_moved_gets_those_of_its_background_back() -> None:
    window = field()[:256, :256]
    box = (120.0, 140.0, 180.0, 200.0)
    close = CloseUp.of(box, 2.0)
    moved = (close.of_patch(window).astype(int) - 7).clip(0, 255).astype(np.uint8)
    assert np.abs(close.put_back(window, moved, box).astype(int) - window).mean() < 0.5


def test_an_edit_changes_nothing_outside_its_region_and_does_not_depend_on_others(zoomed: CellEditor) -> None:
    pixels = field()
    edits = [PlannedEdit((130.0, 150.0, 170.0, 190.0), "HSIL", 1), PlannedEdit((240.0, 20.0, 290.0, 70.0), "LSIL", 2)]
    both = zoomed.edit(pixels, edits, SETTINGS)
    changed = (both != pixels).any(axis=2)
    inside = np.zeros_like(changed)
    for edit in edits:
        x0, y0, x1, y1 = (int(value) for value in edit.box)
        inside[y0:y1, x0:x1] = True
        assert changed[y0:y1, x0:x1].mean() > 0.3
    assert not changed[~inside].any()
    alone = zoomed.edit(zoomed.edit(pixels, edits[1:], SETTINGS), edits[:1], SETTINGS)
    x0, y0, x1, y1 = (int(value) for value in edits[1].box)
    assert np.array_equal(alone[y0:y1, x0:x1], both[y0:y1, x0:x1])


def test_the_network_is_given_the_enlarged_region_and_nucleus(
    zoomed: CellEditor, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[dict[str, torch.Tensor]] = []
    real = sampling.guided

    def noted(*args: object, **named: object) -> object:
        seen.append({"extra": named["extra_channels"], **named["grounding"]})  # type: ignore[dict-item]
        return real(*args, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(sampling, "guided", noted)
    edit = PlannedEdit((130.0, 150.0, 170.0, 190.0), "HSIL", 1)
    zoomed.edit(field(), [edit], SETTINGS.model_copy(update={"batch": 1}))
    assert seen[0]["boxes"][0, 0].tolist() == pytest.approx([88 / 256, 88 / 256, 168 / 256, 168 / 256])
    mask = seen[0]["extra"][:1, -1:]
    box = synthesizer.mask_of((88, 88, 168, 168), 256, 8)
    disc = synthesizer.disc_of((108, 108, 148, 148), 256, 8)
    assert torch.allclose(mask[0], box - disc)
    assert float(disc.sum()) * 64 == pytest.approx(np.pi * 20**2, rel=0.02), "20 pixels of the image in diameter"


def test_crops_of_twice_the_size_have_nuclei_of_the_same_size_in_the_image() -> None:
    cell = Cell((130.0, 150.0, 170.0, 190.0), "HSIL")
    recipe = CellRecipe(nucleus=True, jitter=30, variants=8)
    found = {zoom: crops_of([Sample("a", "s", field(), (cell,))], recipe, 8, zoom) for zoom in (1.0, 2.0)}
    for zoom, crops in found.items():
        for crop in crops:
            assert crop.zoom == zoom and crop.pixels.shape == (256, 256, 3)
            assert crop.box[2] - crop.box[0] == pytest.approx(40 * zoom)
            dark = np.argwhere(crop.pixels[..., 0] < 100)
            assert crop.nucleus is not None
            x, y = ((crop.nucleus[0] + crop.nucleus[2]) / 2, (crop.nucleus[1] + crop.nucleus[3]) / 2)
            assert (y, x) == pytest.approx(tuple(dark.mean(axis=0) + 0.5), abs=1.5)
    assert diameters(found[2.0])["HSIL"] == pytest.approx(diameters(found[1.0])["HSIL"], rel=0.01)


def test_a_card_with_a_wrong_zoom_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / editing.FILE).write_text(json.dumps({"zoom": 0.5}))
    with pytest.raises(UserError, match=r"editing\.json.*zoom.*1"):
        editing.read(tmp_path)
