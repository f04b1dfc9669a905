"""A decoder next to a synthesizer's weights."""

from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL
from safetensors.torch import load_file, save_file

from cytosynth.cell import own_decoder
from cytosynth.cell.edit import CellEditor, PlannedEdit
from cytosynth.cell.recipe import CellRecipe
from cytosynth.cell.settings import EditSettings
from cytosynth.cell.train import train_cell
from cytosynth.data.sources import Source
from cytosynth.errors import UserError
from cytosynth.foundation.load import load
from cytosynth.foundation.save import save_part


@pytest.fixture(scope="module")
def sharper(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an autoencoder with the encoder of the tiny foundation and another decoder."""
    vae = AutoencoderKL.from_pretrained(tiny / "foundation/vae")
    with torch.no_grad():
        for parameter in vae.decoder.parameters():
            parameter += 0.02 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))
    folder = tmp_path_factory.mktemp("sharper") / "vae"
    save_part(vae, folder, torch.float32)
    return folder


def with_decoder(tiny: Path, sharper: Path, folder: Path) -> Path:
    """Return the tiny synthesizer with that decoder next to its weights."""
    folder.mkdir()
    for file in (tiny / "cell").iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    own_decoder.write(AutoencoderKL.from_pretrained(sharper), folder)
    return folder


def test_edits_are_decoded_by_it_and_the_foundation_keeps_its_own(tiny: Path, sharper: Path, tmp_path: Path) -> None:
    foundation = load(str(tiny / "foundation"), denoiser="unused").freeze()
    plain = CellEditor.load(foundation, str(tiny / "cell"))
    other = CellEditor.load(foundation, str(with_decoder(tiny, sharper, tmp_path / "cell")))
    latents = torch.randn(1, 4, 32, 32, generator=torch.Generator().manual_seed(0))
    before = foundation.decode_latents(latents)
    expected = AutoencoderKL.from_pretrained(sharper).half().float()
    with torch.no_grad():
        decoded = expected.decode(latents / expected.config.scaling_factor).sample
        pixels = ((decoded[0].permute(1, 2, 0) + 1) * 127.5).clamp(0, 255)
        assert np.abs(other.model.decode_latents(latents)[0] - pixels.numpy()).max() <= 1
    assert not np.array_equal(other.model.decode_latents(latents), before)
    assert np.array_equal(foundation.decode_latents(latents), before)
    window = np.random.default_rng(0).integers(0, 256, (1, 256, 256, 3), np.uint8)
    assert torch.equal(other.model.encode_pixels(window), plain.model.encode_pixels(window))
    assert other.digest != plain.digest
    edit = [PlannedEdit((90.0, 90.0, 150.0, 150.0), "HSIL", 1)]
    settings = EditSettings(steps=1)
    assert not np.array_equal(other.edit(window[0], edit, settings), plain.edit(window[0], edit, settings))


def test_a_training_writes_the_decoder_of_its_recipe_with_the_weights(
    tiny: Path, fields: Path, sharper: Path, tmp_path: Path
) -> None:
    recipe = CellRecipe(
        foundation=str(tiny / "foundation"), data=[Source(root="drawn")], categories=["ASC-US", "LSIL"], zoom=2.0,
        decoder=str(sharper), max_steps=1, batch_size=1, checkpoint_every=1, preview_every=9, validate_every=0,
    )  # fmt: skip
    outcome = train_cell(recipe, tmp_path / "run", fields)
    written = load_file(outcome.weights / own_decoder.FILE)
    expected = own_decoder.of(AutoencoderKL.from_pretrained(sharper))
    assert written.keys() == expected.keys() and all(
        torch.equal(value, expected[name].half()) for name, value in written.items()
    )
    assert CellEditor.load(str(tiny / "foundation"), str(outcome.weights)).trained.zoom == 2
    plain = train_cell(recipe.model_copy(update={"decoder": None}), tmp_path / "plain", fields)
    assert not (plain.weights / own_decoder.FILE).exists()


def test_an_autoencoder_of_another_encoder_is_refused_before_training(
    tiny: Path, fields: Path, sharper: Path, tmp_path: Path
) -> None:
    vae = AutoencoderKL.from_pretrained(sharper)
    with torch.no_grad():
        vae.encoder.conv_in.bias += 1
    save_part(vae, tmp_path / "vae", torch.float32)
    recipe = CellRecipe(foundation=str(tiny / "foundation"), data=[Source(root="drawn")], decoder=str(tmp_path / "vae"))
    with pytest.raises(UserError, match=r"vae: its encoder is not that of the foundation"):
        train_cell(recipe, tmp_path / "run", fields)


@pytest.mark.parametrize("fault", ["missing", "shape", "nan", "damaged"])
def test_a_decoder_that_does_not_fit_is_refused_in_one_line(
    tiny: Path, sharper: Path, tmp_path: Path, fault: str
) -> None:
    folder = with_decoder(tiny, sharper, tmp_path / "cell")
    file = folder / own_decoder.FILE
    weights = load_file(file)
    name = "decoder.conv_in.weight"
    if fault == "missing":
        del weights[name]
    elif fault == "shape":
        weights[name] = weights[name][:1].clone()
    else:
        weights[name][0, 0, 0, 0] = float("nan")
    save_file(weights, file)
    if fault == "damaged":
        file.write_bytes(file.read_bytes()[:-50])
    with pytest.raises(UserError, match=r"decoder\.safetensors: ") as caught:
        CellEditor.load(str(tiny / "foundation"), str(folder))
    assert "\n" not in str(caught.value)
