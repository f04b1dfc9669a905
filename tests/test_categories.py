"""Categories are data: a user's own six go through reader, trainer, prompt, editor, gate, detector and plan."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PILImage

import cytosynth
from conftest import drawn
from cytosynth.annotations import Cell, DataSet, Image
from cytosynth.cell import editing
from cytosynth.data.formats import coco
from cytosynth.detection import model as detectors
from cytosynth.errors import UsageError
from cytosynth.io import atomic

SIX = ("ASC-US", "LSIL", "HSIL", "SCC", "AGC", "AIS")
SETTINGS = {"normal.size": 320, "normal.steps": 1, "cell.steps": 1, "cell.box_scale": 1.2, "threshold": 0.1}


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A COCO data set with NILM and six categories, four of which are not among the paper's or are left out."""
    root = tmp_path_factory.mktemp("own")
    (root / "images").mkdir()
    images = []
    for number in range(8):
        pixels, cells = drawn(number)
        name = f"{number}.png"
        PILImage.fromarray(pixels).save(root / "images" / name)
        named = tuple(Cell(c.box, (*SIX, "NILM")[(number + k) % 7]) for k, c in enumerate(cells))
        images.append(Image(name, pixels.shape[1], pixels.shape[0], named))
    coco.write(DataSet(root / "images", tuple(images), ("NILM", *SIX)), root)
    names = [image.file_name for image in images]
    atomic.write_json(root / "split.json", {"train": names[:6], "val": names[6:]})
    return root


@pytest.fixture(scope="module")
def cell(own: Path, tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A synthesizer trained for a step on the six."""
    settings = {
        "foundation": str(tiny / "foundation"), "categories": list(SIX), "max_steps": 1, "batch_size": 2, "variants": 1,
        "validate_every": 0, "ema_decay": None,
    }  # fmt: skip
    run = tmp_path_factory.mktemp("runs") / "cell"
    cytosynth.train("cell", run, data=own, settings=settings, device="cpu")
    return run


def test_the_synthesizer_says_what_it_was_trained_on(cell: Path) -> None:
    assert json.loads((cell / "weights" / editing.FILE).read_text())["categories"] == list(SIX)
    assert editing.targets(str(cell)) == SIX
    assert editing.targets("bundled") == ("ASC-US", "ASC-H", "LSIL", "HSIL", "NILM")


def test_six_categories_are_made_written_planned_and_detected(
    cell: Path, own: Path, tiny: Path, tmp_path: Path
) -> None:
    models = {name: tiny / name for name in ("foundation", "normal", "detector")}
    made = cytosynth.synthesize(
        tmp_path / "set", 3, settings=SETTINGS | {"category_weights": {"SCC": 1, "AGC": 1}}, cell=cell, **models
    )
    assert made.categories == SIX
    there = {one.category for image in made.images for one in image.cells}
    assert there and there <= {"SCC", "AGC"}
    assert cytosynth.check(tmp_path / "set") == []
    again = cytosynth.synthesize(tmp_path / "again", plan=tmp_path / "set/plan.json", cell=cell, **models)
    assert [image.cells for image in again.images] == [image.cells for image in made.images]
    for image in made.images:
        first, second = (np.asarray(PILImage.open(data.path(image))) for data in (made, again))
        assert np.array_equal(first, second)
    run = tmp_path / "detector"
    settings = {"categories": list(SIX), "max_steps": 1, "window": 96, "batch_size": 1}
    cytosynth.train("detector", run, data=own, settings=settings, device="cpu")
    assert detectors.load(run / "weights").config.categories == SIX


def test_a_category_that_it_does_not_know_is_one_line(cell: Path, tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(
        UsageError, match="category_weights: unknown category 'ASC-H'; choose one of ASC-US, LSIL, HSIL, SCC, AGC"
    ):
        cytosynth.synthesize(tmp_path / "x", 1, settings={"category_weights": {"ASC-H": 1}}, cell=cell)
    with pytest.raises(UsageError, match="unknown category 'AGC'; choose one of ASC-US, ASC-H, LSIL, HSIL"):
        cytosynth.synthesize(tmp_path / "x", 1, settings={"category_weights": {"AGC": 1}})


def test_prompts_of_own_categories_differ(cell: Path, tiny: Path) -> None:
    pixels, _ = drawn(2)
    box = (100.0, 90.0, 150.0, 140.0)
    painted = [
        cytosynth.edit(pixels, [box], name, foundation=tiny / "foundation", cell=cell, settings=SETTINGS).image
        for name in ("AGC", "AIS")
    ]
    assert not np.array_equal(*painted)
