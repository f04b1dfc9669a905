"""Drawn images with annotated abnormal cells, and their edits with the cells kept: fixtures of two files of tests."""

import json
from pathlib import Path

import pytest

from conftest import write_fields
from cytosynth.annotations import Cell
from cytosynth.config import override
from cytosynth.data.formats import coco
from cytosynth.synthesis import synthesize
from cytosynth.synthesis.settings import COMMAND

SETTINGS = ["cell.steps=2", "threshold=0.1", "cell.box_scale=1.2", "keep_abnormal=true", "seed=1"]
CHOSEN = override(COMMAND, SETTINGS)


def models(tiny: Path) -> dict[str, str]:
    """Return the models of a run of `edit`."""
    return {name: str(tiny / name) for name in ("foundation", "cell", "detector")}


def write_annotated(root: Path) -> None:
    """Write six drawn fields, four of them with abnormal cells; one of these of a category that synthesizers lack."""
    write_fields(root)
    file = root / "annotations.json"
    values = json.loads(file.read_text())
    values["categories"].append({"id": 99, "name": "SCC"})
    first = next(one for one in values["annotations"] if one["category_id"] != values["categories"][0]["id"])
    first["category_id"] = 99
    file.write_text(json.dumps(values))


def abnormal(root: Path) -> dict[str, list[Cell]]:
    """Return the abnormal cells of each image of the set at `root`."""
    return {p.file_name: [cell for cell in p.cells if cell.category != "NILM"] for p in coco.read(root).images}


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The set of `write_annotated`."""
    root = tmp_path_factory.mktemp("keep") / "real"
    write_annotated(root)
    return root


@pytest.fixture(scope="module")
def edited(real: Path, tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its images, edited, with their abnormal cells kept."""
    out = tmp_path_factory.mktemp("kept") / "out"
    synthesize.edit(real, out, settings=CHOSEN, **models(tiny))
    return out
