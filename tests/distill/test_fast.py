"""`--fast`: whose weights are taken, what they set, and what a run remembers of it."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from diffusers import UNet2DConditionModel

import cytosynth
import killing
from command_lines import models
from conftest import disturb, write_fields
from cytosynth.adapters import lora
from cytosynth.adapters.distilled import CARD, WEIGHTS, DistilledCard
from cytosynth.data import image_files
from cytosynth.distill.student import Student
from cytosynth.errors import UsageError, UserError
from cytosynth.foundation.load import load, part
from cytosynth.io import atomic
from cytosynth.normal.generate import NormalImageGenerator
from cytosynth.normal.settings import GenerateSettings
from cytosynth.synthesis import fast
from cytosynth.synthesis.fast import Fast

BUNDLED = {"foundation": "bundled", "normal": "bundled", "cell": "bundled"}


@pytest.fixture(scope="module")
def few(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with distilled weights of both stages, which were not trained but are not zero."""
    root = tmp_path_factory.mktemp("few")
    for stage, unet in (
        ("normal", load(str(tiny / "foundation")).unet),
        ("cell", part(UNet2DConditionModel, tiny / "cell")),
    ):
        student = Student(unet, 2, None)
        disturb(unet, "lora_B")
        (root / stage).mkdir()
        lora.save(student.unet, root / stage)
        card = DistilledCard(stage=stage, steps=2, guidance_scale=3.0)  # type: ignore[arg-type]
        atomic.write_json(root / stage / CARD, card.model_dump())
    return root


def test_what_fast_weights_set(few: Path) -> None:
    both = Fast(str(few / "normal"), str(few / "cell"))
    for stage in ("normal", "cell"):
        said = {key: value for key, value in both.settings().items() if key.startswith(stage)}
        assert said == {f"{stage}.sampler": "lcm", f"{stage}.steps": 2, f"{stage}.guidance_scale": 1.0,
                        f"{stage}.guidance_rescale": 0.0}  # fmt: skip
    assert Fast().settings() == {}


def test_whose_weights_are_taken(few: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = {"normal": None, "cell": str(few / "cell")}
    assert fast.asked(False, own, BUNDLED) == Fast(None, str(few / "cell"))  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"--fast: .* fit the bundled models only, not cell mine; .*--fast-cell RUN"):
        fast.asked(True, {"cell": None}, BUNDLED | {"cell": "mine"})
    with pytest.raises(UsageError, match="not foundation sd; "):
        fast.asked(True, {"normal": None}, BUNDLED | {"foundation": "sd"})

    def lacking(name: str) -> Path:
        raise UserError(f"bundled model '{name}' is not in this installation")

    monkeypatch.setattr(fast, "bundled", lacking)
    with pytest.raises(UserError, match=r"^--fast: this installation has no few-step weights of stage 2; make some"):
        fast.asked(True, {"cell": None}, BUNDLED)
    monkeypatch.setattr(fast, "bundled", lambda name: tmp_path)
    assert fast.asked(True, {"cell": None, "normal": "own"}, BUNDLED) == Fast("own", "bundled")


def test_a_run_in_few_steps_remembers_them_and_is_continued_with_them_only(
    cytosynth: killing.Server, tiny: Path, few: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    named = models(tiny, "foundation", "normal", "cell", "detector")
    changes = [f"--set={change}" for change in ("normal.size=256", "threshold=0.0", "cell.steps=3")]
    command = ["synthesize", str(out), "--count=1", *named, *changes]
    given = [f"--fast-normal={few / 'normal'}", f"--fast-cell={few / 'cell'}"]
    assert cytosynth.run(*command, *given).code == 0
    pinned = yaml.safe_load((out / "settings.yaml").read_text())
    assert [pinned["settings"]["normal"][key] for key in ("sampler", "steps", "guidance_scale")] == ["lcm", 2, 1.0]
    assert [pinned["settings"]["cell"][key] for key in ("sampler", "steps", "guidance_scale")] == ["lcm", 3, 1.0]
    record = json.loads((out / "provenance.jsonl").read_text().splitlines()[0])
    assert record["models"]["fast_normal"] == f"own:normal {atomic.sha256(few / 'normal' / WEIGHTS)[:16]}"
    assert record["models"]["fast_cell"].startswith("own:cell ")
    before = {path.name: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    assert cytosynth.run(*command, *given).code == 0
    assert before == {path.name: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    refused = cytosynth.run(*command)
    assert refused.code == 2
    assert "use another folder" in refused.err


def test_in_memory_it_is_the_same_field(tiny: Path, few: Path) -> None:
    pipeline = cytosynth.load_pipeline(
        foundation=tiny / "foundation", normal=tiny / "normal", cell=tiny / "cell", detector=tiny / "detector",
        fast_normal=few / "normal", fast_cell=few / "cell", settings={"normal.size": 256},
    )  # fmt: skip
    assert (pipeline.settings.normal.sampler, pipeline.settings.normal.steps) == ("lcm", 2)
    field = pipeline.field(seed=1)
    edited = cytosynth.edit(
        field, [(100, 100, 140, 140)], "HSIL", foundation=tiny / "foundation", cell=tiny / "cell",
        fast_cell=few / "cell",
    )  # fmt: skip
    again = pipeline.edit(field, [(100, 100, 140, 140)], "HSIL")
    assert np.array_equal(edited.image, again.image)
    assert not np.array_equal(edited.image, field)


def test_weights_that_do_not_fit_are_refused(tiny: Path, few: Path, tmp_path: Path) -> None:
    shutil.copytree(few / "normal", tmp_path / "w")
    (tmp_path / "w" / CARD).write_text('{"steps": 0}')
    with pytest.raises(UsageError, match="steps"):
        Fast(normal=str(tmp_path / "w")).settings()
    with pytest.raises(UserError, match="those of `distill cell` are expected"):
        Fast(cell=str(few / "normal")).settings()


def test_evaluate_steps_takes_the_guidance_of_the_teachers_and_the_sampler_from_the_weights(
    cytosynth: killing.Server, tiny: Path, few: Path, tmp_path: Path
) -> None:
    write_fields(tmp_path / "drawn", 9)
    (tmp_path / "drawn/split.json").unlink()
    scales = {"normal": 2.0, "cell": 4.0}
    samplers = {"normal": "ddim-trailing", "cell": "lcm"}
    for stage, scale in scales.items():
        shutil.copytree(few / stage, tmp_path / stage)
        card = json.loads((few / stage / CARD).read_text())
        (tmp_path / stage / CARD).write_text(json.dumps(card | {"guidance_scale": scale, "sampler": samplers[stage]}))
    command = ["evaluate", "steps", str(tmp_path / "drawn"), *models(tiny, "foundation", "normal", "cell"),
               "--split=all", "--steps=1", "--windows=10", "--window=64", "--cells=10", "--categories=HSIL",
               "--set=normal.steps=1", "--set=cell.steps=1", "--set=about=64"]  # fmt: skip
    given = [f"--fast-{stage}={tmp_path / stage}" for stage in scales]
    assert cytosynth.run(*command, str(tmp_path / "out"), *given).code == 0
    recipe = yaml.safe_load((tmp_path / "out/steps.yaml").read_text())
    assert {stage: recipe[stage]["guidance_scale"] for stage in scales} == scales
    assert recipe["samplers"] == {"normal": "ddim-trailing"}
    generator = NormalImageGenerator(str(tiny / "foundation"), str(tiny / "normal"), distilled=str(tmp_path / "normal"))
    settings = GenerateSettings(size=64, steps=1, guidance_scale=1.0, sampler="ddim-trailing")
    drawn = image_files.read(tmp_path / "out/normal/steps-1/00002.png")
    assert np.array_equal(drawn, generator.field(3, 2, settings))
    ran = cytosynth.run(*command, str(tmp_path / "out"), *given, "--set=cell.guidance_scale=3.5")
    assert ran.code == 2 and "guidance_scale': 3.5" in ran.err.replace("\n", " ")
