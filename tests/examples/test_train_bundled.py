"""The script that trains the bundled parts by the clock, its data and weight files; and latents of any shape."""

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from conftest import DENOISER, TEXT, disturb, drawn
from cytosynth import registry
from cytosynth.cell.edit import CellEditor, PlannedEdit
from cytosynth.cell.recipe import PRESETS as CELL
from cytosynth.cell.recipe import CellRecipe
from cytosynth.cell.settings import EditSettings
from cytosynth.cell.train import train_cell
from cytosynth.data import pack, sources, split
from cytosynth.data.formats import coco
from cytosynth.data.sources import Source
from cytosynth.detection.recipe import preset as detector
from cytosynth.errors import UserError
from cytosynth.foundation.load import load
from cytosynth.foundation.save import save_part
from cytosynth.foundation.scratch import autoencoder, recipe, shards
from cytosynth.foundation.scratch.recipe import AutoencoderRecipe, DenoiserRecipe
from cytosynth.foundation.scratch.train import train_denoiser
from cytosynth.normal.generate import NormalImageGenerator
from cytosynth.normal.recipe import preset as normal
from cytosynth.normal.settings import GenerateSettings

ROOT = Path(__file__).parents[2]


def test_latents_have_the_channels_and_the_scale_of_the_autoencoder(tiny: Path, fields: Path, tmp_path: Path) -> None:
    """Six channels at a quarter of the scale, through both stages."""
    torch.manual_seed(0)
    vae = autoencoder.build(
        AutoencoderRecipe(data=[], block_out_channels=[4, 4, 8], norm_num_groups=4, latent_channels=6)
    )
    vae.register_to_config(scaling_factor=1.0)
    save_part(vae, tmp_path / "vae", torch.float32)
    common = {"data": [Source(root="drawn")], "max_steps": 1, "batch_size": 1}
    made = DenoiserRecipe(**common, **DENOISER | {"crops": [32]})
    weights = train_denoiser(made, tmp_path / "vae", tiny / "foundation", tmp_path / "denoiser", fields).weights
    model = load(str(weights))
    assert (model.channels, model.factor, model.unet.config.in_channels) == (6, 4, 6)
    assert model.encode_pixels(np.zeros((1, 64, 64, 3), np.uint8)).shape == (1, 6, 16, 16)
    field = NormalImageGenerator(str(weights), None).field(0, 0, GenerateSettings(size=128, steps=1))
    assert field.shape == (128, 128, 3)
    asked = CellRecipe(**common, foundation=str(weights), validate_every=0)
    cell = train_cell(asked, tmp_path / "cell", fields).weights
    assert json.loads((cell / "config.json").read_text())["in_channels"] == 13
    editor = CellEditor.load(str(weights), str(cell))
    disturb(editor.model.unet, "conv_in.weight")
    pixels, edit = drawn(0)[0], PlannedEdit((100.0, 100.0, 140.0, 140.0), "HSIL", 0)
    edited = editor.edit(pixels, [edit], EditSettings(steps=1, feather=0, grain=0))
    changed = np.argwhere((edited != pixels).any(axis=2))
    assert changed.min() >= 100 and changed.max() < 140
    with pytest.raises(UserError, match=r"its U-Net has 13 input channels .* with 9 and gated"):
        CellEditor.load(str(tiny / "foundation"), str(cell))


def test_the_split_of_the_liquid_based_set_is_fixed(tmp_path: Path) -> None:
    parts = json.loads(split.FIXED["lbc_x40"].read_text())
    assert {name: len(members) for name, members in parts.items()} == {"train": 31, "val": 6, "test": 9}
    assert len({member for members in parts.values() for member in members}) == 46
    (tmp_path / "lbc_x40/images").mkdir(parents=True)
    images = []
    for number, name in enumerate([parts["train"][0], parts["val"][0], parts["test"][0], "another.jpg"]):
        Image.fromarray(drawn(number)[0]).save(tmp_path / "lbc_x40/images" / name)
        images.append({"id": number + 1, "file_name": name, "width": 320, "height": 288})
    content = {"images": images, "annotations": [], "categories": []}
    (tmp_path / "lbc_x40/annotations.json").write_text(json.dumps(content))
    data = coco.read(tmp_path / "lbc_x40")
    for part in ("train", "val", "test"):
        found = split.part(data, part, tmp_path / "lbc_x40")
        assert [image.file_name for image in found] == [parts[part][0]]
    (tmp_path / "lbc_x40/split.json").write_text(json.dumps({"train": ["another.jpg"]}))
    found = split.part(data, "train", tmp_path / "lbc_x40")
    assert [image.file_name for image in found] == ["another.jpg"], "the set's own split comes first"


def test_bundled_recipes_train_on_the_part_train_alone(tmp_path: Path) -> None:
    """`centre` and `unannotated` of CRIC's split.json are parts that nobody asks for."""
    own = [recipe.AUTOENCODER, recipe.DECODER, recipe.TEXT, recipe.DENOISER, CELL["bundled"]]
    chosen = [*own, *(normal("bundled", name) for name in registry.ADAPTERS),
              *(detector("bundled", name) for name in registry.DETECTORS)]  # fmt: skip
    assert {source.split for one in chosen for source in one.data} == {"train"}
    (tmp_path / "cric/images").mkdir(parents=True)
    names = ["train", "val", "test", "centre", "unannotated", "none"]
    images = []
    for number, name in enumerate(names):
        Image.fromarray(drawn(number)[0]).save(tmp_path / f"cric/images/{name}.png")
        images.append({"id": number + 1, "file_name": f"{name}.png", "width": 320, "height": 288})
    content = {"images": images, "annotations": [], "categories": []}
    (tmp_path / "cric/annotations.json").write_text(json.dumps(content))
    (tmp_path / "cric/split.json").write_text(json.dumps({name: [f"{name}.png"] for name in names[:-1]}))
    asked = [Source(root="cric")]
    assert [sample.name for sample in sources.load(asked, tmp_path)] == ["train.png"]
    assert [sample.name for sample in sources.held_out(asked, tmp_path)] == ["val.png"]
    pack.write(asked, tmp_path, tmp_path / "data.zip")
    with zipfile.ZipFile(tmp_path / "data.zip") as file:
        packed = [name for name in file.namelist() if name.endswith(".webp")]
    assert packed == ["cric/images/train.webp", "cric/images/val.webp"]


def test_packed_images_and_cells_have_their_working_scale(fields: Path, tmp_path: Path) -> None:
    pack.write([Source(root="drawn", scale=0.5)], fields, tmp_path / "data.zip")
    (source,) = pack.read(tmp_path / "data.zip", tmp_path / "unpacked")
    again = sources.load([source], tmp_path / "unpacked")
    whole = sources.load([Source(root="drawn", scale=0.5)], fields)
    assert [sample.size for sample in again] == [sample.size for sample in whole]
    assert [sample.cells for sample in again] == [sample.cells for sample in whole]
    error = np.abs(again[0].pixels.astype(int) - whole[0].pixels).mean()
    assert 0 < error < 4
    (tmp_path / "not.zip").write_text("no")
    with pytest.raises(UserError, match="not a packed data file"):
        pack.read(tmp_path / "not.zip", tmp_path / "unpacked")


def test_shards_hold_a_model_in_half_precision(tiny: Path, tmp_path: Path) -> None:
    paths = shards.write(tiny / "foundation", tmp_path, "all", largest=20_000)
    assert len(paths) > 1 and max(path.stat().st_size for path in paths[1:]) < 40_000
    again = shards.read(shards.found(tmp_path, "all"), tmp_path / "again")
    for path in sorted(path for path in (tiny / "foundation").rglob("*") if path.is_file()):
        copy = again / path.relative_to(tiny / "foundation")
        if path.suffix == ".safetensors":
            before, after = load_file(path), load_file(copy)
            assert before.keys() == after.keys()
            assert all(torch.equal(before[key].half(), after[key]) for key in before if before[key].is_floating_point())
        else:
            assert copy.read_text() == path.read_text()
    assert load(str(again)).channels == 4
    paths[1].unlink()
    with pytest.raises(UserError, match="of its shards found"):
        shards.found(tmp_path, "all")


@pytest.mark.slow
def test_the_parts_are_trained_by_the_clock_and_again_from_what_came_of_it(
    tiny: Path, fields: Path, tmp_path: Path
) -> None:
    pack.write([Source(root="drawn")], fields, tmp_path / "data.zip")
    shards.write(tiny / "foundation/vae", tmp_path / "start", "autoencoder")
    own = {"text": TEXT, "denoiser": DENOISER, "cell": {"variants": 1, "validate_every": 0}}
    flags = [
        flag
        for part, settings in own.items()
        for key, value in ({"batch_size": 1} | settings).items()
        for flag in ("--set", f"{part}.{key}={value}")
    ]

    def run(out: str, start: str, *parts: str) -> set[str]:
        subprocess.run(
            [sys.executable, ROOT / "examples/train_bundled.py", tmp_path / "data.zip", tmp_path / out, "--minutes",
             "0.1", "--start", tmp_path / start, "--parts", *parts, *flags],
            check=True, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        return {path.name for path in (tmp_path / out).iterdir()}

    made = run("one", "start", "text", "denoiser", "cell")
    assert made == {f"{part}.01.safetensors" for part in ("text", "denoiser", "cell")}
    for path in (tmp_path / "one").iterdir():
        assert all(value.dtype != torch.float32 for value in load_file(path).values())
        path.rename(tmp_path / "start" / path.name)
    assert run("two", "start", "cell") == {"cell.01.safetensors"}
