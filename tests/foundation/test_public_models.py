"""Models in the layouts that other tools write: what they say of themselves is read, and diffusers reads the same."""

import re
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from safetensors.torch import load_file, save_file

from cytosynth.adapters import load as adapters
from cytosynth.adapters.textual_inversion import word_in
from cytosynth.bethesda import NORMAL_PROMPT
from cytosynth.cell.edit import CellEditor
from cytosynth.errors import EnvironmentProblem, UserError
from cytosynth.foundation import hub, sd15
from cytosynth.foundation.load import load
from cytosynth.foundation.model import Foundation
from cytosynth.foundation.single_file import read_single_file
from cytosynth.io.tensors import refuse_pickle
from cytosynth.synthesis.plan import PlanSettings
from cytosynth.synthesis.settings import PipelineSettings
from stable_diffusion import draw, drawn_by, fresh, kohya, ldm_unet, original_layout, pipeline, weight_of

CASES = Path(__file__).parents[1] / "cases"


@pytest.mark.parametrize("name", ["diffusers_noprefix", "comfy_native"])
def test_a_lora_without_prefix_or_with_comfyuis_is_equation_2(name: str) -> None:
    ours, plain = load("bundled"), load("bundled")
    file = CASES / "13_wrong_reasons" / f"{name}.safetensors"
    state = load_file(file)
    assert adapters.merge(ours, file) == NORMAL_PROMPT
    changed = 0
    for key, down in state.items():
        if "lora_A" in key or "lora_down" in key:
            up = state[key.replace("lora_A", "lora_B").replace("lora_down", "lora_up")]
            layer = re.sub(r"^diffusion_model\.|\.lora_\w+\.weight$", "", key)
            expected = plain.unet.get_submodule(layer).weight + up.float() @ down.float()
            assert torch.allclose(ours.unet.get_submodule(layer).weight, expected, atol=1e-5)
            changed += 1
    assert changed == len(state) // 2 == 28
    assert any(not torch.equal(a, b) for a, b in zip(ours.unet.parameters(), plain.unet.parameters(), strict=True))


def test_comfyuis_original_names_of_layers_are_those_of_diffusers_that_kohya_writes(tiny: Path, tmp_path: Path) -> None:
    model, rank = fresh(tiny), 3
    torch.manual_seed(4)
    comfy, named = {}, {}
    for name, module in model.unet.named_modules():
        if name.endswith(("attn2.to_q", "attn2.to_v", "proj_in")):
            shape = module.weight.shape
            down, up = torch.randn(rank, *shape[1:]), torch.randn(shape[0], rank, *(1,) * (len(shape) - 2))
            layer = ldm_unet(f"{name}.weight").removesuffix(".weight")
            comfy |= {f"diffusion_model.{layer}.lora_A.weight": down, f"diffusion_model.{layer}.lora_B.weight": up}
            comfy[f"diffusion_model.{layer}.alpha"] = torch.tensor(1.0)
            key = f"lora_unet_{name.replace('.', '_')}"
            named |= {f"{key}.lora_down.weight": down, f"{key}.lora_up.weight": up, f"{key}.alpha": torch.tensor(1.0)}
    save_file(comfy, tmp_path / "comfy.safetensors")
    save_file(named, tmp_path / "kohya.safetensors")
    ours, theirs = fresh(tiny), pipeline(fresh(tiny))
    adapters.merge(ours, tmp_path / "comfy.safetensors")
    theirs.load_lora_weights(str(tmp_path), weight_name="kohya.safetensors")
    assert np.abs(drawn_by(theirs, NORMAL_PROMPT) - draw(ours, NORMAL_PROMPT)).max() <= 2
    assert np.abs(draw(ours, NORMAL_PROMPT) - draw(fresh(tiny), NORMAL_PROMPT)).max() > 3


def test_words_that_a_lora_brings_along_are_learnt(tiny: Path, tmp_path: Path) -> None:
    ours, plain = fresh(tiny), fresh(tiny)
    state, added = kohya(plain, rank=4, alpha=2.0)
    width = plain.text_encoder.config.hidden_size
    words = {"mycell": torch.randn(2, width), "myglass": torch.randn(1, width)}
    state |= {"bundle_emb.mycell.string_to_param.*": words["mycell"]}
    save_file(state | {"bundle_emb.myglass.emb_params": words["myglass"]}, tmp_path / "kohya.safetensors")
    assert adapters.merge(ours, tmp_path / "kohya.safetensors") == f"{NORMAL_PROMPT} mycell mycell_1 myglass"
    for name, value in added.items():
        assert torch.allclose(weight_of(ours, name), weight_of(plain, name) + value, atol=1e-5), name
    ids = ours.tokenizer("mycell mycell_1 myglass", add_special_tokens=False).input_ids
    rows = ours.text_encoder.get_input_embeddings().weight[ids]
    assert torch.equal(rows, torch.cat([words["mycell"], words["myglass"]]))
    save_file(state | {"bundle_emb.mycell.clip_g": words["mycell"].clone()}, tmp_path / "xl.safetensors")
    with pytest.raises(UserError, match=r"bundle_emb\.mycell\.clip_g"):
        adapters.merge(fresh(tiny), tmp_path / "xl.safetensors")


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        ("lora_unet_down_blocks_0_attentions_0_proj_in.lokr_w1", "a LoKr, not a LoRA"),
        ("lora_te_text_model_encoder_layers_0_mlp_fc1", "only for a text encoder, none for a U-Net"),
        ("transformer.blocks.0.attn", "transformer.blocks.0.attn.lora_down.weight is for neither"),
        ("lora_transformer_blocks_0", "not a LoRA|neither"),
    ],
)
def test_a_lora_that_cannot_be_read_says_the_true_reason(key: str, reason: str, tiny: Path, tmp_path: Path) -> None:
    file = tmp_path / "l.safetensors"
    if key.endswith("lokr_w1"):
        save_file({key: torch.ones(4, 4), "lora": torch.ones(1)}, file)
    else:
        save_file({f"{key}.lora_down.weight": torch.ones(4, 16), f"{key}.lora_up.weight": torch.ones(16, 4)}, file)
    with pytest.raises(UserError, match=reason):
        adapters.merge(fresh(tiny), file)


def single(tiny: Path, folder: Path, more: dict[str, torch.Tensor], header: dict[str, str]) -> Foundation:
    """Write the tiny foundation as one file with `more` keys and a `header`, and read it."""
    weights, configs = original_layout(tiny / "foundation")
    save_file(weights | more, folder / "model.safetensors", metadata=header)
    if not (folder / "tokenizer").exists():
        (folder / "tokenizer").symlink_to(tiny / "foundation/tokenizer")
    text = {key: value for key, value in configs["text_encoder"].items() if key in sd15.TEXT}
    unet = {key: configs["unet"][key] for key in sd15.UNET}
    vae = {key: configs["vae"][key] for key in (*sd15.VAE, "mid_block_add_attention")}
    return read_single_file(folder / "model.safetensors", torch.float32, unet=unet, vae=vae, text=text)


def test_what_a_single_file_predicts_is_read_where_it_is_said(tiny: Path, tmp_path: Path) -> None:
    def kind(more: dict[str, torch.Tensor], header: dict[str, str]) -> str:
        return single(tiny, tmp_path, more, header).scheduler.config.prediction_type

    key = {"v_pred": torch.tensor([])}
    assert kind({}, {"format": "pt"}) == "epsilon"
    assert kind({}, {"modelspec.prediction_type": "v"}) == "v_prediction"
    assert kind({}, {"modelspec.prediction_type": "epsilon"}) == "epsilon"
    with pytest.raises(UserError, match=r"modelspec\.prediction_type 'flow' is unknown"):
        kind({}, {"modelspec.prediction_type": "flow"})
    beside = tmp_path / "model.yaml"
    beside.write_text("model:\n  target: ldm.x.LatentDiffusion\n  params: {parameterization: v, timesteps: 1000}\n")
    assert kind({}, {}) == "v_prediction"
    beside.write_text("model: {params: {timesteps: 1000}}\n")
    assert kind({}, {}) == "epsilon"
    beside.write_text("model: [\n")
    with pytest.raises(UserError, match=r"model\.yaml: not readable YAML"):
        kind({}, {})
    beside.unlink()
    model = single(tiny, tmp_path, key | {"ztsnr": torch.tensor([])}, {"format": "pt"})
    assert model.scheduler.config.rescale_betas_zero_snr
    assert model.scheduler.alphas_cumprod[-1] < 1e-6
    model = single(tiny, tmp_path, key, {"format": "pt"})
    theirs = StableDiffusionPipeline.from_pretrained(tiny / "foundation", safety_checker=None)
    theirs.scheduler = DDIMScheduler.from_config(
        theirs.scheduler.config, prediction_type="v_prediction", clip_sample=False
    )
    theirs.set_progress_bar_config(disable=True)
    difference = np.abs(drawn_by(theirs, NORMAL_PROMPT) - draw(model, NORMAL_PROMPT))
    assert difference.max() <= 4 and difference.mean() < 0.6
    assert np.abs(draw(model, NORMAL_PROMPT) - draw(fresh(tiny), NORMAL_PROMPT)).max() > 20


def test_the_prediction_can_be_set_and_goes_into_plans(tiny: Path) -> None:
    said = load(str(tiny / "foundation"), prediction_type="v_prediction")
    assert said.scheduler.config.prediction_type == "v_prediction"
    plain = load(str(tiny / "foundation"))
    assert plain.scheduler.config.prediction_type == "epsilon"
    assert said.conventions != plain.conventions
    assert set(PlanSettings.model_fields) < set(PipelineSettings.model_fields)
    assert "prediction_type" in PlanSettings.model_fields
    assert PlanSettings.model_validate({"scale": 0.5}).prediction_type is None, "plans of earlier versions are read"


def test_half_precision_variants_and_shards_load_without_a_word(
    tiny: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    whole = StableDiffusionPipeline.from_pretrained(tiny / "foundation", safety_checker=None)
    whole.to(torch.float16).save_pretrained(tmp_path / "half", variant="fp16")
    assert (tmp_path / "half/unet/diffusion_pytorch_model.fp16.safetensors").is_file()
    theirs = StableDiffusionPipeline.from_pretrained(tmp_path / "half", variant="fp16", safety_checker=None)
    shutil.copytree(tiny / "foundation", tmp_path / "shards")
    shutil.rmtree(tmp_path / "shards/unet")
    theirs.unet.save_pretrained(tmp_path / "shards/unet", max_shard_size="20KB", variant="fp16")
    assert len(list((tmp_path / "shards/unet").glob("*-of-*.safetensors"))) > 1
    capfd.readouterr()
    half, shards = load(str(tmp_path / "half")), load(str(tmp_path / "shards"))
    assert capfd.readouterr().err == ""
    for name, part in half.parts.items():
        expected = getattr(theirs, name).state_dict()
        assert all(torch.equal(value, expected[key].float()) for key, value in part.state_dict().items()), name
    expected = half.unet.state_dict()
    assert all(torch.equal(value, expected[key]) for key, value in shards.unet.state_dict().items())


def test_an_inpainting_unet_given_as_cell_is_named(tiny: Path, tmp_path: Path) -> None:
    config = dict(UNet2DConditionModel.load_config(tiny / "foundation/unet"))
    UNet2DConditionModel.from_config(config | {"in_channels": 9}).save_pretrained(tmp_path / "inpainting")
    with pytest.raises(UserError, match=r"inpainting: its U-Net has 9 input channels but no gated attention"):
        CellEditor.load(str(tiny / "foundation"), str(tmp_path / "inpainting"))
    with pytest.raises(UserError, match=r"unet: its U-Net has 4 input channels"):
        CellEditor.load(str(tiny / "foundation"), str(tiny / "foundation/unet"))


def test_the_advised_conversion_of_a_pickled_embedding_works(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        refuse_pickle(CASES / "12_pickle_advice" / "mycell.pt")
    code = re.search(r'python -c "(.+)"', str(caught.value))[1]
    out = tmp_path / "mycell.safetensors"

    def convert(file: Path) -> subprocess.CompletedProcess[str]:
        command = code.replace("IN", str(file)).replace(str(Path("OUT.safetensors")), str(out))
        return subprocess.run([sys.executable, "-c", command], capture_output=True, text=True)

    assert convert(CASES / "12_pickle_advice" / "mycell.pt").returncode == 0
    pickled = torch.load(CASES / "12_pickle_advice" / "mycell.pt", weights_only=True)["string_to_param"]["*"]
    word, vectors = word_in(out)
    assert (word, pickled.ndim) == ("mycell", 2)
    assert torch.equal(vectors, pickled)
    out.unlink()
    torch.save({"epoch": 3}, tmp_path / "empty.pt")
    failed = convert(tmp_path / "empty.pt")
    assert (failed.returncode, failed.stderr.strip(), out.exists()) == (1, "no weights found in it", False)


def test_a_hub_that_does_not_answer_is_one_line_within_five_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setattr(hub.constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(hub.constants, "ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        hub.reachable.cache_clear()
        with pytest.raises(EnvironmentProblem):
            load("owner/no-such-model-here")  # what is imported on the way is not the hub's
        hub.reachable.cache_clear()
        begun = time.monotonic()
        with pytest.raises(EnvironmentProblem, match="the hub cannot be reached") as caught:
            load("owner/no-such-model-here")
        assert time.monotonic() - begun < 5
        assert "\n" not in str(caught.value)
    hub.reachable.cache_clear()
