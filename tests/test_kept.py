"""What version 0.1.0 wrote is still read: settings, plans, records and recipes under their old names."""

from pathlib import Path

import pytest
import yaml

from cytosynth import config
from cytosynth.augmentation import inputs
from cytosynth.augmentation.recipe import TABLE2, AugmentationRecipe
from cytosynth.bethesda import ABNORMAL
from cytosynth.cell.recipe import CellRecipe
from cytosynth.detection.recipe import DetectorRecipe
from cytosynth.errors import UsageError
from cytosynth.normal.recipe import NormalRecipe
from cytosynth.provenance import RECORDS, read_records
from cytosynth.synthesis import plan
from cytosynth.synthesis.resume import Pinned
from cytosynth.synthesis.settings import PipelineSettings
from cytosynth.training.recipe import Recipe

KEPT = Path(__file__).parent / "kept/0.1.0"


def test_settings_of_a_run_under_their_old_names() -> None:
    said = yaml.safe_load((KEPT / "settings.yaml").read_text())["settings"]
    assert {"fewest", "most", "mix"} <= set(said)
    read = config.read(Pinned, KEPT / "settings.yaml").settings
    assert (read.min_cells, read.max_cells) == (said["fewest"], said["most"])
    assert read.category_weights == said["mix"] == dict.fromkeys(ABNORMAL, 1.0)
    assert (read.normal.size, read.cell.steps) == (512, 8)


def test_set_names_the_new_setting() -> None:
    for old, new in {"fewest": "min_cells", "most": "max_cells", "mix": "category_weights"}.items():
        with pytest.raises(UsageError, match=f"--set {old}: this setting is now called {new}"):
            config.override(PipelineSettings(), [f"{old}=1"])
    with pytest.raises(UsageError, match="--set mixes: this setting is now called training_sets"):
        config.override(TABLE2["bundled"], ["mixes=[R]"])


def test_a_plan_and_the_records_of_its_run(tmp_path: Path) -> None:
    read = plan.read(KEPT / "plan.json")
    assert [image.file_name for image in read.images] == ["000000.png", "000001.png"]
    (tmp_path / RECORDS).write_bytes((KEPT / RECORDS).read_bytes())
    (tmp_path / "images").mkdir()
    for image in read.images:
        (tmp_path / "images" / image.file_name).touch()
    records = read_records(tmp_path, ABNORMAL)
    assert list(records) == ["000000.png", "000001.png"]
    boxes = [[cell["bbox_xyxy"] for cell in record["cells"]] for record in records.values()]
    assert boxes == [[cell.bbox_xyxy for cell in image.cells] for image in read.images]


@pytest.mark.parametrize(
    ("kind", "name"), [(NormalRecipe, "lora"), (CellRecipe, "cell"), (DetectorRecipe, "detector-dino")]
)
def test_a_training_continues_by_its_recipe(kind: type[Recipe], name: str, tmp_path: Path) -> None:
    recipe = config.read(kind, KEPT / f"{name}.yaml")
    (tmp_path / "recipe.yaml").write_bytes((KEPT / f"{name}.yaml").read_bytes())
    config.pin(recipe, tmp_path / "recipe.yaml")
    with pytest.raises(UsageError, match="batch_size"):
        config.pin(recipe.model_copy(update={"batch_size": 7}), tmp_path / "recipe.yaml")


def test_an_experiment_under_its_old_names() -> None:
    assert "mixes:" in (KEPT / "table2.yaml").read_text()
    read = config.read(AugmentationRecipe, KEPT / "table2.yaml")
    assert read.training_sets == TABLE2["bundled"].training_sets
    assert read.making.min_cells == TABLE2["bundled"].making.min_cells == 4


def test_set_says_what_there_is_where_it_was_looked_for() -> None:
    with pytest.raises(UsageError, match=r"--set cell.stepz: unknown setting of cell; choose one of batch, .*steps"):
        config.override(PipelineSettings(), ["cell.stepz=3"])
    with pytest.raises(UsageError, match=r"--set cel.steps: unknown setting; choose one of category_weights, cell, "):
        config.override(PipelineSettings(), ["cel.steps=3"])
    with pytest.raises(UsageError, match=r"--set seed.x: unknown setting of seed; it is a single value"):
        config.override(PipelineSettings(), ["seed.x=3"])


def test_a_run_keeps_the_settings_it_was_started_with(tmp_path: Path) -> None:
    file = tmp_path / "run.json"
    config.pin({"detector": "a", "scale": 0.5}, file)
    config.pin({"detector": "a", "scale": 0.5}, file)
    with pytest.raises(UsageError, match=r"was started with scale=0.5, now 1.0; use another folder"):
        config.pin({"detector": "a", "scale": 1.0}, file)
    with pytest.raises(UsageError, match=r"was started with another detector; use another folder"):
        config.pin({"detector": "b", "scale": 0.5}, file, inputs.difference)


def test_a_detector_called_like_a_number_is_a_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from cytosynth.cli import select as command

    asked = []
    monkeypatch.setattr(command, "override", lambda _preset, settings: asked.append(settings) or _stop())
    with pytest.raises(KeyboardInterrupt):
        command.select(tmp_path, synthetic=["2024"], detector="2024", data_root=tmp_path)
    assert [yaml.safe_load(setting.partition("=")[2]) for setting in asked[0]] == [["2024"], "2024"]


def _stop() -> None:
    raise KeyboardInterrupt
