"""Cells edited into NILM: by weights, counts, plans and in Python; annotated; named only where there are any."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PILImage

import cytosynth
from cytosynth.augmentation.efficiency import sets
from cytosynth.augmentation.efficiency.recipe import PRESETS, Strategy
from cytosynth.bethesda import ABNORMAL, NILM
from cytosynth.cell import editing
from cytosynth.config import override
from cytosynth.data.formats import coco
from cytosynth.errors import UsageError
from cytosynth.synthesis import plan as plans
from cytosynth.synthesis import synthesize
from cytosynth.synthesis.fast import Fast
from cytosynth.synthesis.pasting.paste import spots_of
from cytosynth.synthesis.settings import COMMAND, check, of_model

SMALL = ["normal.size=320", "normal.steps=1", "cell.steps=1", "threshold=0.1", "seed=3"]


@pytest.fixture(scope="module")
def models(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The tiny models, with a synthesizer that was trained on NILM cells, too."""
    cell = tmp_path_factory.mktemp("nilm") / "cell"
    shutil.copytree(tiny / "cell", cell)
    card = json.loads((cell / editing.FILE).read_text()) if (cell / editing.FILE).exists() else {}
    (cell / editing.FILE).write_text(json.dumps(card | {"nilm": True}))
    return {name: str(tiny / name) for name in ("foundation", "normal", "detector")} | {"cell": str(cell)}


def made(out: Path, models: dict[str, str], *settings: str) -> tuple[list[str], list[str]]:
    """Return the categories of the set of one image made in `out`, and those of its cells."""
    chosen = override(COMMAND, [*SMALL, *settings])
    synthesize.synthesize(out, count=1, settings=chosen, **models)
    read = coco.read(out)
    return list(read.categories), [cell.category for image in read.images for cell in image.cells]


def test_they_are_annotated_and_named_only_where_there_are_any(models: dict[str, str], tmp_path: Path) -> None:
    names, cells = made(tmp_path / "both", models, "category_weights={NILM: 1, LSIL: 1}", "min_cells=2", "max_cells=6")
    assert set(cells) == {NILM, "LSIL"} and names == [*ABNORMAL, NILM]
    names, cells = made(tmp_path / "none", models)
    assert NILM not in cells and names == list(ABNORMAL), "as before there were any"
    names, cells = made(tmp_path / "all", models, "counts={NILM: 2}")
    assert cells == [NILM, NILM] and names == [*ABNORMAL, NILM]


def test_a_plan_makes_them_again(models: dict[str, str], tmp_path: Path) -> None:
    made(tmp_path / "first", models, "counts={NILM: 2}")
    chosen = plans.read(tmp_path / "first/plan.json", editing.targets(models["cell"])).base()
    without = {role: name for role, name in models.items() if role != "detector"}
    synthesize.synthesize(tmp_path / "again", plan=tmp_path / "first/plan.json", settings=chosen, **without)
    one, other = (np.asarray(PILImage.open(tmp_path / name / "images/000000.png")) for name in ("first", "again"))
    assert [cell.category for image in coco.read(tmp_path / "again").images for cell in image.cells] == [NILM, NILM]
    assert np.array_equal(one, other)


def test_a_synthesizer_that_was_not_trained_on_them_says_so(tiny: Path) -> None:
    asked = override(COMMAND, ["category_weights={NILM: 1, LSIL: 1}"])
    with pytest.raises(UsageError, match="category_weights: unknown category 'NILM'; choose one of ASC-US"):
        check(asked, categories=editing.targets(str(tiny / "cell")))
    assert editing.targets("bundled") == (*ABNORMAL, NILM)


def test_no_cell_becomes_nilm_unless_it_is_asked_for() -> None:
    own = of_model(COMMAND, ("SCC", "AGC", NILM))
    assert own.category_weights == {"SCC": 1.0, "AGC": 1.0}


def test_in_memory(models: dict[str, str]) -> None:
    pixels = np.full((256, 256, 3), 230, dtype=np.uint8)
    result = cytosynth.edit(
        pixels, boxes=[(100, 100, 150, 150)], category=NILM, foundation=models["foundation"], cell=models["cell"],
        settings={"cell.steps": 1},
    )  # fmt: skip
    assert [cell.category for cell in result.cells] == [NILM]
    with pytest.raises(UsageError, match="keep_abnormal: no effect on boxes that are given"):
        cytosynth.edit(
            pixels, boxes=[(100, 100, 150, 150)], category=NILM, foundation=models["foundation"], cell=models["cell"],
            settings={"keep_abnormal": True},
        )  # fmt: skip


def test_nothing_is_pasted_where_they_are() -> None:
    cells = [{"bbox_xyxy": [0, 0, 10, 10], "category": NILM}, {"bbox_xyxy": [20, 0, 30, 10], "category": "HSIL"}]
    assert spots_of({"cells": cells}) == [((25.0, 5.0), "HSIL")]


def test_an_experiment_takes_distilled_weights_and_their_settings() -> None:
    given = {"foundation": "bundled", "normal": "bundled", "cell": "bundled", "detector": "bundled"}
    recipe = PRESETS["public"].model_copy(update={"models": given | {"fast_normal": "bundled", "fast_cell": "bundled"}})
    named, making = sets._asked(recipe, Strategy(kind="fields"), (0, 8), fields=True)
    assert named == given | {"gate": "none", "fast": Fast("bundled", "bundled")}
    assert (making.normal.sampler, making.normal.steps, making.normal.guidance_scale) == ("lcm", 4, 1.0)
    assert (making.cell.sampler, making.cell.steps, making.cell.guidance_scale) == ("lcm", 4, 1.0)
    named, making = sets._asked(recipe, Strategy(kind="edited"), (0, 8))
    assert named["fast"] == Fast(cell="bundled") and "normal" not in named
    assert making.normal == recipe.making.normal, "stage 1 is not run"
