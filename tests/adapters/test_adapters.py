"""The four ways of tuning: what they train, what they leave, and that diffusers draws the same with what they save."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from diffusers.models.attention_processor import CustomDiffusionAttnProcessor2_0
from diffusers.utils import convert_state_dict_to_diffusers
from peft import LoraConfig, get_peft_model
from peft.utils import get_peft_model_state_dict
from safetensors.torch import load_file, save_file
from transformers import CLIPTextConfig, CLIPTextModel

from cytosynth import registry
from cytosynth.adapters import adapter, load, lora, svdiff, tokens
from cytosynth.adapters.textual_inversion import word_in
from cytosynth.bethesda import NORMAL_PROMPT
from cytosynth.config import override
from cytosynth.data.sources import Source
from cytosynth.errors import UsageError, UserError
from cytosynth.foundation import load as foundations
from cytosynth.foundation import sd15
from cytosynth.foundation.model import Foundation
from cytosynth.normal import memory
from cytosynth.normal.generate import NormalImageGenerator
from cytosynth.normal.recipe import NormalRecipe, preset
from cytosynth.normal.train import train_normal
from stable_diffusion import Tensors, draw, drawn_by, fresh, kohya, pipeline, weight_of

KINDS = tuple(registry.ADAPTERS)
PROMPTS = {"textual-inversion": "A cell of <x>", "custom-diffusion": "A <x> cell"}


def recipe(kind: str, **changes: object) -> NormalRecipe:
    given = {"adapter": kind, "token": "<x>", "prompt": PROMPTS.get(kind, NORMAL_PROMPT), "rank": 4}
    return NormalRecipe.model_validate(given | changes)


def trained(model: Foundation) -> dict[str, torch.nn.Parameter]:
    return {
        f"{part}.{name}": parameter
        for part, module in model.parts.items()
        for name, parameter in module.named_parameters()
        if parameter.requires_grad
    }


def tuned(tiny: Path, kind: str, folder: Path, **changes: object) -> tuple[Foundation, str]:
    """Save an adapter with weights other than its first ones into `folder`; return its model and prompt."""
    model = fresh(tiny)
    made, prompt = load.attach(model, recipe(kind, **changes))
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in trained(model).values():
            parameter += 0.2 * torch.randn_like(parameter)
    folder.mkdir()
    adapter.save(made, prompt, folder)
    return model, prompt


@pytest.mark.parametrize("kind", KINDS)
def test_untrained_it_generates_what_the_foundation_does(kind: str, tiny: Path) -> None:
    before = draw(fresh(tiny), "A cell")
    model = fresh(tiny)
    load.attach(model, recipe(kind))
    assert np.abs(draw(model, "A cell") - before).max() <= 1


@pytest.mark.parametrize("kind", KINDS)
def test_only_its_own_parameters_are_trained(kind: str, tiny: Path) -> None:
    model = fresh(tiny)
    _, prompt = load.attach(model, recipe(kind))
    own = trained(model)
    frozen = {id(p): p.clone() for part in model.parts.values() for p in part.parameters() if not p.requires_grad}
    moved = {name: parameter.detach().clone() for name, parameter in own.items()}
    optimizer = torch.optim.Adam(own.values(), lr=0.1)
    for _ in range(2):
        text = model.encode_text([prompt])
        model.unet(torch.randn(1, 4, 16, 16), 500, text).sample.square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    for part in model.parts.values():
        assert all(torch.equal(p, frozen[id(p)]) for p in part.parameters() if not p.requires_grad)
    changed = {name for name, parameter in own.items() if not torch.equal(parameter, moved[name])}
    assert changed == set(own)
    words = {
        "lora": (".lora_",), "textual-inversion": (".rows",), "svdiff": (".delta",),
        "custom-diffusion": ("custom_diffusion.", ".rows"),
    }[kind]  # fmt: skip
    assert all(any(word in name for word in words) for name in own)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_saved_loads_and_generates_the_same(kind: str, tiny: Path, tmp_path: Path) -> None:
    model, prompt = tuned(tiny, kind, tmp_path / "saved")
    expected = draw(model, prompt)
    assert np.abs(expected - draw(fresh(tiny), prompt)).max() > 3, "it changes what is drawn"
    for path in (tmp_path / "saved", next((tmp_path / "saved").glob(registry.ADAPTERS.load(kind).file))):
        merged = fresh(tiny)
        said = load.merge(merged, path)
        assert np.abs(draw(merged, prompt) - expected).max() <= 2
        assert not trained(merged)
        if path.is_dir():
            assert said == prompt
    (tmp_path / "saved" / adapter.CARD).unlink()
    assert load.identified(tmp_path / "saved")[0].name == kind, "a public folder is known by its file"


def test_lora_is_equation_2(tiny: Path) -> None:
    model = fresh(tiny)
    lora.add(model.unet, 4)
    layer = next(m for n, m in model.unet.named_modules() if n.endswith("attn2.to_k"))
    a, b = (getattr(layer, f"lora_{side}")["default"].weight for side in "AB")
    assert not b.any()
    assert a.detach().std().item() == pytest.approx(1 / 4, rel=0.5), "Gaussian"
    torch.nn.init.normal_(b)
    x = torch.randn(3, a.shape[1])
    assert torch.allclose(layer(x), x @ (layer.base_layer.weight + b @ a).T, atol=1e-5)


def test_diffusers_loads_our_textual_inversion_and_generates_the_same(tiny: Path, tmp_path: Path) -> None:
    model, prompt = tuned(tiny, "textual-inversion", tmp_path / "saved", vectors=3)
    assert prompt == "A cell of <x> <x>_1 <x>_2"
    theirs = pipeline(fresh(tiny))
    theirs.load_textual_inversion(str(tmp_path / "saved" / "learned_embeds.safetensors"))
    assert np.abs(drawn_by(theirs, "A cell of <x>") - draw(model, prompt)).max() <= 2


def test_diffusers_processors_hold_our_custom_diffusion_and_generate_the_same(tiny: Path, tmp_path: Path) -> None:
    model, prompt = tuned(tiny, "custom-diffusion", tmp_path / "saved")
    theirs = pipeline(fresh(tiny))
    theirs.load_textual_inversion(str(tmp_path / "saved"), weight_name="<x>.safetensors")
    state = load_file(tmp_path / "saved" / "pytorch_custom_diffusion_weights.safetensors")
    processors = dict(theirs.unet.attn_processors)
    for name in processors:  # `load_attn_procs` of today's diffusers takes the file and loads nothing
        own = {key.removeprefix(f"{name}."): value for key, value in state.items() if key.startswith(name)}
        if own:
            width, text = own["to_k_custom_diffusion.weight"].shape
            processors[name] = CustomDiffusionAttnProcessor2_0(True, False, width, text)
            processors[name].load_state_dict(own)
    assert sum(isinstance(p, CustomDiffusionAttnProcessor2_0) for p in processors.values()) == len(state) // 2 > 0
    theirs.unet.set_attn_processor(processors)
    assert np.abs(drawn_by(theirs, prompt) - draw(model, prompt)).max() <= 2


def test_spectral_shifts_are_numpys(tiny: Path, tmp_path: Path) -> None:
    model, prompt = tuned(tiny, "svdiff", tmp_path / "saved")
    shifts = load_file(tmp_path / "saved" / "spectral_shifts.safetensors")
    plain = fresh(tiny)
    layers = dict(svdiff.matrices(plain.unet))
    assert set(shifts) == {f"{name}.delta" for name in layers}
    for name, layer in layers.items():
        matrix = layer.weight.detach().numpy().reshape(len(layer.weight), -1).astype(np.float64)
        u, sigma, v = np.linalg.svd(matrix, full_matrices=False)
        again = u @ np.diag(np.maximum(sigma + shifts[f"{name}.delta"].numpy(), 0)) @ v
        layer.weight.data = torch.tensor(again, dtype=torch.float32).reshape(layer.weight.shape)
    assert np.abs(draw(plain, prompt) - draw(model, prompt)).max() <= 2


def test_kohyas_lora_with_its_own_alpha(tiny: Path, tmp_path: Path) -> None:
    plain, ours = fresh(tiny), fresh(tiny)
    state, added = kohya(plain, rank=4, alpha=1.0)
    save_file(state, tmp_path / "kohya.safetensors")
    load.merge(ours, tmp_path / "kohya.safetensors")
    assert {name.partition(".")[0] for name in added} == {"unet", "text_encoder"}
    for name, value in added.items():
        assert torch.allclose(weight_of(ours, name), weight_of(plain, name) + value, atol=1e-5), name
    theirs = pipeline(fresh(tiny))
    theirs.load_lora_weights(str(tmp_path), weight_name="kohya.safetensors")
    assert np.abs(drawn_by(theirs, NORMAL_PROMPT) - draw(ours, NORMAL_PROMPT)).max() <= 2
    assert np.abs(draw(ours, NORMAL_PROMPT) - draw(plain, NORMAL_PROMPT)).max() > 3


def disturbed_peft(tiny: Path) -> tuple[Foundation, LoraConfig, Tensors]:
    """Return a model with peft's own LoRA, alpha other than the rank and once more other, and its merged weights."""
    model = fresh(tiny)
    config = LoraConfig(r=4, lora_alpha=1, target_modules=lora.TARGETS, alpha_pattern={"attn2.to_v": 6})
    wrapped = get_peft_model(model.unet, config)
    torch.manual_seed(3)
    for name, parameter in wrapped.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    expected = {
        name.removeprefix("base_model.model."): (module.get_base_layer().weight + module.get_delta_weight("default"))
        for name, module in wrapped.named_modules()
        if hasattr(module, "get_delta_weight")
    }
    model.wrapped = wrapped
    return model, config, expected


def test_pefts_own_folder(tiny: Path, tmp_path: Path) -> None:
    model, _, expected = disturbed_peft(tiny)
    model.wrapped.save_pretrained(tmp_path / "peft")
    for path in (tmp_path / "peft", tmp_path / "peft" / "adapter_model.safetensors"):
        ours = fresh(tiny)
        assert load.merge(ours, path) == NORMAL_PROMPT
        assert len(expected) == len(lora.TARGETS) * sum(n.endswith("attn2") for n, _ in ours.unet.named_modules())
        for name, value in expected.items():
            assert torch.allclose(ours.unet.get_submodule(name).weight, value, atol=1e-6), name
    (tmp_path / "peft" / "adapter_config.json").unlink()
    with pytest.raises(UserError, match=r"need adapter_config\.json in the same folder"):
        load.merge(fresh(tiny), tmp_path / "peft")


def test_alpha_in_diffusers_header(tiny: Path, tmp_path: Path) -> None:
    model, config, expected = disturbed_peft(tiny)
    layers = convert_state_dict_to_diffusers(get_peft_model_state_dict(model.wrapped))
    layers = {key.removeprefix("base_model.model."): value for key, value in layers.items()}
    StableDiffusionPipeline.save_lora_weights(
        str(tmp_path), unet_lora_layers=layers, unet_lora_adapter_metadata=config.to_dict()
    )
    ours, theirs = fresh(tiny), pipeline(fresh(tiny))
    load.merge(ours, tmp_path)
    for name, value in expected.items():
        assert torch.allclose(ours.unet.get_submodule(name).weight, value, atol=1e-6), name
    theirs.load_lora_weights(str(tmp_path), weight_name=lora.WEIGHTS)
    assert np.abs(drawn_by(theirs, NORMAL_PROMPT) - draw(ours, NORMAL_PROMPT)).max() <= 2


def test_a_lora_is_taken_whole_or_not_at_all(tiny: Path, tmp_path: Path) -> None:
    good, _ = kohya(fresh(tiny), rank=4, alpha=1.0)
    (key, *_) = (key for key in good if key.endswith("attn2_to_q.lora_down.weight"))
    layer = key.removesuffix(".lora_down.weight")
    foreign = layer.replace("down_blocks_", "down_blocks_7")
    model, plain = fresh(tiny), fresh(tiny)
    for state, words in (
        (good | {key.replace(layer, foreign): v for key, v in good.items() if key.startswith(f"{layer}.")},
         "the foundation has no such layer"),
        (good | {key: good[key][:, 1:].contiguous()}, r"attn2.to_q is \(\d+, \d+\), the foundation needs"),
        (good | {key: good[key][1:].contiguous()}, "A's rank is"),
        ({k: v for k, v in good.items() if k != f"{layer}.lora_up.weight"}, "has no lora_up and lora_down"),
        (good | {f"{layer}.dora_scale": torch.ones(1)}, "a DoRA"),
        (good | {f"{layer}.hada_w1_a": torch.ones(1)}, "not a LoRA"),
        ({k.replace("lora_te_", "lora_te2_"): v for k, v in good.items()}, "neither the U-Net nor the text encoder"),
        ({k: v for k, v in good.items() if k.startswith("lora_te_")}, "none for a U-Net"),
    ):  # fmt: skip
        save_file({key: value.clone() for key, value in state.items()}, tmp_path / "bad.safetensors")
        with pytest.raises(UserError, match=words) as caught:
            load.merge(model, tmp_path / "bad.safetensors")
        assert "\n" not in str(caught.value)
        for part, module in model.parts.items():
            untouched = plain.parts[part].state_dict()
            assert all(torch.equal(value, untouched[name]) for name, value in module.state_dict().items())


def test_the_card_says_what_it_was_trained_on(tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    tuned(tiny, "svdiff", tmp_path / "saved")
    model = fresh(tiny)
    card = json.loads((tmp_path / "saved" / adapter.CARD).read_text())
    assert (card["adapter"], card["foundation"], card["digest"]) == ("svdiff", "foundation", model.digest)
    load.merge(model, tmp_path / "saved")
    assert "trained on foundation" not in capsys.readouterr().err
    other = fresh(tiny)
    other.digest = "0" * 16
    load.merge(other, tmp_path / "saved")
    assert (
        f"trained on foundation foundation {model.digest}, loaded into foundation {'0' * 16}" in capsys.readouterr().err
    )


def full_size() -> Foundation:
    words = foundations_tokenizer()
    with torch.device("meta"):
        return Foundation(
            UNet2DConditionModel(**sd15.UNET), torch.nn.Module(), CLIPTextModel(CLIPTextConfig(**sd15.TEXT)), words,
            None, "stable-diffusion-v1-5",
        )  # fmt: skip


def foundations_tokenizer():
    from cytosynth.foundation.tokens import build

    return build([NORMAL_PROMPT, "cell"])


def test_names_and_numbers_at_the_size_of_stable_diffusion(tmp_path: Path) -> None:
    numbers = {}
    for kind in KINDS:
        model = full_size()
        with torch.device("meta"):
            load.attach(model, recipe(kind, rank=8))
        numbers[kind] = sum(parameter.numel() for parameter in trained(model).values())
        if kind == "lora":
            assert sum(name.endswith("lora_A.default.weight") for name in trained(model)) == 16 * 4
        if kind == "custom-diffusion":
            keys = [name for name in trained(model) if "custom_diffusion" in name]
            assert len(keys) == 16 * 2
            first = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2.processor.to_k_custom_diffusion.weight"
            assert first in keys
        if kind == "svdiff":
            shifts = {n.removesuffix(".parametrizations.weight.0.delta"): p.numel() for n, p in trained(model).items()}
            assert len(shifts) == 282, "the linear and convolutional layers of the U-Net"
            assert shifts["unet.conv_in"] == 36
            assert shifts["unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k"] == 320
    keys_and_values = 2 * 768 * (5 * 320 + 5 * 640 + 6 * 1280)
    assert numbers == {
        "lora": 5 * 27_648 + 5 * 43_008 + 6 * 73_728, "textual-inversion": 768, "svdiff": 222_696,
        "custom-diffusion": keys_and_values + 768,
    }  # fmt: skip


@pytest.mark.slow
def test_memory_is_counted_and_less_with_each_setting(tiny: Path) -> None:
    base = recipe("lora", foundation=str(tiny / "foundation"), window=128, batch_size=2)
    needs = [memory.count(base.model_copy(update=changes)) for _, changes in memory.LESS]
    model = fresh(tiny)
    plain = sum(p.numel() * 4 for part in model.parts.values() for p in part.parameters())
    lora.add(model.unet, 4)
    own = sum(p.numel() for p in model.unet.parameters() if p.requires_grad)
    assert needs[0].parameters == own
    assert plain + 4 * own <= needs[0].weights < plain + 4 * own + 20_000, "buffers of the text encoder on top"
    assert needs[0].peak > needs[0].weights + 2 * 4 * own
    assert needs[2].weights < 0.6 * needs[0].weights
    assert needs[3].peak < needs[2].peak < needs[0].peak
    lean = base.model_copy(update=memory.LESS[3][1])
    assert [memory.count(lean.model_copy(update=changes)) for _, changes in memory.LESS] == [needs[3], *needs[1:]]


def test_precision_of_what_is_frozen(tiny: Path) -> None:
    with pytest.raises(UsageError, match="frozen_dtype=bf16 needs mixed_precision=bf16"):
        override(preset("bundled", "lora"), ["frozen_dtype=bf16"])


def test_bad_adapters_are_refused_in_one_line(tiny: Path, tmp_path: Path) -> None:
    model = fresh(tiny)
    save_file({"a": torch.zeros(2), "b": torch.zeros(3)}, tmp_path / "other.safetensors")
    (tmp_path / "pickle.bin").write_bytes(b"x")
    (tmp_path / "pickles").mkdir()
    (tmp_path / "pickles" / "pytorch_lora_weights.bin").write_bytes(b"x")
    (tmp_path / "empty").mkdir()
    (tmp_path / "unknown").mkdir()
    (tmp_path / "unknown" / adapter.CARD).write_text(json.dumps({"adapter": "dreambooth"}))
    (tmp_path / "broken.safetensors").write_bytes(b"1234")
    width = model.text_encoder.config.hidden_size
    save_file({"<y>": torch.zeros(1, width + 1)}, tmp_path / "wide.safetensors")
    save_file({"image</w>": torch.zeros(1, width)}, tmp_path / "known.safetensors")
    name = "down_blocks.9.attentions.0.transformer_blocks.0.attn2.processor.to_k_custom_diffusion.weight"
    (tmp_path / "cd").mkdir()
    save_file({name: torch.zeros(2, 2)}, tmp_path / "cd" / "pytorch_custom_diffusion_weights.safetensors")
    save_file({"<z>": torch.zeros(1, width)}, tmp_path / "cd" / "<z>.safetensors")
    save_file({"conv_in.delta": torch.zeros(3)}, tmp_path / "short.safetensors")
    save_file({"nowhere.delta": torch.zeros(3)}, tmp_path / "nowhere.safetensors")
    for path, words in (
        ("other.safetensors", "not the weights of a known adapter"),
        ("pickle.bin", "can run code when they are opened"),
        ("pickles", "can run code when they are opened"),
        ("none.safetensors", "expected a .safetensors file"),
        ("broken.safetensors", "not a safetensors file"),
        ("empty", "no adapter found"),
        ("unknown", "unknown adapter 'dreambooth'; expected one of lora"),
        ("wide.safetensors", "the text encoder has 16"),
        ("known.safetensors", "already in the vocabulary"),
        ("cd", "the foundation has no such layer"),
        ("short.safetensors", r"conv_in.delta is \(3,\), the foundation needs \(8,\)"),
        ("nowhere.safetensors", "has no such layer"),
    ):
        with pytest.raises(UserError, match=words) as caught:
            load.merge(fresh(tiny), tmp_path / path)
        assert "\n" not in str(caught.value)
    with pytest.raises(UsageError, match="must contain the learnt word '<x>'"):
        load.attach(fresh(tiny), recipe("textual-inversion", prompt="A cell"))
    with pytest.raises(UserError, match="give a word that is one token"):
        load.attach(fresh(tiny), recipe("textual-inversion", initializer="koilocyte"))


def test_a_new_word_leaves_the_table_alone(tiny: Path) -> None:
    model = fresh(tiny)
    table = model.text_encoder.get_input_embeddings().weight.clone()
    words = tokens.add(model, "<x>", tokens.start(model, "cell", 2))
    ids = model.token_ids(["A <x> <x>_1 cell"])
    assert (ids >= words.first).sum() == 2
    embedded = model.text_encoder.get_input_embeddings()(ids)
    cell = table[model.tokenizer("cell", add_special_tokens=False).input_ids[0]]
    assert torch.equal(embedded[ids >= words.first], cell.repeat(2, 1))
    assert torch.equal(words.table.weight, table)
    assert torch.equal(embedded[ids < words.first], table[ids[ids < words.first]])


@pytest.mark.parametrize("kind", KINDS)
def test_all_savings_at_once_train_the_adapter_in_full_precision(
    kind: str, tiny: Path, fields: Path, tmp_path: Path
) -> None:
    settings = recipe(
        kind, foundation=str(tiny / "foundation"), data=[Source(root="drawn")], window=64, turns=True, batch_size=2,
        max_steps=2, learning_rate=1e-2, optimizer="adam", lr_schedule="cosine", gradient_accumulation=2,
        ema_decay=0.9, min_snr_gamma=5.0, offset_noise=0.1, mixed_precision="bf16", frozen_dtype="bf16",
        gradient_checkpointing=True, preview_every=2,
    )  # fmt: skip
    outcome = train_normal(settings, tmp_path / "run", fields)
    saved = load_file(tmp_path / "run/checkpoints/step-00000002/weights.safetensors")
    assert sum(value.numel() for value in saved.values()) == outcome.parameters
    assert all(value.dtype == torch.float32 and value.isfinite().all() for value in saved.values())
    assert (tmp_path / "run/previews/00000002.png").exists()
    card = adapter.read_card(outcome.weights)
    assert card is not None
    assert card.digest == fresh(tiny).digest, "of the foundation as it is on disk, whatever it was trained in"
    assert card.training["parameters"] == outcome.parameters
    assert (card.training["window"], card.training["learning_rate"]) == (64, 1e-2)
    drawing = NormalImageGenerator(str(tiny / "foundation"), str(outcome.weights))
    plain = NormalImageGenerator(str(tiny / "foundation"), None)
    assert drawing.prompt == card.prompt
    assert drawing.digest != plain.digest


def test_an_adapter_of_odd_shapes_is_one_line(tiny: Path, tmp_path: Path) -> None:
    for shape in ((), (2, 0), (1, 2, 3)):
        save_file({"word": torch.zeros(shape)}, tmp_path / "word.safetensors")
        with pytest.raises(UserError, match="no learnt word"):
            word_in(tmp_path / "word.safetensors")
    sides = {"A": (2, 8), "B": (8, 2)}
    layer = {f"unet.conv_norm_out.lora_{side}.weight": torch.zeros(shape) for side, shape in sides.items()}
    save_file(layer, tmp_path / "norm.safetensors")
    with pytest.raises(UserError, match="conv_norm_out is not a linear or convolutional layer"):
        lora.load(foundations.load(str(tiny / "foundation")), tmp_path / "norm.safetensors")
