"""Few steps: the consistency function, the average of the product, both stages from training to diffusers."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler, LCMScheduler, StableDiffusionPipeline
from peft.tuners.lora import LoraLayer
from safetensors.torch import load_file
from torch import Tensor

from conftest import disturb
from cytosynth.adapters.distilled import WEIGHTS, place
from cytosynth.bethesda import NORMAL_PROMPT
from cytosynth.cell.edit import CellEditor, PlannedEdit
from cytosynth.cell.settings import EditSettings
from cytosynth.config import assignments, override
from cytosynth.data.sources import Source
from cytosynth.distill import consistency, recipe
from cytosynth.distill.cell import distill_cell
from cytosynth.distill.normal import distill_normal
from cytosynth.distill.student import Student, sides, truncated
from cytosynth.errors import UserError
from cytosynth.foundation import sd15
from cytosynth.foundation.load import load
from cytosynth.foundation.model import Foundation
from cytosynth.io import records
from cytosynth.normal.generate import NormalImageGenerator
from cytosynth.normal.settings import GenerateSettings
from cytosynth.synthesis.fast import Fast
from cytosynth.synthesis.settings import PipelineSettings

FEW = {"sampler": "lcm", "steps": 3, "guidance_scale": 1.0}
PHASED = {"phases": 2, "steps": 2}


@pytest.fixture(scope="module")
def folders(tiny: Path, fields: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with both stages distilled for four steps of training: `normal` and `cell`."""
    root = tmp_path_factory.mktemp("distilled")
    distill_normal(normal(tiny), root / "normal", fields)
    distill_cell(cell(tiny), root / "cell", fields)
    return root


def normal(tiny: Path, **changes: object) -> recipe.NormalDistillRecipe:
    values = {
        "foundation": str(tiny / "foundation"), "normal": str(tiny / "normal"), "data": [Source(root="drawn")],
        "window": 64, "rank": 4, "batch_size": 2, "max_steps": 4, "learning_rate": 0.1, "log_every": 1, "average": 0.5,
        "checkpoint_every": 2, "preview_every": 100, "mixed_precision": "no", "validate_every": 0,
    } | changes  # fmt: skip
    return recipe.NormalDistillRecipe.model_validate(values)


def cell(tiny: Path, **changes: object) -> recipe.CellDistillRecipe:
    values = {
        "foundation": str(tiny / "foundation"), "cell": str(tiny / "cell"), "data": [Source(root="drawn")],
        "rank": 4, "batch_size": 2, "max_steps": 4, "learning_rate": 0.1, "average": 0.5, "log_every": 1,
        "checkpoint_every": 2,
        "preview_every": 4, "mixed_precision": "no", "validate_every": 0,
    } | changes  # fmt: skip
    return recipe.CellDistillRecipe.model_validate(values)


def schedule(kind: str) -> DDPMScheduler:
    return DDPMScheduler.from_config(sd15.SCHEDULER | {"prediction_type": kind})


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_the_consistency_function_and_the_solver_are_those_of_diffusers(kind: str) -> None:
    ours = schedule(kind)
    torch.manual_seed(0)
    x, output = torch.randn(2, 4, 4, 4), torch.randn(2, 4, 4, 4)
    theirs = LCMScheduler.from_config(ours.config)
    theirs.set_timesteps(50)
    grid = consistency.grid(ours, 50)
    assert grid.flip(0).tolist() == theirs.timesteps.tolist()
    solver = DDIMScheduler.from_config(ours.config, timestep_spacing="trailing")
    solver.set_timesteps(50)
    assert grid.flip(0).tolist() == solver.timesteps.tolist()
    for t in (19, 399, 999):
        theirs._step_index = None
        many = torch.full((2,), t)
        denoised = theirs.step(output, torch.tensor(t), x).denoised
        assert torch.allclose(consistency.consistent(ours, output, x, many), denoised, atol=1e-5)
        stepped = solver.step(output, t, x).prev_sample
        earlier = (many - 20).clamp(min=0)
        assert torch.allclose(consistency.ddim(ours, output, x, many, earlier), stepped, rtol=1e-4, atol=1e-4)
    zero = torch.zeros(2, dtype=torch.long)
    assert torch.equal(consistency.consistent(ours, output, x, zero), x), "at t = 0 it is x itself"


def test_the_timesteps_of_the_sampler_are_among_those_of_a_finer_solver() -> None:
    ours = schedule("epsilon")
    coarse, fine = (set(consistency.grid(ours, steps).tolist()) for steps in (50, 200))
    assert coarse < fine


def test_a_distance_between_square_and_linear() -> None:
    small, large = consistency.pseudo_huber(torch.tensor([1e-4, 3.0]), 0.01).tolist()
    assert small == pytest.approx(0.5 * 1e-8 / 0.01, rel=1e-2)
    assert large == pytest.approx(3.0 - 0.01, rel=1e-3)


def fresh(tiny: Path) -> Foundation:
    return load(str(tiny / "foundation")).freeze()


def outputs(unet: object, model: Foundation) -> Tensor:
    torch.manual_seed(5)
    x, t = torch.randn(2, model.channels, 8, 8), torch.tensor([19, 639])
    text = model.encode_text([NORMAL_PROMPT, ""])
    with torch.no_grad():
        return torch.as_tensor(unet(x, t, text).sample)  # type: ignore[operator]


def test_teacher_student_and_target_share_a_network_and_do_not_touch_each_other(tiny: Path) -> None:
    plain, model = fresh(tiny), fresh(tiny)
    student = Student(model.unet, 4, 0.9)
    teacher = outputs(plain.unet, plain)
    assert torch.allclose(outputs(model.unet, model), teacher, atol=1e-6), "B begins at zero"
    disturb(model.unet, "lora_B")
    student.follow(0)
    ours = outputs(model.unet, model)
    assert not torch.allclose(ours, teacher, atol=1e-3)
    with student.teacher() as unet:
        assert torch.equal(outputs(unet, model), teacher)
    with student.target() as unet:
        nearer = outputs(unet, model)
    assert torch.equal(outputs(model.unet, model), ours)
    for name, layer in student.layers.items():
        weight = plain.unet.get_submodule(name).weight
        with torch.no_grad():
            weight += 0.1 * layer.get_delta_weight("default")
    assert torch.allclose(nearer, outputs(plain.unet, plain), atol=1e-5), "a tenth of the first product is taken"
    trained = {name for name, parameter in student.named_parameters() if parameter.requires_grad}
    assert trained == {name for name, _ in student.named_parameters() if "lora_" in name}


def test_the_average_is_of_the_product(tiny: Path) -> None:
    model = fresh(tiny)
    student = Student(model.unet, 4, 0.75)
    expected = [torch.zeros_like(product) for product in student.products()]
    apart: list[list[Tensor]] = [[torch.zeros_like(side["default"].weight) for side in sides(layer)]
                                 for layer in student.layers.values()]  # fmt: skip
    for step in range(3):
        torch.manual_seed(step)
        disturb(model.unet, "lora_")
        student.follow(step)
        student.follow(step)
        for layer, product, both in zip(student.layers.values(), expected, apart, strict=True):
            product.mul_(0.75).add_(layer.get_delta_weight("default").detach(), alpha=0.25)
            for side, value in zip(sides(layer), both, strict=True):
                value.mul_(0.75).add_(side["default"].weight.detach(), alpha=0.25)
    for name, ours, product, (a, b) in zip(student.layers, student.products(), expected, apart, strict=True):
        assert torch.allclose(ours, product, atol=1e-6), name
        assert not torch.allclose(b.flatten(1) @ a.flatten(1), product.flatten(1), atol=1e-2), "A and B apart differ"
    before = {name: value.clone() for name, value in student.named_parameters()}
    with student.shipped():
        for layer, product in zip(student.layers.values(), student.products(), strict=True):
            error = float((layer.get_delta_weight("default") - product).detach().norm())
            least = float(torch.linalg.svdvals(product.flatten(1))[4:].norm())
            assert error <= 1.01 * least + 1e-4 * float(product.norm()), "no other LoRA of its rank is nearer"
    assert all(torch.equal(before[name], value) for name, value in student.named_parameters())


def test_a_product_of_its_rank_is_kept_whole() -> None:
    torch.manual_seed(0)
    b, a = torch.randn(24, 3), torch.randn(3, 40)
    random = torch.random.get_rng_state()
    found = truncated((b @ a).reshape(24, 10, 2, 2), 5)
    assert torch.equal(torch.random.get_rng_state(), random)
    assert [tuple(side.shape) for side in found] == [(5, 40), (24, 5)]
    assert torch.allclose(found[1] @ found[0], b @ a, atol=1e-4)
    assert [side.count_nonzero().item() for side in truncated(torch.zeros(8, 6), 4)] == [0, 0]


def drawn(generator: NormalImageGenerator, settings: GenerateSettings | None = None) -> np.ndarray:
    settings = settings or GenerateSettings(**FEW)
    return generator.field(3, 1, settings.model_copy(update={"size": 128})).astype(int)


def by_diffusers(
    model: Foundation, loaded: dict[str, str], channels: int, scheduler: object = None, steps: int = 3
) -> np.ndarray:
    """Return the field of `drawn` as a stock pipeline draws it with the LoRA files `loaded`, by adapter name.

    `scheduler` is diffusers' (None: LCM's).
    """
    from cytosynth.foundation import sampling

    pipeline = StableDiffusionPipeline(
        vae=model.vae, text_encoder=model.text_encoder, tokenizer=model.tokenizer, unet=model.unet,
        scheduler=scheduler or LCMScheduler.from_config(model.scheduler.config), safety_checker=None,
        feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip
    pipeline.set_progress_bar_config(disable=True)
    for name, folder in loaded.items():
        pipeline.load_lora_weights(folder, weight_name=WEIGHTS, adapter_name=name)
        read = sum(isinstance(layer, LoraLayer) and name in layer.lora_A for layer in model.unet.modules())
        assert read == len(load_file(f"{folder}/{WEIGHTS}")) // 2, "every layer is read"
    pipeline.set_adapters(list(loaded))
    image = pipeline(
        NORMAL_PROMPT, height=128, width=128, num_inference_steps=steps, guidance_scale=1.0,
        latents=sampling.noise((1, channels, 128 // model.factor, 128 // model.factor), 3, 1, 1),
        generator=[sampling.generator(3, 1, 1, 2)], output_type="np",
    ).images[0]  # fmt: skip
    return np.asarray((image * 255).round().astype(int))


def test_diffusers_generates_the_same_field_in_few_steps_stacked_with_the_style_adapter(
    tiny: Path, folders: Path
) -> None:
    weights = folders / "normal" / "weights"
    ours = NormalImageGenerator(str(tiny / "foundation"), str(tiny / "normal"), distilled=str(weights))
    both = {"style": str(tiny / "normal"), "fast": str(weights)}
    theirs = by_diffusers(fresh(tiny), both, ours.model.channels)
    assert np.abs(drawn(ours) - theirs).max() <= 2
    teacher = NormalImageGenerator(str(tiny / "foundation"), str(tiny / "normal"))
    assert np.abs(drawn(ours) - drawn(teacher)).max() > 3
    assert (ours.distilled != "", teacher.distilled) == (True, "")
    assert ours.digest != teacher.digest


def test_diffusers_generates_the_same_field_without_a_style_adapter(tiny: Path, fields: Path, tmp_path: Path) -> None:
    distill_normal(normal(tiny, normal="none", average=None), tmp_path, fields)
    ours = NormalImageGenerator(str(tiny / "foundation"), None, distilled=str(tmp_path))
    theirs = by_diffusers(fresh(tiny), {"fast": str(tmp_path / "weights")}, ours.model.channels)
    assert np.abs(drawn(ours) - theirs).max() <= 2
    assert np.abs(drawn(ours) - drawn(NormalImageGenerator(str(tiny / "foundation"), None))).max() > 3


def test_diffusers_generates_the_same_field_in_as_many_steps_as_phases(
    tiny: Path, fields: Path, tmp_path: Path
) -> None:
    distill_normal(normal(tiny, **PHASED), tmp_path, fields)
    _, card = place(str(tmp_path), "normal")
    assert (card.sampler, card.steps, card.training["phases"]) == ("ddim-trailing", 2, 2)
    both = {"style": str(tiny / "normal"), "fast": str(tmp_path / "weights")}
    model = fresh(tiny)
    scheduler = DDIMScheduler.from_config(model.scheduler.config, timestep_spacing="trailing")
    ours = NormalImageGenerator(str(tiny / "foundation"), str(tiny / "normal"), distilled=str(tmp_path))
    settings = override(PipelineSettings(), assignments(Fast(normal=str(tmp_path)).settings())).normal
    theirs = by_diffusers(model, both, ours.model.channels, scheduler, steps=2)
    assert np.abs(drawn(ours, settings) - theirs).max() <= 2
    assert np.abs(drawn(ours) - theirs).max() > 3, "another sampler draws another field"


def test_a_unet_takes_the_weights_of_stage_2_by_its_adapter_api(tiny: Path, folders: Path) -> None:
    weights = folders / "cell" / "weights"
    ours = CellEditor.load(str(tiny / "foundation"), str(tiny / "cell"), distilled=str(weights))
    theirs = CellEditor.load(str(tiny / "foundation"), str(tiny / "cell"))
    windows = np.random.default_rng(0).integers(0, 256, (1, 256, 256, 3), np.uint8)
    edits, settings = [PlannedEdit((96.0, 96.0, 160.0, 160.0), "HSIL", 4)], EditSettings(**FEW)
    plain = theirs.patch(windows, edits, settings).astype(int)
    assert theirs.digest != ours.digest
    theirs.model.unet.load_lora_adapter(str(weights), weight_name=WEIGHTS, prefix="unet")
    mine = ours.patch(windows, edits, settings).astype(int)
    assert np.abs(mine - theirs.patch(windows, edits, settings)).max() <= 2
    assert np.abs(mine - plain).max() > 3


def test_the_layers_of_equations_3_to_5_are_distilled_too(folders: Path) -> None:
    keys = load_file(folders / "cell" / "weights" / WEIGHTS)
    assert any(".fuser.attn.to_q." in key for key in keys)
    assert all(value.dtype == torch.float16 for value in keys.values())


def test_the_card_says_the_teacher_and_how_to_sample(tiny: Path, folders: Path, tmp_path: Path) -> None:
    file, card = place(str(folders / "normal"), "normal")
    assert file == folders / "normal" / "weights" / WEIGHTS
    teacher = NormalImageGenerator(str(tiny / "foundation"), str(tiny / "normal"))
    assert (card.stage, card.steps, card.guidance_scale, card.teacher) == ("normal", 4, 5.0, teacher.digest)
    assert (card.sampler, card.training["rank"]) == ("lcm", 4)
    assert "phases" not in card.training
    with pytest.raises(UserError, match="distilled weights of `distill normal`; those of `distill cell`"):
        place(str(folders / "normal"), "cell")
    with pytest.raises(UserError, match="no distilled weights there"):
        place(str(tmp_path), "cell")


def test_weights_of_another_teacher_are_taken_with_a_word(
    tiny: Path, folders: Path, capsys: pytest.CaptureFixture
) -> None:
    NormalImageGenerator(str(tiny / "foundation"), None, distilled=str(folders / "normal" / "weights"))
    assert "distil again" in capsys.readouterr().err


@pytest.mark.parametrize("stage", ["normal", "cell"])
def test_a_killed_distillation_ends_at_the_same_bytes(stage: str, tiny: Path, fields: Path, folders: Path) -> None:
    """Also if it was begun before recipes had phases."""
    begin, end = (distill_normal, normal) if stage == "normal" else (distill_cell, cell)
    run = folders / f"{stage}-again"
    begin(end(tiny, max_steps=2), run, fields)  # type: ignore[arg-type]
    pinned = (run / "recipe.yaml").read_text()
    (run / "recipe.yaml").write_text(pinned.replace("phases: null\n", ""))
    assert (run / "recipe.yaml").read_text() != pinned
    begin(end(tiny), run, fields)  # type: ignore[arg-type]
    for name in (f"weights/{WEIGHTS}", "stats.jsonl", "weights/distilled.json"):
        assert (run / name).read_bytes() == (folders / stage / name).read_bytes(), name


@pytest.mark.parametrize("phases", [None, 2])
def test_the_student_comes_nearer_to_what_the_teacher_generates(
    phases: int | None, tiny: Path, fields: Path, tmp_path: Path
) -> None:
    """Distilled, few steps from pure noise land nearer to the end of the teacher's guided path than before."""
    teacher = NormalImageGenerator(str(tiny / "foundation"), str(tiny / "normal"))
    given = normal(
        tiny, max_steps=60, learning_rate=5e-3, average=0.95, batch_size=8, rank=8, guidance_scale=2.0, phases=phases,
        steps=phases or 1,
    )  # fmt: skip
    distill_normal(given, tmp_path, fields)
    student = NormalImageGenerator(str(tiny / "foundation"), str(tiny / "normal"), distilled=str(tmp_path))
    path = GenerateSettings(size=64, steps=50, guidance_scale=2.0)
    few = GenerateSettings(size=64, sampler=given.sampler, steps=given.steps, guidance_scale=1.0)
    errors = [
        [float(np.abs(model.field(0, index, few).astype(float) - teacher.field(0, index, path)).mean())
         for index in range(4)]
        for model in (teacher, student)
    ]  # fmt: skip
    assert np.mean(errors[1]) < 0.9 * np.mean(errors[0]), errors
    losses = [entry["loss"] for entry in records.with_number(tmp_path / "stats.jsonl", "loss")]
    assert np.mean(losses[-10:]) < np.mean(losses[5:15])


def test_the_best_by_held_out_images_is_kept(tiny: Path, fields: Path, tmp_path: Path) -> None:
    common = {
        "validate_every": 1,
        "max_steps": 2,
        "validate_count": 8,
        "mixed_precision": "bf16",
        "memory_format": "channels_last",
        "steps": 2,
        "validate_with": "efficientnet-lite0",
    }
    for outcome in (
        distill_normal(normal(tiny, **common), tmp_path / "normal", fields),
        distill_cell(cell(tiny, **common, phases=2), tmp_path / "cell", fields),
    ):
        assert outcome.best is not None
        scores = [entry["score"] for entry in records.with_number(outcome.weights.parent / "validation.jsonl", "score")]
        assert outcome.best.score == min(scores)
        assert (outcome.selected / WEIGHTS).is_file()
        assert json.loads((outcome.selected / "distilled.json").read_text())["steps"] == 2
    assert place(str(tmp_path / "cell"), "cell")[1].sampler == "ddim-trailing"


def test_what_cannot_be_distilled_is_said(tiny: Path, fields: Path, tmp_path: Path) -> None:
    for changes, words in (
        ({"ema_decay": 0.9}, "average A and B separately"),
        ({"compile": True}, "compile=true: not supported here"),
        ({"solver_steps": 60}, "multiple of 50"),
    ):
        with pytest.raises(ValueError, match=words):
            normal(tiny, **changes)
    with pytest.raises(UserError, match="the synthesizer makes"):
        distill_cell(cell(tiny, categories=["NILM"]), tmp_path, fields)
