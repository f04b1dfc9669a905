"""The pipeline end to end on tiny models: annotated, marked, resumable to the byte."""

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from conftest import write_fields
from cytosynth.cli import app
from cytosynth.cli import synthesize as _commands  # noqa: F401
from cytosynth.config import override
from cytosynth.data.check import check
from cytosynth.data.formats import coco
from cytosynth.errors import UsageError, UserError
from cytosynth.io import lock
from cytosynth.synthesis import synthesize
from cytosynth.synthesis.settings import COMMAND, PipelineSettings

SETTINGS = ["normal.size=320", "normal.steps=2", "cell.steps=2", "threshold=0.1", "cell.box_scale=1.2"]


def chosen(seed: int) -> PipelineSettings:
    return override(COMMAND.model_copy(update={"seed": seed}), SETTINGS)


def models(tiny: Path) -> dict[str, str]:
    return {name: str(tiny / name) for name in ("foundation", "normal", "cell", "detector")}


def content(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture(scope="module")
def made(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("made") / "set"
    synthesize.synthesize(out, count=4, settings=chosen(5), **models(tiny))
    return out


def test_the_data_set_is_sound_and_annotated(made: Path) -> None:
    assert check(made) == []
    data = coco.read(made)
    assert [image.file_name for image in data.images] == [f"{i:06d}.png" for i in range(4)]
    assert all((image.width, image.height) == (320, 320) for image in data.images)
    assert data.categories == ("ASC-US", "ASC-H", "LSIL", "HSIL")
    assert all(1 <= len(image.cells) <= 8 for image in data.images)
    assert data.info["synthetic"] is True
    assert {p.name for p in made.iterdir()} == {
        "images", "annotations.json", "provenance.jsonl", "preview.png", "README.md", "settings.yaml", "plan.json",
    }  # fmt: skip


def test_every_image_says_that_it_is_synthetic_and_how_it_came_to_be(made: Path) -> None:
    records = [json.loads(line) for line in (made / "provenance.jsonl").open()]
    for record in records:
        image = Image.open(made / "images" / record["file_name"])
        assert json.loads(image.text["cytosynth"]) == record
        assert "Not for diagnosis" in image.text["Description"]
        xmp = image.text["XML:com.adobe.xmp"]
        assert (
            "<Iptc4xmpExt:DigitalSourceType>http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia<"
            in xmp
        )
        assert record["origin"] == "synthetic"
        assert set(record["models"]) == {"normal", "cell", "detector", "foundation"}
    card = (made / "README.md").read_text()
    assert "Synthetic cervical cytology" in card
    assert "Not for diagnosis" in card
    assert str(made.parent) not in "".join(
        p.read_text() for p in made.iterdir() if p.suffix in (".md", ".json", ".yaml")
    )


def test_an_image_made_alone_equals_that_of_a_run(made: Path, tiny: Path, tmp_path: Path) -> None:
    for index in range(4):
        out = tmp_path / f"only_{index}"
        synthesize.synthesize(out, count=1, start=index, settings=chosen(5), **models(tiny))
        name = f"images/{index:06d}.png"
        assert [p.name for p in (out / "images").iterdir()] == [f"{index:06d}.png"]
        assert (out / name).read_bytes() == (made / name).read_bytes()
    repaired = tmp_path / "repaired"
    shutil.copytree(made, repaired)
    (repaired / "images/000002.png").unlink()
    synthesize.synthesize(repaired, count=4, settings=chosen(5), **models(tiny))
    assert content(repaired) == content(made)


def test_more_of_the_same_run_keeps_what_is_there(made: Path, tiny: Path, tmp_path: Path) -> None:
    out = tmp_path / "growing"
    synthesize.synthesize(out, count=2, settings=chosen(5), **models(tiny))
    synthesize.synthesize(out, count=4, settings=chosen(5), **models(tiny))
    assert content(out) == content(made)


def test_another_seed_makes_other_images(made: Path, tiny: Path, tmp_path: Path) -> None:
    synthesize.synthesize(tmp_path / "other", count=1, settings=chosen(6), **models(tiny))
    name = "images/000000.png"
    assert (tmp_path / "other" / name).read_bytes() != (made / name).read_bytes()


def test_killed_at_any_moment_the_same_command_ends_at_the_same_bytes(made: Path, tiny: Path, tmp_path: Path) -> None:
    out = tmp_path / "killed"
    flags = [flag for setting in SETTINGS for flag in ("--set", setting)]
    paths = [flag for name, path in models(tiny).items() for flag in (f"--{name}", path)]
    command = [sys.executable, "-m", "cytosynth", "synthesize", str(out), "--count", "4", "--seed", "5", *flags, *paths]
    rng = np.random.default_rng(0)
    for kill in range(3):
        victim = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 120
        while len(list(out.glob("images/*.png"))) <= kill and victim.poll() is None and time.monotonic() < deadline:
            time.sleep(0.002)
        time.sleep(float(rng.uniform(0, 0.3)))
        victim.kill()
        victim.wait()
    subprocess.run(command, check=True, capture_output=True)
    left = content(out)
    left.pop(".lock", None)
    assert left == content(made)


def test_a_record_cut_short_by_a_kill_is_made_again(made: Path, tiny: Path, tmp_path: Path) -> None:
    out = tmp_path / "cut"
    shutil.copytree(made, out)
    text = (out / "provenance.jsonl").read_text()
    (out / "provenance.jsonl").write_text(text[: len(text) - 40])
    (out / "images" / ".000003.png.123.part").write_bytes(b"half")
    (out / ".annotations.json.123.part").write_bytes(b"half")
    synthesize.synthesize(out, count=4, settings=chosen(5), **models(tiny))
    assert content(out) == content(made)


@pytest.mark.promise("Two runs into one folder")
def test_a_folder_of_another_run_or_in_use_is_refused(made: Path, tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="was started with other settings"):
        synthesize.synthesize(made, count=4, settings=chosen(9), **models(tiny))
    (tmp_path / "foreign/images").mkdir(parents=True)
    with pytest.raises(UsageError, match="already contains other files"):
        synthesize.synthesize(tmp_path / "foreign", count=1, settings=chosen(0), **models(tiny))
    own = tmp_path / "own"
    own.mkdir()
    (own / "README.md").write_text("my notes")
    with pytest.raises(UsageError, match=r"own: already contains other files \(README.md\)"):
        synthesize.synthesize(own, count=1, settings=chosen(0), **models(tiny))
    assert [path.name for path in own.iterdir()] == ["README.md"]
    assert (own / "README.md").read_text() == "my notes"
    busy = tmp_path / "busy"
    busy.mkdir()
    with lock.only(busy), pytest.raises(UserError, match="another run is writing there"):
        synthesize.synthesize(busy, count=1, settings=chosen(0), **models(tiny))


def test_own_images_are_edited_with_licence_and_background_kept(tiny: Path, tmp_path: Path) -> None:
    write_fields(tmp_path / "real")
    given = {name: path for name, path in models(tiny).items() if name != "normal"}
    out = tmp_path / "r2s"
    synthesize.edit(tmp_path / "real", out, settings=chosen(1), **given)
    assert check(out) == []
    data = coco.read(out)
    assert [p.file_name for p in data.images] == ["field_0.png", "field_3.png"]
    assert data.licences[0]["name"] == "CC BY 4.0"
    assert data.images[1].extra["source"] == "doi:10.1/3"
    assert data.images[1].extra["license"] == 1
    assert data.info["derived_from"] == {"description": "drawn fields"}
    assert "CC BY 4.0" in (out / "README.md").read_text()
    assert "Real cervical cytology" in Image.open(out / "images/field_0.png").text["Description"]
    for line in (out / "provenance.jsonl").open():
        record = json.loads(line)
        assert record["origin"] == "real-to-synthetic"
        assert record["original"] == record["file_name"]
        before = np.asarray(Image.open(tmp_path / "real/images" / record["original"]))
        after = np.asarray(Image.open(out / "images" / record["file_name"]))
        changed = (before != after).any(axis=2)
        for cell in record["cells"]:
            x0, y0, x1, y1 = map(int, cell["edited_xyxy"])
            assert changed[y0:y1, x0:x1].any()
            changed[y0:y1, x0:x1] = False
        assert not changed.any(), "pixels outside the edited regions are bit-identical"


def test_images_of_a_set_with_other_licences_are_another_run(tiny: Path, tmp_path: Path) -> None:
    given = {name: path for name, path in models(tiny).items() if name != "normal"}
    for name in ("one", "two"):
        write_fields(tmp_path / name)
    synthesize.edit(tmp_path / "one", tmp_path / "out", settings=chosen(1), limit=1, **given)
    synthesize.edit(tmp_path / "two", tmp_path / "out", settings=chosen(1), limit=1, **given)
    file = tmp_path / "two/annotations.json"
    file.write_text(file.read_text().replace("CC BY 4.0", "CC BY-NC 4.0"))
    before = content(tmp_path / "out")
    with pytest.raises(UsageError, match="images of another set, with other licences"):
        synthesize.edit(tmp_path / "two", tmp_path / "out", settings=chosen(1), limit=2, **given)
    assert content(tmp_path / "out") == before


def test_one_bad_image_stops_nothing_unless_strict(tiny: Path, tmp_path: Path) -> None:
    write_fields(tmp_path / "real")
    folder = tmp_path / "real/images"
    (folder / "aa.png").write_bytes(b"broken")
    Image.new("RGB", (100, 100)).save(folder / "small.png")
    given = {name: path for name, path in models(tiny).items() if name != "normal"}
    data = synthesize.edit(folder, tmp_path / "out", settings=chosen(0), **given)
    assert len(data.images) == 6
    card = (tmp_path / "out/README.md").read_text()
    assert "- aa.png: not a readable image" in card
    assert str(tmp_path) not in card
    assert "small.png: the image (100x100) is smaller than a patch of 256 pixels; give larger fields, joined" in card
    with pytest.raises(UserError, match=r"aa\.png"):
        synthesize.edit(folder, tmp_path / "strict", settings=chosen(0), strict=True, **given)


@pytest.mark.parametrize(
    ("setting", "complaint"),
    [
        ("category_weights={CIN1: 1}", "unknown category 'CIN1'"),
        ("category_weights={HSIL: -1, LSIL: 2}", "weights must be at least 0"),
        ("category_weights={LSIL: .nan}", "their sum finite"),
        ("category_weights={LSIL: .inf}", "their sum finite"),
        ("category_weights={LSIL: 1e308, HSIL: 1e308}", "their sum finite"),
        ("seed=0x1" + "f" * 5000, "more than 64 bits"),
        ("min_cells=9", r"min_cells \(9\) must not exceed max_cells \(8\)"),
        ("cell.steps=0", "cell.steps"),
        ("normal.size=1000", "multiple of 64"),
    ],
)
def test_settings_that_cannot_be(setting: str, complaint: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=complaint):
        synthesize.synthesize(tmp_path / "x", count=1, settings=override(PipelineSettings(), [setting]))
    assert not (tmp_path / "x").exists()


def test_another_file_of_the_same_name_is_noticed(tiny: Path, tmp_path: Path) -> None:
    write_fields(tmp_path / "real")
    given = {name: path for name, path in models(tiny).items() if name != "normal"}
    synthesize.edit(tmp_path / "real", tmp_path / "out", settings=chosen(1), **given)
    shutil.copy(tmp_path / "real/images/field_4.png", tmp_path / "real/images/field_0.png")
    with pytest.raises(UsageError, match=r"field_0\.png was made from another file"):
        synthesize.edit(tmp_path / "real", tmp_path / "out", settings=chosen(1), **given)


def test_models_that_do_not_belong_together(tiny: Path, tmp_path: Path) -> None:
    config = json.loads((tiny / "cell/config.json").read_text())
    from diffusers import UNet2DConditionModel

    UNet2DConditionModel.from_config(config | {"cross_attention_dim": 24}).save_pretrained(tmp_path / "cell")
    given = models(tiny) | {"cell": str(tmp_path / "cell")}
    with pytest.raises(UserError, match="trained on another foundation"):
        synthesize.synthesize(tmp_path / "out", count=1, settings=chosen(1), **given)
    with pytest.raises(UsageError, match="--device nonsense: not available"):
        synthesize.synthesize(tmp_path / "out", count=1, settings=chosen(1), device="nonsense", **models(tiny))
    with pytest.raises(UserError, match="none for a U-Net"):
        lora_of_nothing(tmp_path / "lora")
        synthesize.synthesize(
            tmp_path / "out", count=1, settings=chosen(1), **models(tiny) | {"normal": str(tmp_path / "lora")}
        )


def lora_of_nothing(folder: Path) -> None:
    import torch
    from safetensors.torch import save_file

    folder.mkdir()
    save_file({"text_encoder.x.lora_A.weight": torch.zeros(1)}, folder / "pytorch_lora_weights.safetensors")


@pytest.mark.parametrize(
    ("file", "change"),
    [
        ("normal/adapter.json", {"prompt": "an HSIL cell"}),
        ("foundation/scheduler/scheduler_config.json", {"prediction_type": "v_prediction"}),
        ("foundation/vae/config.json", {"scaling_factor": 3.0}),
        ("detector/config.json", {"tile": 256}),
    ],
)
@pytest.mark.promise("Generation survives being killed")
@pytest.mark.slow
def test_what_affects_images_besides_the_weights_is_part_of_the_run(
    file: str, change: dict[str, object], tiny: Path, tmp_path: Path
) -> None:
    shutil.copytree(tiny, tmp_path / "models")
    given, out = models(tmp_path / "models"), tmp_path / "out"
    synthesize.synthesize(out, count=1, settings=chosen(5), **given)
    path = tmp_path / "models" / file
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(UsageError, match="was started with other settings or models"):
        synthesize.synthesize(out, count=2, settings=chosen(5), **given)


def test_which_weights_of_a_run_folder_are_used_is_said_once_for_each_model(tiny: Path, tmp_path: Path) -> None:
    write_fields(tmp_path / "drawn", 1)
    for role, weights in (("cell", "weights"), ("detector", "best")):
        shutil.copytree(tiny / role, tmp_path / role / weights)
        (tmp_path / role / "recipe.yaml").write_text(f"kind: {role}\n")
    line = ["edit", str(tmp_path / "drawn/images"), str(tmp_path / "out"), "--foundation", str(tiny / "foundation")]
    line += ["--cell", str(tmp_path / "cell"), "--detector", str(tmp_path / "detector"), "--set", "cell.steps=1"]
    ran = CliRunner().invoke(app, [*line, "--set", "threshold=0.1"], catch_exceptions=False)
    assert ran.exit_code == 0, ran.output
    for role, weights in (("cell", "weights"), ("detector", "best")):
        assert ran.output.count(f"{tmp_path / role}: a run folder; its {weights} are used") == 1
