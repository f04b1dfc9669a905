"""The real architecture by name and shape, and every way of loading one, compared with diffusers."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint, convert_ldm_vae_checkpoint
from peft.utils import get_peft_model_state_dict
from safetensors.torch import load_file, save_file
from transformers import CLIPTextConfig, CLIPTextModel

from conftest import AUTOENCODER, disturb
from cytosynth.adapters import lora
from cytosynth.bethesda import ABNORMAL, NORMAL_PROMPT, abnormal_prompt
from cytosynth.cell import synthesizer
from cytosynth.devices import available
from cytosynth.errors import EnvironmentProblem, UsageError, UserError
from cytosynth.foundation import samplers, sampling, sd15
from cytosynth.foundation.load import load
from cytosynth.foundation.model import Foundation
from cytosynth.foundation.save import save_part
from cytosynth.foundation.scratch import autoencoder
from cytosynth.foundation.scratch.recipe import AutoencoderRecipe
from cytosynth.foundation.single_file import read_single_file
from cytosynth.normal.generate import NormalImageGenerator
from stable_diffusion import ldm_unet, ldm_vae, original_layout


def test_the_papers_prompts_exactly() -> None:
    assert NORMAL_PROMPT == "A normal cervical cytopathological image"
    assert abnormal_prompt("ASC-US") == "A cervical cytopathological image with ASC-US cell"
    assert ABNORMAL == ("ASC-US", "ASC-H", "LSIL", "HSIL")


def test_stable_diffusion_15_has_the_published_number_of_parameters() -> None:
    with torch.device("meta"):
        unet, vae = UNet2DConditionModel(**sd15.UNET), AutoencoderKL(**sd15.VAE)
        text = CLIPTextModel(CLIPTextConfig(**sd15.TEXT))
    counts = [sum(p.numel() for p in part.parameters()) for part in (unet, vae, text)]
    assert counts == [859_520_964, 83_653_863, 123_060_480]
    assert len(unet.state_dict()) == 686


def test_lora_on_the_full_size_has_diffusers_names_and_shapes() -> None:
    with torch.device("meta"):
        unet = UNet2DConditionModel(**sd15.UNET)
        lora.add(unet, 8)
    sizes = {320: 5, 640: 5, 1280: 6}
    ours = {name: tuple(p.shape) for name, p in unet.named_parameters() if p.requires_grad}
    assert len(ours) == 16 * 4 * 2
    assert len(get_peft_model_state_dict(unet)) == 16 * 4 * 2
    for width, layers in sizes.items():
        assert sum(shape == (8, width) and ".to_q." in name for name, shape in ours.items()) == layers
        assert sum(shape == (width, 8) and ".to_out.0." in name for name, shape in ours.items()) == layers
    assert sum(shape == (8, 768) for shape in ours.values()) == 32, "keys and values read the 768 text channels"
    suffixes = {re.sub(r".*attn2\.(.*)\.(weight)", r"\1", name) for name in ours}
    assert suffixes == {f"{t}.lora_{m}.default" for t in ("to_q", "to_k", "to_v", "to_out.0") for m in "AB"}
    assert sum(int(np.prod(shape)) for shape in ours.values()) == 5 * 27_648 + 5 * 43_008 + 6 * 73_728


def test_the_synthesizer_at_full_size_is_diffusers_gligen_inpainting_unet() -> None:
    with torch.device("meta"):
        expected = UNet2DConditionModel(**sd15.UNET | {"in_channels": 9}, attention_type="gated")
        plain = UNet2DConditionModel(**sd15.UNET)
    with torch.device("meta"):
        ours = synthesizer.build(plain)
    shapes = {name: tuple(value.shape) for name, value in ours.state_dict().items()}
    assert shapes == {name: tuple(value.shape) for name, value in expected.state_dict().items()}
    synthesizer.trainable(ours, everything=False)
    trained = {name for name, p in ours.named_parameters() if p.requires_grad}
    assert trained == (set(shapes) - set(plain.state_dict())) | {"conv_in.weight", "conv_in.bias"}
    assert sum(name.endswith("fuser.alpha_attn") for name in trained) == 16, "before every cross-attention"
    assert shapes["position_net.linears.0.weight"] == (512, 768 + 64)


def test_untrained_synthesizer_equals_its_foundation_exactly(tiny: Path) -> None:
    model = load(str(tiny / "foundation"))
    unet = synthesizer.build(model.unet).eval()
    latents, text = torch.randn(2, 4, 16, 16), model.encode_text(["a", "b"]).detach()
    ground = synthesizer.grounding([(10, 10, 90, 80)] * 2, 128, model.pool_text(["HSIL", "LSIL"]).detach())
    extra = synthesizer.extra_channels(torch.randn(2, 4, 16, 16), torch.ones(2, 1, 16, 16))
    with torch.no_grad():
        expected = model.unet.eval()(latents, 500, text).sample
        got = unet(torch.cat([latents, extra], 1), 500, text, cross_attention_kwargs={"gligen": ground}).sample
        disturb(unet, "alpha")
        changed = unet(torch.cat([latents, extra], 1), 500, text, cross_attention_kwargs={"gligen": ground}).sample
    assert torch.equal(expected, got)
    assert not torch.allclose(expected, changed), "the gates, once open, matter"


def test_ours_equals_diffusers_pipeline(tiny: Path) -> None:
    model = load(str(tiny / "foundation")).freeze()
    pipeline = StableDiffusionPipeline(
        model.vae, model.text_encoder, model.tokenizer, model.unet, samplers.build("ddim", model.scheduler), None, None,
        requires_safety_checker=False,
    )  # fmt: skip
    pipeline.set_progress_bar_config(disable=True)
    start = sampling.noise((1, 4, 16, 24), 3)
    theirs = pipeline(
        NORMAL_PROMPT, height=128, width=192, num_inference_steps=25, guidance_scale=5.0, latents=start,
        output_type="latent",
    ).images  # fmt: skip
    text = model.encode_text([NORMAL_PROMPT, ""])
    ours = sampling.sample(
        sampling.guided(model.unet, text[:1], text[1:]), samplers.build("ddim", model.scheduler), start
    )
    assert torch.allclose(ours, theirs, atol=1e-5)


def test_saved_lora_loads_into_diffusers_and_generates_the_same(tiny: Path) -> None:
    ours = load(str(tiny / "foundation")).freeze()
    plain = load(str(tiny / "foundation")).freeze()
    lora.load(ours, tiny / "normal" / lora.WEIGHTS)
    pipeline = StableDiffusionPipeline(
        plain.vae, plain.text_encoder, plain.tokenizer, plain.unet, samplers.build("ddim", plain.scheduler), None, None,
        requires_safety_checker=False,
    )  # fmt: skip
    pipeline.set_progress_bar_config(disable=True)
    start = sampling.noise((1, 4, 16, 16), 1)
    text = ours.encode_text([NORMAL_PROMPT, ""])

    def theirs() -> torch.Tensor:
        return pipeline(
            NORMAL_PROMPT, height=128, width=128, num_inference_steps=5, latents=start, guidance_scale=5.0,
            output_type="latent",
        ).images  # fmt: skip

    before = theirs()
    pipeline.load_lora_weights(str(tiny / "normal"))
    after = theirs()
    mine = sampling.sample(
        sampling.guided(ours.unet, text[:1], text[1:]), samplers.build("ddim", ours.scheduler), start, steps=5
    )
    assert torch.allclose(mine, after, atol=1e-4)
    assert not torch.allclose(before, after, atol=1e-2)


def test_latents_are_standardised_without_changing_what_they_decode_to() -> None:
    torch.manual_seed(1)
    vae = autoencoder.build(AutoencoderRecipe(data=[], **AUTOENCODER)).eval()
    disturb(vae, "conv2.weight")
    pixels = torch.rand(1, 3, 64, 64) * 2 - 1
    with torch.no_grad():
        before = vae.encode(pixels).latent_dist
        image = vae.decode(before.mean).sample
        means, deviations = before.mean.mean((0, 2, 3)), before.mean.std((0, 2, 3))
        autoencoder.standardise(vae, means, deviations)
        after = vae.encode(pixels).latent_dist
        again = vae.decode(after.mean).sample
    assert torch.allclose(after.mean.mean((0, 2, 3)), torch.zeros(4), atol=1e-4)
    assert torch.allclose(after.mean.std((0, 2, 3)), torch.ones(4), atol=1e-4)
    assert torch.allclose(after.std, before.std / deviations[None, :, None, None], rtol=1e-3)
    assert torch.allclose(image, again, atol=1e-4)


def test_a_single_original_file_loads_to_the_same_weights(tiny: Path, tmp_path: Path) -> None:
    weights, configs = original_layout(tiny / "foundation")
    save_file(weights, tmp_path / "model.safetensors")
    (tmp_path / "tokenizer").symlink_to(tiny / "foundation/tokenizer")
    text = {key: value for key, value in configs["text_encoder"].items() if key in sd15.TEXT}
    loaded = read_single_file(
        tmp_path / "model.safetensors", torch.float32,
        unet={key: configs["unet"][key] for key in sd15.UNET}, vae={
            key: configs["vae"][key] for key in (*sd15.VAE, "mid_block_add_attention")}, text=text,
    )  # fmt: skip
    expected = load(str(tiny / "foundation"))
    for name, part in expected.parts.items():
        got = loaded.parts[name].state_dict()
        assert all(torch.equal(value, got[key]) for key, value in part.state_dict().items()), name
    assert loaded.tokenizer.tokenize(NORMAL_PROMPT) == expected.tokenizer.tokenize(NORMAL_PROMPT)


def test_what_cannot_be_loaded_says_why(tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "model.ckpt").write_bytes(b"")
    with pytest.raises(UserError, match="pickled weights can run code"):
        load(str(tmp_path / "model.ckpt"))
    save_file({"a": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(UserError, match=r"expected a Stable Diffusion 1\.x"):
        load(str(tmp_path / "other.safetensors"))
    (tmp_path / "short.safetensors").write_bytes(b"1234")
    with pytest.raises(UserError, match="not a safetensors file"):
        load(str(tmp_path / "short.safetensors"))
    with pytest.raises(UserError, match="the folder 'unet' is missing"):
        load(str(tmp_path))
    with pytest.raises(UserError, match="no such folder or file"):
        load("nothing")
    with pytest.raises(EnvironmentProblem, match="the hub cannot be reached"):
        load("owner/no-such-model-here")
    with pytest.raises(UserError, match="no adapter weights"):
        lora.load(load(str(tiny / "foundation")), tmp_path / lora.WEIGHTS)


def test_saved_keys_are_the_ones_the_ecosystem_reads(tiny: Path) -> None:
    pipeline = StableDiffusionPipeline.from_pretrained(tiny / "foundation", local_files_only=True)
    ours = load(str(tiny / "foundation"))
    for name, part in ours.parts.items():
        theirs = getattr(pipeline, name).state_dict()
        assert all(torch.equal(value, theirs[key]) for key, value in part.state_dict().items())


def test_every_key_of_a_full_size_original_file_finds_its_place() -> None:
    with torch.device("meta"):
        unet, vae = UNet2DConditionModel(**sd15.UNET), AutoencoderKL(**sd15.VAE)
        text = CLIPTextModel(CLIPTextConfig(**sd15.TEXT))
    attends = (False, True, True, True)
    original = {f"model.diffusion_model.{ldm_unet(k, 2, attends)}": v for k, v in unet.state_dict().items()}
    for key, value in vae.state_dict().items():
        name = ldm_vae(key)
        squares = ".attn_1." in name and name.endswith("weight") and value.ndim == 2
        original[f"first_stage_model.{name}"] = value[:, :, None, None] if squares else value
    assert original["model.diffusion_model.output_blocks.2.1.conv.weight"].shape == (1280, 1280, 3, 3)
    assert original["model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"].shape == (320, 768)
    assert original["first_stage_model.decoder.mid.attn_1.q.weight"].shape == (512, 512, 1, 1)
    assert len(original) == 686 + 248
    got = convert_ldm_unet_checkpoint(dict(original), config=sd15.UNET)
    assert {k: v.shape for k, v in got.items()} == {k: v.shape for k, v in unet.state_dict().items()}
    got = convert_ldm_vae_checkpoint(dict(original), config=sd15.VAE)
    assert {k: v.shape for k, v in got.items()} == {k: v.shape for k, v in vae.state_dict().items()}
    names = {key.removeprefix("text_model.") for key in text.state_dict()}
    assert {re.sub(r"layers\.\d+", "layers.N", name) for name in names} == TEXT_NAMES
    assert len(names) == 196


TEXT_NAMES = {
    "embeddings.token_embedding.weight", "embeddings.position_embedding.weight",
    *(f"{name}.{part}" for part in ("weight", "bias") for name in (
        "final_layer_norm", *(f"encoder.layers.N.{layer}" for layer in (
            "layer_norm1", "layer_norm2", "mlp.fc1", "mlp.fc2", "self_attn.q_proj", "self_attn.k_proj",
            "self_attn.v_proj", "self_attn.out_proj")))),
}  # fmt: skip


@pytest.mark.parametrize(
    ("part", "key"), [("text_encoder", "position_embedding"), ("unet", "conv_in.w"), ("vae", "conv_out")]
)
@pytest.mark.promise("Hostile or broken input")
def test_weights_that_do_not_fit_are_refused_and_not_initialised_at_random(
    part: str, key: str, tiny: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(tiny / "foundation", tmp_path / "f")
    (file,) = (tmp_path / "f" / part).glob("*.safetensors")
    whole = load_file(file)
    name = next(one for one in sorted(whole) if key in one)
    for damaged, problem in (
        ({k: v for k, v in whole.items() if k != name}, "missing"),
        (whole | {"more.weight": whole[name].clone()}, "unexpected"),
    ):
        save_file(damaged, file, metadata={"format": "pt"})
        with pytest.raises(UserError, match=f"{part}: .* is {problem}: the weights do not fit"):
            load(str(tmp_path / "f"))
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    ("file", "change"),
    [
        ("scheduler/scheduler_config.json", {"prediction_type": "x"}),
        ("scheduler/scheduler_config.json", {"steps_offset": ""}),
        ("scheduler/scheduler_config.json", {"trained_betas": "x"}),
        ("vae/config.json", {"scaling_factor": 0}),
        ("vae/config.json", {"scaling_factor": "x"}),
        ("scheduler/scheduler_config.json", {"num_train_timesteps": 10**9}),
        ("unet/config.json", {"transformer_layers_per_block": [1]}),
        ("unet/config.json", {"layers_per_block": 10**9}),
        ("unet/config.json", {"norm_eps": "x"}),
        ("unet/config.json", {"downsample_padding": 2}),
        ("vae/config.json", {"norm_num_groups": -1}),
        ("text_encoder/config.json", {"hidden_size": "x"}),
        ("tokenizer/tokenizer_config.json", {"model_max_length": -1}),
    ],
)
@pytest.mark.promise("Hostile or broken input")
def test_a_damaged_configuration_is_one_line(file: str, change: dict[str, object], tiny: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny / "foundation", tmp_path / "f")
    path = tmp_path / "f" / file
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(UserError) as caught:
        load(str(tmp_path / "f"))
    assert "\n" not in str(caught.value)


@pytest.mark.promise("Hostile or broken input")
def test_weights_that_give_nothing_but_nan_are_refused(tiny: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny / "foundation", tmp_path / "f")
    (file,) = (tmp_path / "f/unet").glob("*.safetensors")
    whole = load_file(file)
    whole["conv_out.bias"].fill_(torch.nan)
    save_file(whole, file, metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"unet or scheduler: the denoiser returns NaN or infinity"):
        load(str(tmp_path / "f"))


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), MemoryError(), TimeoutError("30 s"),
                                   RuntimeError("DefaultCPUAllocator: can't allocate memory")])  # fmt: skip
def test_memory_that_is_refused_while_loading_is_no_fault_of_the_model(
    error: Exception, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object, **__: object) -> None:
        raise error

    for owner, name in ((Foundation, "encode_text"), (AutoencoderKL, "from_pretrained")):
        with monkeypatch.context() as patch, pytest.raises(type(error)):
            patch.setattr(owner, name, refused)
            load(str(tiny / "foundation"))


def test_the_autoencoder_says_scale_and_channels_and_the_denoiser_must_fit_them(tiny: Path, tmp_path: Path) -> None:
    levels = {"block_out_channels": [32] * 3, "down_block_types": ["DownEncoderBlock2D"] * 3,
              "up_block_types": ["UpDecoderBlock2D"] * 3}  # fmt: skip
    for channels in (4, 3):
        shutil.copytree(tiny / "foundation", tmp_path / f"{channels}")
        shutil.rmtree(tmp_path / f"{channels}/vae")
        vae = AutoencoderKL(**sd15.VAE | levels | {"latent_channels": channels})
        save_part(vae, tmp_path / f"{channels}/vae", torch.float32)
    model = load(str(tmp_path / "4"))
    assert (model.factor, model.channels) == (4, 4)
    assert model.encode_pixels(np.zeros((1, 64, 64, 3), np.uint8)).shape == (1, 4, 16, 16)
    with pytest.raises(UserError, match="its U-Net has 4 input channels; one with 3 or 7 is expected"):
        load(str(tmp_path / "3"))


def test_fields_need_a_denoiser_that_starts_from_noise_alone(tiny: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny / "foundation", tmp_path / "inpainting")
    shutil.rmtree(tmp_path / "inpainting/unet")
    shutil.copytree(tiny / "cell", tmp_path / "inpainting/unet")
    assert load(str(tmp_path / "inpainting")).unet.config.in_channels == 9
    for use in (
        lambda: NormalImageGenerator(str(tmp_path / "inpainting"), None),
        lambda: load(str(tmp_path / "inpainting"), denoiser="plain"),
    ):
        with pytest.raises(UserError, match="its U-Net has 9 input channels; one with 4 is expected"):
            use()


def test_a_device_that_holds_nothing_is_not_available() -> None:
    with pytest.raises(UsageError, match="--device meta: not available here"):
        available("meta")
