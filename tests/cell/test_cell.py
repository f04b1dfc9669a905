from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionGLIGENPipeline
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from conftest import drawn
from cytosynth.annotations import Cell
from cytosynth.bethesda import abnormal_prompt
from cytosynth.cell import patch, synthesizer
from cytosynth.cell.choose import choose, overlap
from cytosynth.cell.edit import CellEditor, PlannedEdit
from cytosynth.cell.settings import EditSettings
from cytosynth.data import augment
from cytosynth.errors import UserError
from cytosynth.foundation import samplers

FAST = EditSettings(steps=2, batch=2)


@pytest.fixture(scope="module")
def editor(tiny) -> CellEditor:
    return CellEditor.load(str(tiny / "foundation"), str(tiny / "cell"))


def planned() -> list[PlannedEdit]:
    return [
        PlannedEdit((0.0, 10.0, 70.0, 90.0), "HSIL", 1),
        PlannedEdit((230.0, 200.0, 320.0, 288.0), "ASC-US", 2),
        PlannedEdit((120.0, 100.0, 200.0, 180.0), "LSIL", 3),
    ]


def test_nothing_outside_the_boxes_changes_by_a_bit(editor: CellEditor) -> None:
    pixels, _ = drawn(1)
    edited = editor.edit(pixels, planned(), FAST)
    inside = np.zeros(pixels.shape[:2], bool)
    for edit in planned():
        x0, y0, x1, y1 = map(int, edit.box)
        inside[y0:y1, x0:x1] = True
        assert not np.array_equal(edited[y0:y1, x0:x1], pixels[y0:y1, x0:x1])
    assert np.array_equal(edited[~inside], pixels[~inside])


def test_batched_equals_one_by_one_whatever_the_order(editor: CellEditor) -> None:
    pixels, _ = drawn(1)
    together = editor.edit(pixels, planned(), FAST)
    apart = pixels
    for edit in planned():
        alone = editor.edit(pixels, [edit], FAST)
        x0, y0, x1, y1 = map(int, edit.box)
        apart = apart.copy()
        apart[y0:y1, x0:x1] = alone[y0:y1, x0:x1]
    reverse = editor.edit(pixels, planned()[::-1], FAST)
    assert np.abs(together.astype(int) - apart.astype(int)).max() <= 2
    assert np.abs(together.astype(int) - reverse.astype(int)).max() <= 2


def test_seed_and_class_decide_the_edit(editor: CellEditor) -> None:
    pixels, _ = drawn(1)
    box = planned()[2].box
    first = editor.edit(pixels, [PlannedEdit(box, "HSIL", 1)], FAST)
    assert np.array_equal(first, editor.edit(pixels, [PlannedEdit(box, "HSIL", 1)], FAST))
    assert not np.array_equal(first, editor.edit(pixels, [PlannedEdit(box, "HSIL", 2)], FAST))
    assert not np.array_equal(first, editor.edit(pixels, [PlannedEdit(box, "ASC-US", 1)], FAST))


def test_an_image_smaller_than_a_patch_is_refused(editor: CellEditor) -> None:
    with pytest.raises(UserError, match=r"\(200x200\) is smaller than a patch of 256"):
        editor.edit(np.zeros((200, 200, 3), np.uint8), planned(), FAST)


@settings(max_examples=200)
@given(st.floats(0, 1000), st.floats(0, 700), st.floats(1, 90), st.floats(1, 90), st.floats(0.5, 4))
def test_patches_lie_inside_and_hold_the_region(x: float, y: float, w: float, h: float, factor: float) -> None:
    box = (min(x, 999.0), min(y, 699.0), min(x + w, 1000.0), min(y + h, 700.0))
    region = patch.enlarge(box, factor, 1000, 700)
    corner = patch.corner(region, 1000, 700)
    assert 0 <= corner[0] <= 1000 - 256
    assert 0 <= corner[1] <= 700 - 256
    assert corner[0] <= region[0] < region[2] <= corner[0] + 256
    assert corner[1] <= region[1] < region[3] <= corner[1] + 256


def test_the_patch_is_centred_away_from_borders() -> None:
    assert patch.corner((500, 300, 520, 340), 1000, 700) == (510 - 128, 320 - 128)
    assert patch.corner((0, 690, 10, 700), 1000, 700) == (0, 700 - 256)


def test_the_mask_covers_every_latent_cell_that_the_box_touches() -> None:
    mask = synthesizer.mask_of((7.0, 16.0, 25.0, 31.9), 256, 8)
    zeros = {(int(y), int(x)) for y, x in torch.nonzero(mask[0] == 0)}
    assert zeros == {(y, x) for y in (2, 3) for x in (0, 1, 2, 3)}
    assert mask.shape == (1, 32, 32)


def test_channels_are_in_gligens_order() -> None:
    latents, masks = torch.randn(2, 4, 8, 8), (torch.rand(2, 1, 8, 8) > 0.5).float()
    extra = synthesizer.extra_channels(latents, masks)
    assert torch.equal(extra[:, :4], latents * masks)
    assert torch.equal(extra[:, 4:], masks)


@settings(max_examples=60)
@given(st.integers(0, 10_000), st.integers(1, 8), st.integers(0, 30))
def test_chosen_regions_never_overlap(seed: int, most: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    centres = rng.uniform(20, 1000, (count, 2))
    cells = [Cell((x - 20, y - 20, x + 20, y + 20), "NILM", 0.9) for x, y in centres]
    chosen = choose(
        cells,
        (1024, 1024),
        EditSettings(),
        np.random.default_rng(seed),
        max_cells=most,
        category_weights={"HSIL": 1, "LSIL": 0},
    )
    assert len(chosen) <= most
    assert len(chosen) >= min(1, count)
    assert all(edit.category == "HSIL" for _, edit in chosen)
    regions = [edit.box for _, edit in chosen]
    assert not any(overlap(a, b) for i, a in enumerate(regions) for b in regions[:i])
    assert all(r[0] >= 0 and r[1] >= 0 and r[2] <= 1024 and r[3] <= 1024 for r in regions)


def test_numbers_of_cells_and_categories_follow_what_is_asked() -> None:
    cells = [Cell((x, y, x + 30.0, y + 30.0), "NILM", 0.9) for x in range(40, 950, 90) for y in range(40, 950, 90)]
    numbers, categories = [], []
    for seed in range(300):
        chosen = choose(
            cells,
            (1024, 1024),
            EditSettings(),
            np.random.default_rng(seed),
            max_cells=8,
            category_weights={"HSIL": 3, "LSIL": 1},
        )
        numbers.append(len(chosen))
        categories += [edit.category for _, edit in chosen]
    assert set(numbers) == set(range(1, 9)), "1 to 8, all of them"
    assert 0.70 < categories.count("HSIL") / len(categories) < 0.80


def test_boxes_follow_every_flip_and_turn() -> None:
    image = np.zeros((40, 60, 1), np.uint8)
    image[5:9, 10:22] = 1
    for turn in range(8):
        turned = augment.d4(image, turn)[..., 0]
        x0, y0, x1, y1 = map(int, augment.d4_box((10, 5, 22, 9), turn, 60, 40))
        assert turned[y0:y1, x0:x1].all()
        assert turned.sum() == (y1 - y0) * (x1 - x0) == 48
    assert len({augment.d4(image, turn).tobytes() for turn in range(8)}) == 8


def test_paste_blends_inside_the_edge_only() -> None:
    pixels = np.zeros((300, 300, 3), np.uint8)
    patch.paste(pixels, np.full((256, 256, 3), 200, np.uint8), (20, 20), (50.0, 60.0, 110.0, 120.0), feather=8)
    assert pixels[90, 80, 0] == 200
    assert 0 < pixels[90, 50, 0] < pixels[90, 53, 0] < 200
    assert pixels[90, 49].max() == pixels[59, 80].max() == pixels[120, 80].max() == 0


def test_a_rounded_outline_leaves_the_corners_and_has_no_straight_edge() -> None:
    pixels = np.zeros((300, 300, 3), np.uint8)
    box = (50.0, 60.0, 110.0, 120.0)
    patch.paste(pixels, np.full((256, 256, 3), 200, np.uint8), (20, 20), box, feather=8, rounded=True)
    put = pixels[..., 0]
    assert put[90, 80] == 200
    assert put[60, 50] == put[119, 109] == 0  # the corners
    outside = np.ones((300, 300), bool)
    outside[60:120, 50:110] = False
    assert not put[outside].any()
    firsts = [int(np.nonzero(row)[0][0]) for row in put[65:115]]
    assert max(Counter(firsts).values()) < 20  # of 50 lines: a box would begin all of them at one column


def test_a_rounded_outline_is_the_ellipse_in_the_box() -> None:
    pixels = np.zeros((300, 300, 3), np.uint8)
    patch.paste(pixels, np.full((256, 256, 3), 200, np.uint8), (20, 20), (50.0, 60.0, 130.0, 120.0), 0, rounded=True)
    y, x = np.mgrid[:300, :300] + 0.5
    wanted = ((x - 90) / 40) ** 2 + ((y - 90) / 30) ** 2 < 1
    assert np.array_equal(pixels[..., 0] > 0, wanted)


def test_the_background_says_how_far_the_colours_moved() -> None:
    original = np.random.default_rng(0).integers(60, 180, (64, 64, 3)).astype(np.uint8)
    moved = original + np.array([10, 0, 20], np.uint8)
    moved[10:30, 20:50] = 200
    matched = patch.match_background(moved, original, (20.0, 10.0, 50.0, 30.0))
    outside = np.ones((64, 64), bool)
    outside[10:30, 20:50] = False
    assert np.array_equal(matched[outside], original[outside])
    assert matched[15, 30].tolist() == [190, 200, 180]


def test_the_network_is_given_what_diffusers_gligen_inpainting_gives_it(tiny: Path) -> None:
    """Channels, mask, boxes, phrases and what is withheld from the unguided half; the pipeline pads to 30 objects."""
    editor = CellEditor.load(str(tiny / "foundation"), str(tiny / "cell"))
    model = editor.model
    with torch.no_grad():
        model.vae.quant_conv.bias[4:] = -30.0  # the pipeline samples the posterior, ours takes its mode
        model.vae.quant_conv.weight[4:] = 0.0
    theirs = StableDiffusionGLIGENPipeline(
        model.vae, model.text_encoder, model.tokenizer, model.unet, samplers.build("ddim", model.scheduler), None, None,
        requires_safety_checker=False,
    )  # fmt: skip
    theirs.set_progress_bar_config(disable=True)
    seen: list[tuple] = []
    hook = model.unet.register_forward_hook(lambda _, given, kwargs, out: seen.append((given, out)), with_kwargs=True)
    side = model.vae.config.sample_size
    field = np.ascontiguousarray(drawn(4)[0][:side, :side])
    box = (16.0, 8.0, 48.0, 40.0)
    gligen: dict[str, torch.Tensor] = {}
    project = model.unet.position_net.forward
    model.unet.position_net.forward = lambda **given: (gligen.update(given), project(**given))[1]
    theirs(
        abnormal_prompt("HSIL"), height=side, width=side, num_inference_steps=2, guidance_scale=5.0,
        output_type="latent",
        gligen_phrases=["HSIL"], gligen_boxes=[[value / side for value in box]],
        gligen_inpaint_image=Image.fromarray(field), gligen_scheduled_sampling_beta=1.0,
    )  # fmt: skip
    hook.remove()
    shown, output = seen[0]
    with torch.no_grad():
        clean = model.encode_pixels(field[None])
        extra = synthesizer.extra_channels(clean, synthesizer.mask_of(box, side, 8)[None])
        assert torch.allclose(shown[0][0, 4:], extra[0], atol=1e-4)
        ours = synthesizer.grounding([box], side, model.pool_text(["HSIL"]))
        for name, expected in (("boxes", ours["boxes"]), ("positive_embeddings", ours["positive_embeddings"])):
            assert torch.allclose(gligen[name][1, :1], expected[0], atol=1e-5), name
        assert gligen["masks"].tolist() == [[0.0] * 30, [1.0] + [0.0] * 29], "unguided half first, nothing shown to it"
        padded = {key: torch.cat([value, torch.zeros(1, 29, *value.shape[2:])], 1) for key, value in ours.items()}
        doubled = {key: torch.cat([value, value]) for key, value in padded.items()}
        doubled["masks"][0] = 0
        model.unet.position_net.forward = project
        text = model.encode_text(["", abnormal_prompt("HSIL")])
        latents = torch.cat([shown[0][:1, :4], extra], 1)
        again = model.unet(torch.cat([latents] * 2), shown[1], text, cross_attention_kwargs={"gligen": doubled}).sample
    assert torch.allclose(again, output.sample, atol=1e-4)
