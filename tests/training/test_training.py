"""The training loop: the same run whether it is killed or not, for every trainer."""

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import PartialState
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import nn
from typer.testing import CliRunner

from conftest import AUTOENCODER, DENOISER, TEXT, same_on_gpu
from cytosynth import config, devices, registry
from cytosynth.cell.recipe import CellRecipe
from cytosynth.cell.train import train_cell
from cytosynth.classifier.recipe import ClassifierRecipe
from cytosynth.classifier.train import train_classifier
from cytosynth.cli import app
from cytosynth.cli import train as _verbs  # noqa: F401
from cytosynth.data.sources import Source
from cytosynth.detection.recipe import DetectorRecipe
from cytosynth.detection.train import train_detector
from cytosynth.errors import UsageError, UserError
from cytosynth.evaluate import reconstruction
from cytosynth.evaluate.detection.scoring import validation
from cytosynth.evaluate.held_out import HeldOut
from cytosynth.foundation.scratch.recipe import AutoencoderRecipe, DecoderRecipe, DenoiserRecipe, TextRecipe
from cytosynth.foundation.scratch.train import train_autoencoder, train_decoder, train_denoiser, train_text
from cytosynth.normal.recipe import NormalRecipe, preset
from cytosynth.normal.train import train_normal
from cytosynth.training import batches, checkpoint
from cytosynth.training.loop import Outcome, train
from cytosynth.training.optimizer import lr_factor
from cytosynth.training.recipe import Recipe
from cytosynth.training.task import Batch, Losses, Task

DATA = [Source(root="drawn")]
COMMON = {"max_steps": 6, "batch_size": 2, "log_every": 4, "checkpoint_every": 100, "preview_every": 5, "seed": 3,
          "warmup_steps": 2}  # fmt: skip


ADAPTERS = {
    "textual-inversion": {"adapter": "textual-inversion", "prompt": "A cell <x>", "token": "<x>", "vectors": 2},
    "svdiff": {"adapter": "svdiff"},
    "custom-diffusion": {"adapter": "custom-diffusion", "prompt": "A <x> cell", "token": "<x>"},
}


def trainers(tiny: Path, fields: Path) -> dict[str, tuple[Recipe, Callable[[Recipe, Path], Outcome]]]:
    small = {"foundation": str(tiny / "foundation")}
    return {
        "autoencoder": (
            AutoencoderRecipe(data=DATA, ema_decay=0.9, **AUTOENCODER, **COMMON),
            lambda r, run: train_autoencoder(r, run, fields, measure=reconstruction.validation),
        ),
        "decoder": (
            DecoderRecipe(data=DATA, ema_decay=0.9, crops=[64], adversarial_start=2, **COMMON | {"batch_size": 1}),
            lambda r, run: train_decoder(r, tiny / "foundation/vae", run, fields),
        ),
        "text": (
            TextRecipe(data=DATA, **TEXT, **COMMON),
            lambda r, run: train_text(r, run, fields),
        ),
        "denoiser": (
            DenoiserRecipe(data=DATA, ema_decay=0.9, lr_schedule="cosine", **DENOISER, **COMMON),
            lambda r, run: train_denoiser(r, tiny / "foundation/vae", tiny / "foundation", run, fields),
        ),
        "normal": (
            NormalRecipe(
                data=DATA, window=128, turns=True, optimizer="adam", gradient_accumulation=2, **small, **COMMON
            ),
            lambda r, run: train_normal(r, run, fields, held_out=HeldOut),
        ),
        **{
            name: (
                NormalRecipe(data=DATA, window=64, validate_every=2, validate_count=8, **settings, **small, **COMMON),
                lambda r, run: train_normal(r, run, fields, held_out=HeldOut),
            )
            for name, settings in ADAPTERS.items()
        },
        "cell": (
            CellRecipe(data=DATA, variants=2, jitter=20, mixed_precision="bf16", validate_every=2, gate_rate=9.0,
                       **small, **COMMON),
            lambda r, run: train_cell(r, run, fields),
        ),
        "features": (
            ClassifierRecipe(data=DATA, size=32, shift=4, jitter=0.1, categories=["NILM", "LSIL"], **COMMON),
            lambda r, run: train_classifier(r, run, fields),
        ),
        "detector": (
            DetectorRecipe(data=DATA, backbone="small", window=128, turns=True, jitter=0.1, blur=0.5, optimizer="sgd",
                           learning_rate=1e-3, **COMMON),
            lambda r, run: train_detector(r, run, fields, measure=validation),
        ),
    }  # fmt: skip


def weights(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.mark.promise("Training resumes exactly")
@pytest.mark.slow
def test_a_killed_save_and_a_killed_cache_leave_nothing(tiny: Path, fields: Path, tmp_path: Path) -> None:
    """A kill between the last checkpoint and the removal of the oldest, or while a latent is renamed."""
    made, start = trainers(tiny, fields)["cell"]
    made = made.model_copy(update={"checkpoint_every": 2, "keep_checkpoints": 2, "validate_every": 0, "variants": 1})
    start(made, tmp_path)
    wanted = [path.name for path in checkpoint.found(tmp_path / "checkpoints")]
    assert len(wanted) == 2
    shutil.copytree(tmp_path / "checkpoints" / wanted[0], tmp_path / "checkpoints/step-00000002")
    (tmp_path / "checkpoints/.step-00000006.old").mkdir()
    (tmp_path / "latents/.x.safetensors.123.part").write_bytes(b"half")
    (tmp_path / "previews/.y.part").mkdir()
    start(made, tmp_path)
    assert [path.name for path in checkpoint.found(tmp_path / "checkpoints")] == wanted
    assert not [path for path in tmp_path.rglob("*") if path.name.startswith(".")]


def test_a_text_encoder_that_is_not_done_gets_no_denoiser(
    fields: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts: list[str] = []

    def ended(name: str, finished: bool, stopped: bool = False) -> Callable[..., Outcome]:
        return lambda *_, **__: parts.append(name) or Outcome(1, finished, tmp_path, 1, None, stopped)  # type: ignore[func-returns-value]

    from cytosynth.foundation.scratch import train as room

    for finished, stopped, code in ((False, False, 0), (False, True, 130), (True, True, 130)):
        parts.clear()
        monkeypatch.setattr(room, "train_autoencoder", ended("autoencoder", True))
        monkeypatch.setattr(room, "train_text", ended("text", finished, stopped))
        monkeypatch.setattr(room, "train_denoiser", ended("denoiser", True))
        run = CliRunner().invoke(app, ["train", "foundation", str(tmp_path / "run"), "--data-root", str(fields)])
        assert parts == ["autoencoder", "text"]
        assert run.exit_code == code, "a training that was asked to stop is no success for what follows it"


@pytest.mark.promise("Training resumes exactly")
@pytest.mark.parametrize(
    "name", ["autoencoder", "decoder", "text", "denoiser", "normal", *ADAPTERS, "cell", "features", "detector"]
)
@pytest.mark.slow
def test_stopped_and_continued_equals_never_stopped(name: str, tiny: Path, fields: Path, tmp_path: Path) -> None:
    if name == "detector":
        same_on_gpu("faster-rcnn")
    full, start = trainers(tiny, fields)[name]
    once = start(full, tmp_path / "once")
    assert once.finished
    half = start(full.model_copy(update={"max_steps": 3} if full.lr_schedule == "constant" else {"max_steps": 6}),
                 tmp_path / "twice")  # fmt: skip
    if full.lr_schedule == "cosine":
        shutil.rmtree(tmp_path / "twice")
        half = stopped_after(3, full, start, tmp_path / "twice")
    assert half.step == 3
    start(full, tmp_path / "twice")
    for part in ("weights", "optimizer", "ema"):
        file = f"checkpoints/step-00000006/{part}.safetensors"
        a, b = load_file(tmp_path / "once" / file), load_file(tmp_path / "twice" / file)
        assert a.keys() == b.keys()
        assert all(torch.equal(a[key], b[key]) for key in a), part
    assert weights(tmp_path / "once/weights") == weights(tmp_path / "twice/weights")
    for file in ("stats.jsonl", "recipe.yaml"):
        assert (tmp_path / "once" / file).read_bytes() == (tmp_path / "twice" / file).read_bytes()
    assert weights(tmp_path / "once/previews") == weights(tmp_path / "twice/previews")
    moved = load_file(tmp_path / "once/checkpoints/step-00000006/weights.safetensors")
    assert moved, "something was trained"


def stopped_after(steps: int, full: Recipe, start: Callable[[Recipe, Path], Outcome], run: Path) -> Outcome:
    """Run `start` and ask it to stop, as Ctrl-C does, in the middle of step `steps`."""
    count = 0
    original = lr_factor

    def counting(*arguments: object) -> float:
        nonlocal count
        count += 1
        if count == steps:
            signal.raise_signal(signal.SIGTERM)
        return original(*arguments)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cytosynth.training.trainer.lr_factor", counting)
        return start(full, run)


@pytest.mark.promise("Training resumes exactly")
@pytest.mark.slow
def test_a_killed_run_continues_from_its_checkpoint_to_the_same_end(tiny: Path, fields: Path, tmp_path: Path) -> None:
    def command(run: Path) -> list[str]:
        settings = ["window=128", f"foundation={tiny / 'foundation'}", "data=[{root: drawn}]", "checkpoint_every=2",
                    "log_every=1", "max_steps=8", "preview_every=1000"]  # fmt: skip
        flags = [flag for setting in settings for flag in ("--set", setting)]
        return [sys.executable, "-m", "cytosynth", "train", "normal", str(run), "--data-root", str(fields), *flags]

    subprocess.run(command(tmp_path / "once"), check=True, capture_output=True)
    victim = subprocess.Popen(command(tmp_path / "killed"), stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not checkpoint.found(tmp_path / "killed/checkpoints") and time.monotonic() < deadline:
        time.sleep(0.005)
    victim.kill()
    victim.wait()
    subprocess.run(command(tmp_path / "killed"), check=True, capture_output=True)
    assert weights(tmp_path / "once/weights") == weights(tmp_path / "killed/weights")
    assert (tmp_path / "once/stats.jsonl").read_text() == (tmp_path / "killed/stats.jsonl").read_text()


def test_a_damaged_checkpoint_is_named_and_the_one_before_is_used(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        state = checkpoint.Checkpoint(step, {"a": torch.full((4,), float(step))}, {}, {}, {"sums": {}})
        checkpoint.save(tmp_path, state, keep=2)
    assert [path.name for path in checkpoint.found(tmp_path)] == ["step-00000002", "step-00000003"]
    file = tmp_path / "step-00000003/weights.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    found, complaints = checkpoint.newest(tmp_path)
    assert found is not None
    assert found.step == 2
    assert torch.equal(found.weights["a"], torch.full((4,), 2.0))
    assert len(complaints) == 1
    assert "weights.safetensors does not match its hash" in complaints[0]


class Duel(Task):
    """A number that a second optimiser pushes away from what the first one pulls it to."""

    def __init__(self, worth: float = 1.0) -> None:
        super().__init__()
        self.number, self.rival = nn.Parameter(torch.tensor(2.0)), nn.Parameter(torch.tensor(1.0))
        self.worth = worth

    def batch(self, rng: np.random.Generator, size: int) -> Batch:
        return {"aim": torch.tensor(float(rng.normal()))}

    def forward(self, batch: Batch) -> Losses:
        return {
            "loss": self.worth * (self.number - batch["aim"] - self.rival.detach()).square(),
            "adversary": -0.1 * (self.rival - self.number.detach()).square() + self.rival.square(),
        }

    def groups(self) -> list[tuple[list[nn.Parameter], float]]:
        return [([self.number], 1.0)]

    def adversary_groups(self) -> list[tuple[list[nn.Parameter], float]]:
        return [([self.rival], 0.5)]

    def export(self, folder: Path) -> None:
        save_file(dict(self.trained()), folder / "model.safetensors")


@pytest.mark.promise("Training resumes exactly")
def test_two_optimisers_step_by_their_own_losses_and_resume(tmp_path: Path) -> None:
    """Against two optimisers of PyTorch in a plain loop of eight lines."""
    made = Recipe(max_steps=6, learning_rate=0.1, log_every=2, checkpoint_every=6, betas=(0.5, 0.9), max_grad_norm=0.8)
    train(Duel, made, tmp_path / "once", title="duel")
    train(Duel, made.model_copy(update={"max_steps": 3}), tmp_path / "twice", title="duel")
    train(Duel, made, tmp_path / "twice", title="duel")
    end = "checkpoints/step-00000006"
    assert weights(tmp_path / "once" / end) == weights(tmp_path / "twice" / end)
    task = Duel()
    pull = torch.optim.AdamW([task.number], 0.1, betas=(0.5, 0.9))
    push = torch.optim.AdamW([task.rival], 0.05, betas=(0.5, 0.9))
    for step in range(6):
        losses = task(task.batch(batches.seeded(0, 0, step, 0)[0], 1))
        pull.zero_grad(), push.zero_grad()
        losses["loss"].backward(), losses["adversary"].backward()
        nn.utils.clip_grad_norm_([task.number], 0.8), nn.utils.clip_grad_norm_([task.rival], 0.8)
        pull.step(), push.step()
    reached = load_file(tmp_path / "once" / end / "weights.safetensors")
    assert float(reached["number"]) == pytest.approx(float(task.number), rel=1e-5)
    assert float(reached["rival"]) == pytest.approx(float(task.rival), rel=1e-5)
    assert {"0.exp_avg", "adversary.0.exp_avg"} <= load_file(tmp_path / "once" / end / "optimizer.safetensors").keys()


class Broken(Duel):
    """The gradient of its fourth step is not a number, the loss is one."""

    def forward(self, batch: Batch) -> Losses:
        losses = super().forward(batch)
        if self.step == 3:
            losses["loss"] = losses["loss"] + (self.number - self.number).sqrt()
        return losses


def test_a_checkpoint_holds_no_weight_that_is_not_finite(tmp_path: Path) -> None:
    made = Recipe(max_steps=9, learning_rate=0.1, log_every=50, checkpoint_every=2)
    with pytest.raises(UserError, match=r"after step 4; .* the last checkpoint is untouched") as caught:
        train(Broken, made, tmp_path, title="broken")
    assert "\n" not in str(caught.value)
    assert [path.name for path in checkpoint.found(tmp_path / "checkpoints")] == ["step-00000002"]
    assert not (tmp_path / "weights").exists()


def test_a_loss_that_is_not_finite_is_named_with_its_step(tmp_path: Path) -> None:
    made = Recipe(max_steps=9, log_every=4, checkpoint_every=2)
    with pytest.raises(UserError, match=r"the loss is nan at step 0; .* the last checkpoint is untouched"):
        train(lambda: Duel(math.nan), made, tmp_path, title="duel")
    assert not checkpoint.found(tmp_path / "checkpoints")


def test_settings_by_key_and_value() -> None:
    base = NormalRecipe()
    changed = config.override(base, ["rank=4", "data=[{root: x, scale: 0.5}]", "ema_decay=0.99"])
    assert (changed.rank, changed.data[0].scale, changed.ema_decay) == (4, 0.5, 0.99)
    assert config.override(base, ["mixed_precision=no"]) == base, "YAML's no is false"
    with pytest.raises(UsageError, match="unknown setting"):
        config.override(base, ["rnak=4"])
    with pytest.raises(UsageError, match=r"rank: .*greater than or equal to 1 \(got 0\)"):
        config.override(base, ["rank=0"])
    with pytest.raises(UsageError, match="expected key=value"):
        config.override(base, ["rank"])


def test_the_papers_recipes() -> None:
    from cytosynth.cell import recipe as cell
    from cytosynth.normal import recipe as normal

    n, c = normal.preset("paper", "lora"), cell.PAPER
    for r in (normal.preset("paper", name) for name in registry.ADAPTERS):
        settings = (r.max_steps, r.batch_size, r.learning_rate, r.optimizer, r.window)
        assert settings == (5000, 1, 1e-4, "adam", 1024)
    assert n.rank == 8
    assert (c.max_steps, c.batch_size, c.learning_rate, c.optimizer) == (50_000, 4, 1e-4, "adamw")
    assert n.min_snr_gamma is None and c.min_snr_gamma is None and c.trainable == "gated"


def test_a_run_is_not_continued_with_another_recipe(tmp_path: Path) -> None:
    config.pin(NormalRecipe(rank=8), tmp_path / "recipe.yaml")
    config.pin(NormalRecipe(rank=8, max_steps=9), tmp_path / "recipe.yaml")
    with pytest.raises(UsageError, match="started with rank=8, now 4"):
        config.pin(NormalRecipe(rank=4), tmp_path / "recipe.yaml")


@pytest.mark.promise("Two runs into one folder")
def test_a_run_that_never_began_may_begin_with_another_recipe(tiny: Path, fields: Path, tmp_path: Path) -> None:
    def wanted(**changes: object) -> NormalRecipe:
        given = {"data": DATA, "foundation": str(tiny / "foundation"), "window": 64, "max_steps": 1, "rank": 2}
        return NormalRecipe(**given | changes)

    with pytest.raises(UserError, match="at least 4096 x 4096 pixels"):
        train_normal(wanted(window=4096), tmp_path / "run", fields)
    assert train_normal(wanted(), tmp_path / "run", fields, held_out=HeldOut).finished
    with pytest.raises(UsageError, match="started with rank=2, now 4"):
        train_normal(wanted(rank=4), tmp_path / "run", fields)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/README.md").write_text("my notes")
    with pytest.raises(UsageError, match=r"mine: already contains other files \(README.md\)"):
        train_normal(wanted(), tmp_path / "mine", fields)
    assert (tmp_path / "mine/README.md").read_text() == "my notes"


def test_held_out_images_that_cannot_be_used_are_said_before_anything_is_encoded(
    tiny: Path, fields: Path, tmp_path: Path
) -> None:
    given = {"foundation": str(tiny / "foundation"), "window": 256, "max_steps": 1, "validate_every": 1}
    with pytest.raises(UserError, match=r"none of the 1 held-out images \(part 'val'\) has a normal window of 256x256"):
        train_normal(NormalRecipe(**given, data=DATA), tmp_path / "run", fields, held_out=HeldOut)
    whole = [Source(root="drawn", split="all")]
    with pytest.raises(UserError, match=r"no held-out normal image of at least 256x256 pixels .*; add a part 'val'"):
        train_normal(NormalRecipe(**given, data=whole), tmp_path / "run", fields, held_out=HeldOut)
    assert not list((tmp_path / "run").rglob("*.safetensors"))


def test_two_processes_train_together(
    tiny: Path, fields: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What they come to is what one process comes to that accumulates the samples of both."""
    settings = ["window=128", f"foundation={tiny / 'foundation'}", "data=[{root: drawn}]", "max_steps=2", "log_every=1",
                "optimizer=sgd", "learning_rate=10", "validate_every=0"]  # fmt: skip
    flags = [flag for setting in settings for flag in ("--set", setting)]
    run = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", "29533", "-m",
         "cytosynth", "train", "normal", str(tmp_path / "run"), "--preset", "paper", "--data-root", str(fields),
         *flags],
        capture_output=True, text=True, env=os.environ | {"CUDA_VISIBLE_DEVICES": ""},
    )  # fmt: skip
    assert run.returncode == 0, run.stderr[-2000:]
    assert len((tmp_path / "run/stats.jsonl").read_text().splitlines()) == 2
    assert json.loads((tmp_path / "run/stats.jsonl").read_text().splitlines()[1])["step"] == 2
    seeded = batches.seeded
    monkeypatch.setattr(batches, "seeded", lambda seed, rank, step, micro: seeded(seed, micro, step, rank))
    alone = config.override(preset("paper", "lora"), [*settings, "gradient_accumulation=2"])
    monkeypatch.setenv(devices.ACCELERATE, "cpu")
    PartialState._reset_state()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as many as torchrun gives each process: sums in another order differ in the last digits
    try:
        train_normal(alone, tmp_path / "alone", fields)
    finally:
        torch.set_num_threads(threads)
    file = "weights/pytorch_lora_weights.safetensors"
    together, one = load_file(tmp_path / "run" / file), load_file(tmp_path / "alone" / file)
    assert together.keys() == one.keys()
    assert all(torch.allclose(together[key], one[key], rtol=1e-4, atol=1e-7) for key in one)
    assert max(float(value.abs().max()) for key, value in one.items() if "lora_B" in key or "up" in key) > 1e-4


def begun(kind: str, tiny: Path, fields: Path, tmp_path: Path) -> tuple[Path, Path, Any, Any]:
    """Train for a step on a copy of `fields`; return the run, the copy's annotations, the recipe and the trainer."""
    data, run = tmp_path / "data", tmp_path / "run"
    shutil.copytree(fields, data)
    recipe, begin = trainers(tiny, data)[kind]
    begin(recipe.model_copy(update={"max_steps": 1}), run)
    return run, data / "drawn/annotations.json", recipe, begin


@pytest.mark.parametrize("kind", ["autoencoder", "text", "normal", "cell", "features", "detector"])
def test_a_run_is_not_continued_with_other_images(kind: str, tiny: Path, fields: Path, tmp_path: Path) -> None:
    run, file, recipe, begin = begun(kind, tiny, fields, tmp_path)
    before = file.read_text()
    content = json.loads(before)
    for annotation in content["annotations"]:
        annotation["bbox"][0] += 1
    file.write_text(json.dumps(content))
    with pytest.raises(UsageError, match=r"data\.json: this run was started with other training images or boxes"):
        begin(recipe.model_copy(update={"max_steps": 2}), run)
    shutil.rmtree(run / "checkpoints")
    begin(recipe.model_copy(update={"max_steps": 1}), run)
    file.write_text(before)
    with pytest.raises(UsageError, match="other training images"):
        begin(recipe.model_copy(update={"max_steps": 2}), run)


@pytest.mark.parametrize("kind", ["autoencoder", "decoder", "svdiff", "cell", "features", "detector"])
def test_a_run_is_not_continued_with_other_held_out_images(kind: str, tiny: Path, fields: Path, tmp_path: Path) -> None:
    run, file, recipe, begin = begun(kind, tiny, fields, tmp_path)
    content = json.loads(file.read_text())
    (name,) = json.loads((file.parent / "split.json").read_text())["val"]
    (held,) = (image["id"] for image in content["images"] if image["file_name"] == name)
    for annotation in content["annotations"]:
        annotation["bbox"][0] += annotation["image_id"] == held
    file.write_text(json.dumps(content))
    with pytest.raises(UsageError, match=r"data\.json: this run was started with other held-out images or boxes"):
        begin(recipe.model_copy(update={"max_steps": 2}), run)
    noted = json.loads((run / "data.json").read_text())
    (run / "data.json").write_text(json.dumps({"training images": noted["training images"]}))
    begin(recipe.model_copy(update={"max_steps": 2}), run)  # a run of before held-out images were noted


def test_a_comparison_detector_is_not_continued_with_other_reference_images(fields: Path, tmp_path: Path) -> None:
    data, run = tmp_path / "data", tmp_path / "run"
    shutil.copytree(fields, data)
    (data / "cells/NILM").mkdir(parents=True)
    for name in ("a.png", "b.png"):
        Image.new("RGB", (20, 20), (200, 100, 150)).save(data / "cells/NILM" / name)
    recipe = DetectorRecipe(
        architecture="comparison-detector", data=DATA, backbone="small", window=128, references="cells", shots=1,
        **COMMON,
    )  # fmt: skip
    train_detector(recipe.model_copy(update={"max_steps": 1}), run, data)
    Image.new("RGB", (20, 20)).save(data / "cells/NILM/b.png")  # the second of one shot is not used
    train_detector(recipe.model_copy(update={"max_steps": 2}), run, data)
    Image.new("RGB", (20, 20)).save(data / "cells/NILM/a.png")
    with pytest.raises(UsageError, match=r"data\.json: this run was started with other reference images"):
        train_detector(recipe.model_copy(update={"max_steps": 3}), run, data)
