"""The training practice in numbers: weights of the loss, noise, accumulation, averages, rates, contents of batches."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler
from diffusers.training_utils import compute_snr
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import nn

from conftest import drawn
from cytosynth.annotations import Cell
from cytosynth.cell import patch
from cytosynth.cell.crops import Crop, crops_of
from cytosynth.cell.recipe import BUNDLED_RECIPE, PAPER, CellRecipe
from cytosynth.cell.train import CellTask
from cytosynth.data import augment
from cytosynth.data.sources import Sample
from cytosynth.errors import UserError
from cytosynth.foundation import load as foundations
from cytosynth.foundation import noise
from cytosynth.normal.recipe import NormalRecipe
from cytosynth.normal.train import NormalTask
from cytosynth.normal.windows import Windows, normal_images
from cytosynth.training.loop import train
from cytosynth.training.optimizer import lr_factor
from cytosynth.training.recipe import Recipe
from cytosynth.training.task import Batch, Losses, Task


def schedule(prediction: str = "epsilon") -> DDPMScheduler:
    return DDPMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", prediction_type=prediction
    )  # fmt: skip


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_min_snr_weights_are_those_of_diffusers_training_script(prediction: str) -> None:
    torch.manual_seed(0)
    timesteps = torch.tensor([3, 200, 500, 990])
    given, target = torch.randn(4, 4, 8, 8), torch.randn(4, 4, 8, 8)
    snr = compute_snr(schedule(prediction), timesteps)
    weights = torch.minimum(snr, torch.full_like(snr, 5.0)) / (snr if prediction == "epsilon" else snr + 1)
    expected = ((given - target).square().mean(dim=(1, 2, 3)) * weights).mean()
    assert float(noise.loss(schedule(prediction), given, target, timesteps, 5.0)) == pytest.approx(float(expected))


def test_offset_noise_adds_one_value_per_channel() -> None:
    clean = torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    torch.manual_seed(7)
    plain, constant = torch.randn(3, 4, 8, 8), torch.randn(3, 4, 1, 1)
    expected = torch.randint(0, 1000, (3,))
    torch.manual_seed(7)
    noisy, target, timesteps = noise.add_noise(schedule(), clean, 0.1)
    assert torch.equal(timesteps, expected)
    assert torch.allclose(target, plain + 0.1 * constant)
    kept = schedule().alphas_cumprod[timesteps][:, None, None, None]
    assert torch.allclose(noisy, kept.sqrt() * clean + (1 - kept).sqrt() * (plain + 0.1 * constant), atol=1e-5)


class Pull(Task):
    """One weight, pulled towards what each batch holds."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([2.0]))
        self.seen: list[float] = []

    def batch(self, rng: np.random.Generator, size: int) -> Batch:
        values = rng.normal(size=size).astype(np.float32)
        self.seen.append(float(values.mean()))
        return {"values": torch.from_numpy(values)}

    def forward(self, batch: Batch) -> Losses:
        return {"loss": (self.weight - batch["values"]).square().mean()}

    def export(self, folder: Path) -> None:
        save_file({"weight": self.weight.detach().clone()}, folder / "model.safetensors")


def test_accumulated_steps_follow_the_mean_gradient(tmp_path: Path) -> None:
    task = Pull()
    recipe = Recipe(
        max_steps=2, batch_size=2, gradient_accumulation=3, optimizer="sgd", learning_rate=0.1, weight_decay=0.0,
        max_grad_norm=1e6, log_every=1,
    )  # fmt: skip
    outcome = train(lambda: task, recipe, tmp_path, title="pull")
    assert len(task.seen) == 6
    weight, momentum = 2.0, 0.0
    for first in (0, 3):
        momentum = 0.9 * momentum + np.mean([2 * (weight - value) for value in task.seen[first : first + 3]])
        weight -= 0.1 * momentum
    assert float(load_file(outcome.weights / "model.safetensors")["weight"]) == pytest.approx(weight, rel=1e-5)


def test_what_is_exported_is_the_moving_average(tmp_path: Path) -> None:
    recipe = Recipe(
        max_steps=5, optimizer="sgd", learning_rate=0.1, weight_decay=0.0, max_grad_norm=1e6, ema_decay=0.7,
        checkpoint_every=1, keep_checkpoints=9,
    )  # fmt: skip
    outcome = train(Pull, recipe, tmp_path, title="pull")
    steps = [tmp_path / f"checkpoints/step-{step:08d}" for step in range(1, 6)]
    raw = [float(load_file(step / "weights.safetensors")["weight"]) for step in steps]
    averaged = float(load_file(steps[-1] / "ema.safetensors")["0"])
    exported = float(load_file(outcome.weights / "model.safetensors")["weight"])
    assert exported == averaged != pytest.approx(raw[-1], abs=1e-3)
    expected = 2.0
    for step, value in enumerate(raw):
        decay = min(0.7, 1 - (1 + step) ** -0.75)  # diffusers' warm-up of the decay, power 3/4
        expected = decay * expected + (1 - decay) * value
    assert averaged == pytest.approx(expected, rel=1e-5)


def test_the_rate_warms_up_and_then_stays_or_falls() -> None:
    for schedule, expected in (("constant", (0.25, 1, 1, 1)), ("cosine", (0.25, 1, 0.5, 0))):
        recipe = Recipe(max_steps=24, warmup_steps=4, lr_schedule=schedule)  # type: ignore[arg-type]
        assert [lr_factor(recipe, step) for step in (0, 3, 14, 24)] == pytest.approx(expected)


def test_no_minutes_are_no_steps_and_a_run_to_be_continued(tmp_path: Path) -> None:
    outcome = train(Pull, Recipe(max_steps=3), tmp_path, title="pull", max_minutes=0)
    assert (outcome.step, outcome.finished) == (0, False)
    assert train(Pull, Recipe(max_steps=3), tmp_path, title="pull").finished


def crops(**numbers: int) -> list[Crop]:
    rng = np.random.default_rng(0)
    return [
        Crop(rng.integers(0, 256, (64, 64, 3), np.uint8), (16.0, 16.0, 48.0, 48.0), name.replace("_", "-"))
        for name, count in numbers.items()
        for _ in range(count)
    ]


def cell_task(tiny: Path, folder: Path, held_out: list[Crop] | None = None, **changes: object) -> CellTask:
    recipe = CellRecipe.model_validate({"foundation": str(tiny / "foundation")} | changes)
    return CellTask(recipe, foundations.load(recipe.foundation), crops(LSIL=8, HSIL=2), held_out or [], folder)


def test_batches_even_out_the_classes_and_withhold_what_is_asked(tiny: Path, tmp_path: Path) -> None:
    batch = cell_task(tiny, tmp_path, balance=0.0).batch(np.random.default_rng(0), 2000)
    assert batch["category"].float().mean() == pytest.approx(0.8, abs=0.04), "HSIL 0, LSIL 1: as they are"
    apart = (~batch["captioned"] & ~batch["boxed"]).float().mean()
    assert apart == pytest.approx(0.01, abs=0.008), "dropped by themselves, prompt and token meet in one of a hundred"
    task = cell_task(tiny, tmp_path, balance=1.0, caption_dropout=1.0, box_dropout=0.0)
    batch = task.batch(np.random.default_rng(0), 2000)
    assert task.names == ["HSIL", "LSIL"]
    assert batch["category"].float().mean() == pytest.approx(0.5, abs=0.04)
    assert not batch["captioned"].any() and batch["boxed"].all()
    batch = cell_task(tiny, tmp_path, caption_dropout=0.0, box_dropout=1.0).batch(np.random.default_rng(0), 50)
    assert batch["captioned"].all() and not batch["boxed"].any()
    together = cell_task(tiny, tmp_path, caption_dropout=0.0, box_dropout=0.0, joint_dropout=0.1)
    batch = together.batch(np.random.default_rng(0), 2000)
    assert torch.equal(batch["captioned"], batch["boxed"]), "both or none"
    assert (~batch["boxed"]).float().mean() == pytest.approx(0.1, abs=0.025)
    assert PAPER.joint_dropout == BUNDLED_RECIPE.joint_dropout == 0.1


def test_cells_without_any_held_out_are_refused_in_one_line(tiny: Path, tmp_path: Path) -> None:
    for held_out in ([], crops(ASC_H=3)):
        with pytest.raises(UserError, match=r"no held-out cell of HSIL, LSIL .* validate_every=0") as caught:
            cell_task(tiny, tmp_path, held_out, validate_every=5)
        assert "\n" not in str(caught.value)
    with torch.no_grad():
        assert cell_task(tiny, tmp_path, crops(HSIL=3), validate_every=5).score() > 0


def test_previews_show_a_held_out_crop_of_each_category(tiny: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    unseen = [
        Crop(rng.integers(0, 256, (256, 256, 3), np.uint8), (96.0, 96.0, 160.0, 160.0), name)
        for name in ["HSIL"] * 40 + ["LSIL"] * 3
    ]  # fmt: skip
    cell_task(tiny, tmp_path, unseen).preview(tmp_path, 1)
    sheet = np.asarray(Image.open(tmp_path / "00000001.png"))
    assert sheet.shape == (2 * 256 + 4, 3 * 256 + 2 * 4, 3)
    for row, name in enumerate(("HSIL", "LSIL")):
        shown = sheet[row * 260 : row * 260 + 256, :256]
        assert any(np.array_equal(shown, crop.pixels) for crop in unseen if crop.category == name)


def test_jitter_moves_the_cell_off_the_middle_and_never_out_of_the_patch() -> None:
    pixels = np.zeros((700, 800, 3), np.uint8)
    small, large = Cell((390.0, 340.0, 410.0, 360.0), "HSIL"), Cell((300.0, 260.0, 500.0, 461.0), "LSIL")
    recipe = CellRecipe(jitter=40, seed=3)
    found = crops_of([Sample("a", "s", pixels, (small,))], recipe, 60)
    middles = np.array([((c.box[0] + c.box[2]) / 2, (c.box[1] + c.box[3]) / 2) for c in found]) - patch.SIZE / 2
    assert np.abs(middles).max() <= 40
    assert (middles.max(axis=0) > 30).all() and (middles.min(axis=0) < -30).all(), (
        "to all sides, nearly as far as asked"
    )
    assert np.abs(middles.mean(axis=0)).max() < 4 * 40 / np.sqrt(3 * 60), "to no side more than to another"
    again = crops_of([Sample("a", "s", pixels, (small,))], recipe, 20)
    assert [crop.box for crop in again] == [crop.box for crop in found[:20]], "whatever their number"
    others = crops_of([Sample("a", "s", pixels, (small,))], recipe.model_copy(update={"seed": 4}), 20)
    assert [crop.box for crop in others] != [crop.box for crop in again]
    pixels[340:360, 390:410] = 255  # the cell
    for crop in crops_of([Sample("a", "s", pixels, (small,))], recipe.model_copy(update={"variants": 8}), 16):
        x0, y0, x1, y1 = (round(value) for value in crop.box)
        assert (crop.pixels[y0:y1, x0:x1] == 255).all() and crop.pixels.sum() == 255 * 3 * 20 * 20, "in every turn"
    found = crops_of([Sample("a", "s", pixels, (large,))], recipe.model_copy(update={"jitter": 96}), 60)
    boxes = np.array([crop.box for crop in found])
    assert boxes.min() >= 0 and boxes.max() <= patch.SIZE, "200 pixels in a patch of 256 can move by 28"
    assert boxes[:, 0].min() <= 2 and boxes[:, 2].max() >= patch.SIZE - 2


def test_images_smaller_than_the_window_are_the_reason_that_there_is_no_normal_image() -> None:
    cells = (Cell((5.0, 5.0, 20.0, 20.0), "NILM"), Cell((30.0, 5.0, 50.0, 20.0), "LSIL"))
    image = Sample("a", "s", np.zeros((510, 688, 3), np.uint8), cells, None)
    with pytest.raises(UserError, match=r"at least 1024 x 1024 .*; the largest is 510 .* window=448"):
        normal_images([image], 1024)


def test_windows_of_normal_pictures_come_in_all_eight_turns_and_lose_their_prompt(tiny: Path, tmp_path: Path) -> None:
    image = Sample("a", "s", np.ascontiguousarray(drawn(0)[0][:64, :64]), (), "Negative")
    recipe = NormalRecipe(foundation=str(tiny / "foundation"), window=64, turns=True, caption_dropout=0.25)

    def task(recipe: NormalRecipe) -> NormalTask:
        model = foundations.load(recipe.foundation)
        return NormalTask(recipe, model, lambda: Windows(model, [image], recipe, tmp_path))

    model = foundations.load(recipe.foundation)
    batch = task(recipe).batch(np.random.default_rng(0), 400)
    turns = [model.encode_pixels(augment.d4(image.pixels, turn)[None].copy())[0].half().float() for turn in range(8)]
    reached = Counter(
        min(range(8), key=lambda turn: float((turns[turn] - window).abs().max())) for window in batch["latents"]
    )
    assert sorted(reached) == list(range(8)) and min(reached.values()) > 25
    assert all(min(float((turn - window).abs().max()) for turn in turns) < 1e-3 for window in batch["latents"])
    assert batch["caption"].float().mean() == pytest.approx(0.25, abs=0.07), "1: nothing is said"
    still = task(recipe.model_copy(update={"turns": False})).batch(np.random.default_rng(0), 20)
    assert all(torch.allclose(window, turns[0], atol=1e-3) for window in still["latents"])
