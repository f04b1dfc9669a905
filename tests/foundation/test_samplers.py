"""Every sampler through the one loop draws what diffusers' own pipeline draws with it."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    LCMScheduler,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionPipeline,
    TCDScheduler,
    UNet2DConditionModel,
    UniPCMultistepScheduler,
)

from conftest import drawn
from cytosynth import cli, registry
from cytosynth.bethesda import NORMAL_PROMPT
from cytosynth.cell.edit import CellEditor, PlannedEdit
from cytosynth.cell.settings import EditSettings
from cytosynth.errors import UsageError, UserError
from cytosynth.foundation import load as foundations
from cytosynth.foundation import samplers, sampling
from cytosynth.normal.generate import NormalImageGenerator
from cytosynth.normal.settings import GenerateSettings
from cytosynth.synthesis import synthesize
from cytosynth.synthesis.settings import PipelineSettings, check

NAMES = list(registry.SAMPLERS)
THEIRS = {
    "ddim": DDIMScheduler,
    "dpm++2m": DPMSolverMultistepScheduler,
    "unipc": UniPCMultistepScheduler,
    "euler": EulerDiscreteScheduler,
    "lcm": LCMScheduler,
    "tcd": TCDScheduler,
    "ddim-trailing": DDIMScheduler,
}
"""What a user of diffusers would put into a pipeline, all with their defaults but for `CHANGED`."""
CHANGED = {"ddim-trailing": {"timestep_spacing": "trailing"}}


@pytest.mark.parametrize("channels", [24, 25])
def test_a_network_distilled_to_take_the_guidance_scale_generates_what_diffusers_does(
    channels: int, tiny: Path
) -> None:
    model = foundations.load(str(tiny / "foundation")).freeze()
    torch.manual_seed(2)
    distilled = UNet2DConditionModel.from_config(
        {key: value for key, value in model.unet.config.items() if key != "_use_default_values"}
        | {"time_cond_proj_dim": channels}
    )
    distilled.load_state_dict(model.unet.state_dict(), strict=False)
    model.unet = distilled.eval()
    theirs = StableDiffusionPipeline(
        model.vae, model.text_encoder, model.tokenizer, model.unet, LCMScheduler.from_config(model.scheduler.config),
        None, None, requires_safety_checker=False,
    )  # fmt: skip
    theirs.set_progress_bar_config(disable=True)
    start, text = sampling.noise((1, 4, 8, 8), 1), model.encode_text([NORMAL_PROMPT, ""])
    drawn_by_scale = []
    for scale in (1.0, 8.0):
        expected = theirs(
            NORMAL_PROMPT, height=64, width=64, num_inference_steps=4, guidance_scale=scale, latents=start.clone(),
            output_type="latent", generator=[sampling.generator(1, 2)],
        ).images  # fmt: skip
        calls = []
        hook = model.unet.register_forward_hook(lambda _, given, out, calls=calls: calls.append(len(given[0])))
        ours = sampling.sample(
            sampling.guided(model.unet, text[:1], text[1:], guidance_scale=scale),
            samplers.build("lcm", model.scheduler), start, steps=4, seeds=[(1,)],
        )  # fmt: skip
        hook.remove()
        assert calls == [1] * 4, "no unguided half"
        assert np.abs(images(ours, model) - images(expected, model)).max() <= 2
        assert torch.allclose(ours, expected, atol=1e-4)
        drawn_by_scale.append(ours)
    assert (drawn_by_scale[0] - drawn_by_scale[1]).abs().max() > 0.05, "the scale is heard"


def test_the_names_are_the_same_everywhere() -> None:
    assert list(THEIRS) == NAMES


def eta(name: str) -> float:
    """The pipelines give every sampler eta 0; TCD's own is 0.3, as its documentation asks the user to say."""
    return 0.3 if name == "tcd" else 0.0


def scheduler(name: str, model: foundations.Foundation) -> object:
    return THEIRS[name].from_config(model.scheduler.config, **CHANGED.get(name, {}))


def images(latents: torch.Tensor, model: foundations.Foundation) -> np.ndarray:
    return model.decode_latents(latents).astype(int)


@pytest.mark.parametrize("name", NAMES)
def test_from_noise_it_equals_diffusers(name: str, tiny: Path) -> None:
    model = foundations.load(str(tiny / "foundation")).freeze()
    theirs = StableDiffusionPipeline(
        model.vae, model.text_encoder, model.tokenizer, model.unet, scheduler(name, model),
        None, None, requires_safety_checker=False,
    )  # fmt: skip
    theirs.set_progress_bar_config(disable=True)
    start = torch.cat([sampling.noise((1, 4, 16, 16), seed) for seed in (1, 2)])
    expected = theirs(
        [NORMAL_PROMPT] * 2, height=128, width=128, num_inference_steps=6, guidance_scale=3.0, latents=start.clone(),
        output_type="latent", generator=[sampling.generator(seed, 2) for seed in (1, 2)], eta=eta(name),
    ).images  # fmt: skip
    text = model.encode_text([NORMAL_PROMPT] * 2 + [""] * 2)
    ours = sampling.sample(
        sampling.guided(model.unet, text[:2], text[2:], guidance_scale=3.0),
        samplers.build(name, model.scheduler), start, steps=6, seeds=[(1,), (2,)],
    )  # fmt: skip
    assert np.abs(images(ours, model) - images(expected, model)).max() <= 2
    assert images(ours, model).std() > 1
    for row in (0, 1):
        alone = sampling.sample(
            sampling.guided(model.unet, text[:1], text[2:3], guidance_scale=3.0),
            samplers.build(name, model.scheduler), start[row : row + 1], steps=6, seeds=[(row + 1,)],
        )  # fmt: skip
        assert np.abs(images(alone, model)[0] - images(ours, model)[row]).max() <= 2


@pytest.mark.parametrize("spacing", ["leading", "linspace"])
def test_euler_starts_at_its_own_scale(spacing: str, tiny: Path) -> None:
    """A checkpoint that names no spacing gets Euler's `linspace`, whose first scale is another."""
    model = foundations.load(str(tiny / "foundation")).freeze()
    schedule = DDPMScheduler.from_config(model.scheduler.config, timestep_spacing=spacing)
    theirs = StableDiffusionImg2ImgPipeline(
        model.vae, model.text_encoder, model.tokenizer, model.unet, EulerDiscreteScheduler.from_config(schedule.config),
        None, None, requires_safety_checker=False,
    )  # fmt: skip
    theirs.set_progress_bar_config(disable=True)
    clean = model.encode_pixels(np.ascontiguousarray(drawn(1)[0][None, :128, :128]))
    expected = theirs(
        NORMAL_PROMPT, image=clean, strength=1.0, num_inference_steps=4, guidance_scale=3.0, output_type="latent",
        generator=sampling.generator(1),
    ).images  # fmt: skip
    text, start = model.encode_text([NORMAL_PROMPT, ""]), sampling.noise((1, 4, 16, 16), 1)
    ours = sampling.sample(
        sampling.guided(model.unet, text[:1], text[1:], guidance_scale=3.0),
        samplers.build("euler", schedule), start, steps=4, clean=clean,
    )  # fmt: skip
    assert torch.allclose(ours, expected, atol=1e-5)


@pytest.mark.parametrize("name", ["lcm", "tcd"])
def test_noise_at_every_step_is_never_the_global_one(name: str, tiny: Path) -> None:
    model = foundations.load(str(tiny / "foundation")).freeze()
    text = model.encode_text(["", ""])
    sampler = samplers.build(name, model.scheduler)
    with pytest.raises(ValueError, match="seed of each image"):
        sampling.sample(
            sampling.guided(model.unet, text[:1], text[1:]), sampler, sampling.noise((1, 4, 8, 8), 1), steps=2
        )


def test_the_record_of_a_run_says_the_sampler(tiny: Path, tmp_path: Path) -> None:
    paths = {name: str(tiny / name) for name in ("foundation", "normal", "cell", "detector")}
    settings = PipelineSettings(
        normal=GenerateSettings(size=256, steps=1, sampler="euler"), cell=EditSettings(steps=1, sampler="unipc")
    )
    synthesize.synthesize(tmp_path, count=1, settings=settings, **paths)
    pinned = yaml.safe_load((tmp_path / "settings.yaml").read_text())["settings"]
    plan = json.loads((tmp_path / "plan.json").read_text())["settings"]
    for said in (pinned, plan):
        assert (said["normal"]["sampler"], said["cell"]["sampler"]) == ("euler", "unipc")


@pytest.mark.parametrize("name", NAMES)
def test_from_an_image_it_equals_diffusers(name: str, tiny: Path) -> None:
    model = foundations.load(str(tiny / "foundation")).freeze()
    theirs = StableDiffusionImg2ImgPipeline(
        model.vae, model.text_encoder, model.tokenizer, model.unet, scheduler(name, model),
        None, None, requires_safety_checker=False,
    )  # fmt: skip
    theirs.set_progress_bar_config(disable=True)
    clean = model.encode_pixels(np.ascontiguousarray(drawn(1)[0][None, :128, :128]))
    start = torch.randn(clean.shape, generator=sampling.generator(1, 2))
    expected = theirs(
        NORMAL_PROMPT, image=clean, strength=0.5, num_inference_steps=8, guidance_scale=3.0, output_type="latent",
        generator=[sampling.generator(1, 2)], eta=eta(name),
    ).images  # fmt: skip
    text = model.encode_text([NORMAL_PROMPT, ""])
    arguments = {"steps": 8, "clean": clean, "strength": 0.5}
    sampler = samplers.build(name, model.scheduler)
    if isinstance(
        sampler, samplers.STOCHASTIC
    ):  # diffusers draws the start and the steps from one generator, we from two
        ongoing = sampling.generator(1, 2)
        torch.randn(clean.shape, generator=ongoing)
        step = sampler.step
        sampler.step = lambda output, timestep, latents, generator: step(output, timestep, latents, generator=[ongoing])
        arguments["seeds"] = [(1,)]
    guided = sampling.guided(model.unet, text[:1], text[1:], guidance_scale=3.0)
    ours = sampling.sample(guided, sampler, start, **arguments)
    assert np.abs(images(ours, model) - images(expected, model)).max() <= 2
    assert len(samplers.walked(samplers.build(name, model.scheduler), 8, 0.5, clean.device)) == 4


@pytest.mark.parametrize("name", NAMES)
def test_an_image_does_not_depend_on_its_neighbours(name: str, tiny: Path) -> None:
    editor = CellEditor.load(str(tiny / "foundation"), str(tiny / "cell"))
    pixels = drawn(3)[0]
    edits = [
        PlannedEdit((100.0, 100.0, 160.0, 150.0), category, seed=5 + i) for i, category in enumerate(("LSIL", "HSIL"))
    ]
    settings = EditSettings(steps=3, sampler=name, batch=2)
    together = editor.paint([(pixels, edit) for edit in edits], settings)
    alone = [editor.paint([(pixels, edit)], settings)[0] for edit in edits]
    for a, b in zip(together, alone, strict=True):
        assert np.abs(a.astype(int) - b.astype(int)).max() <= 2
    assert np.abs(together[0].astype(int) - together[1].astype(int)).max() > 2
    generator = NormalImageGenerator(str(tiny / "foundation"), None)
    field = generator.field(1, 2, GenerateSettings(size=64, steps=3, sampler=name))
    assert np.array_equal(field, generator.field(1, 2, GenerateSettings(size=64, steps=3, sampler=name)))


def test_what_cannot_be_asked_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=r"cell\.steps=60: tcd takes at most 50"):
        check(PipelineSettings(cell=EditSettings(sampler="tcd", steps=60)))
    for subcommand in (["synthesize", "out"], ["edit", str(tmp_path), "out"]):
        monkeypatch.setattr(sys, "argv", ["cytosynth", *subcommand, "--sampler", "heun"])
        with pytest.raises(SystemExit) as end:
            cli.main()
        assert end.value.code == 2
        error = capsys.readouterr().err.strip()
        assert "\n" not in error
        assert "--sampler heun: unknown sampler; choose one of ddim, dpm++2m" in error


@pytest.mark.parametrize("damaged", ["foundation", "cell"])
@pytest.mark.promise("Hostile or broken input")
def test_a_network_that_gives_nan_generates_nothing(damaged: str, tiny: Path) -> None:
    window = np.full((1, 256, 256, 3), 200, np.uint8)
    with pytest.raises(UserError, match=r"the denoiser returns NaN"):
        if damaged == "foundation":
            generator = NormalImageGenerator(str(tiny / "foundation"), None)
            generator.model.unet.conv_out.bias.data.fill_(float("nan"))
            generator.field(1, 0, GenerateSettings(size=64, steps=1))
        else:
            editor = CellEditor.load(str(tiny / "foundation"), str(tiny / "cell"))
            editor.model.unet.conv_out.bias.data.fill_(float("nan"))
            editor.patch(window, [PlannedEdit((90, 90, 150, 150), "HSIL", 1)], EditSettings(steps=1))
