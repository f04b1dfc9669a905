"""`examples/own_lab.sh` from end to end on drawn slides and tiny models, and what it would run on fields."""

import json
import os
import shlex
import subprocess
import sys
from itertools import count
from pathlib import Path

import numpy as np
import pytest
from typer.main import get_command

import killing
from conftest import CATEGORIES, drawn, save_classifier
from cytosynth.cli import app
from cytosynth.cli import data as _data  # noqa: F401
from cytosynth.cli import distill as _distill  # noqa: F401
from cytosynth.cli import doctor as _doctor  # noqa: F401
from cytosynth.cli import mix as _mix  # noqa: F401
from cytosynth.cli import robustness as _robustness  # noqa: F401
from cytosynth.cli import select as _select  # noqa: F401
from cytosynth.cli import synthesize as _synthesize  # noqa: F401
from cytosynth.cli import tiles as _tiles  # noqa: F401
from cytosynth.cli import train as _train  # noqa: F401
from cytosynth.data.read import read
from cytosynth.data.split import assigned
from slide_files import write_pixels

ROOT = Path(__file__).parents[2]
SIDE = 320
YOLO = '''
"""Stands for a YOLO: trains on what `mix --to yolo` wrote, and finds the middle of each image."""
import json, sys
from pathlib import Path
import yaml

subcommand, *given = sys.argv[1:]
if subcommand == "train":
    weights, content = Path(given[0]), yaml.safe_load(Path("data.yaml").read_text())
    lines = {part: Path(content[part]).read_text().split() for part in ("train", "val", "test")}
    cells = 0
    for line in [line for part in lines.values() for line in part]:
        image = Path(line)
        assert image.is_file(), image
        for label in Path(str(image).replace("images", "labels", 1)).with_suffix(".txt").read_text().splitlines():
            name, *box = label.split()
            assert int(name) in content["names"] and all(0 <= float(value) <= 1 for value in box), label
            cells += 1
    weights.parent.mkdir(parents=True)
    weights.write_text(json.dumps({"cells": cells, **{part: len(found) for part, found in lines.items()}}))
else:
    weights, images, annotations, results = given
    assert json.loads(Path(weights).read_text())["cells"]
    said = json.loads(Path(annotations).read_text())
    found = [{"image_id": image["id"], "category_id": said["categories"][0]["id"], "bbox": [140, 140, 40, 40],
              "score": 0.5} for image in said["images"]]
    Path(results).write_text(json.dumps(found))
'''


SLIDES = ("train", "train", "val", "test")
"""Parts that each slide, of a patient of its own, goes to."""


def patients() -> list[str]:
    """Return a patient for each of `SLIDES`."""
    found: list[str] = []
    for part in SLIDES:
        named = (f"P{number}" for number in count())
        found.append(next(name for name in named if assigned(name) == part and name not in found))
    return found


def slides(folder: Path) -> Path:
    """Write each slide, of six drawn fields, with QuPath's GeoJSON beside it, and the table of patients."""
    folder.mkdir()
    rows = ["slide,patient"]
    for number, patient in enumerate(patients()):
        pixels, features = np.empty((2 * SIDE, 3 * SIDE, 3), np.uint8), []
        for place in range(6):
            x, y = SIDE * (place % 3), SIDE * (place // 3)
            field, cells = drawn(10 * number + place, SIDE, SIDE)
            pixels[y : y + SIDE, x : x + SIDE] = field
            for cell in cells:
                x0, y0, x1, y1 = cell.moved(x, y).box
                ring = [[x0, y0], [x1, y0], [x1, y1], [x0, y1], [x0, y0]]
                features.append(
                    {
                        "type": "Feature", "geometry": {"type": "Polygon", "coordinates": [ring]},
                        "properties": {"objectType": "annotation", "classification": {"name": cell.category.lower()}},
                    }
                )  # fmt: skip
        write_pixels(folder / f"slide{number}.tif", pixels)
        collection = {"type": "FeatureCollection", "features": features}
        (folder / f"slide{number}.geojson").write_text(json.dumps(collection))
        rows.append(f"slide{number},{patient}")
    table = folder.parent / "patients.csv"
    table.write_text("\n".join(rows) + "\n")
    return table


@pytest.mark.slow
def test_from_slides_to_detectors_and_a_report(tiny: Path, tmp_path: Path) -> None:
    pytest.importorskip("openslide", reason="the extra 'slides' is not installed")
    table = slides(tmp_path / "slides")
    (tmp_path / "yolo.py").write_text(YOLO)
    classifier = save_classifier(tmp_path / "classifier")
    work, weights = tmp_path / "work", tmp_path / "work/runs/yolo/weights/best.pt"
    small = "--set backbone=small --set weights=none --set window=96 --set batch_size=1"
    training = '{"backbone":"small","weights":"none","window":96,"batch_size":1,"lr_schedule":"constant"}'
    given = {
        "SLIDES": tmp_path / "slides", "PATIENTS": table, "WORK": work, "FOUNDATION": tiny / "foundation",
        "NILM_DETECTOR": tiny / "detector", "DEVICE": "cpu", "COUNT": 4, "RATIO": 0.25, "GATE": classifier,
        "RENAME": " ".join(f"{name.lower()}={name}" for name in CATEGORIES),
        "YOLO_TRAIN": f"{sys.executable} {tmp_path}/yolo.py train {weights}",
        "YOLO_PREDICT": f"{sys.executable} {tmp_path}/yolo.py predict {weights}",
        "TILES": f"--side {SIDE} --min-nuclei 0 --min-focus 0",
        "NORMAL": "--set window=64 --set validate_every=0 --max-steps 2",
        "CELL": "--set batch_size=1 --set validate_every=0 --max-steps 2",
        "DISTILL_NORMAL": "--set window=64 --set batch_size=1 --set gradient_accumulation=1 --set rank=4 "
                          "--set validate_every=0 --max-steps 2",
        "DISTILL_CELL": "--set batch_size=1 --set rank=4 --set validate_every=0 --max-steps 2",
        "SYNTHESIZE": "--set normal.size=320 --set normal.steps=1 --set cell.steps=1 --set threshold=0.1 "
                      "--set cell.box_scale=1.2 --set max_cells=3 --set gate.top=5 --set gate.less_normal=false "
                      "--set gate.seam=null",
        "SELECT": "--set ratios=[0.25] --set steps=1 --set window=128 --set neighbours=2 --set draws=10 "
                  f"--set training={training} --set control=none",
        "DETECTOR": f"{small} --set validate_every=0 --max-steps 2",
        "ROBUSTNESS": "--set variations=[jpeg] --set strengths=[3] --set draws=10",
    }  # fmt: skip
    with killing.program(tmp_path) as cytosynth:
        environment = {name: str(value) for name, value in (given | {"CYTOSYNTH": cytosynth}).items()}
        done = subprocess.run(
            ["bash", ROOT / "examples/own_lab.sh"], capture_output=True, text=True, env=os.environ | environment
        )
    assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    for part in ("normal", "cell", "distill-normal", "distill-cell", "detector"):
        assert f"train {part} --preset paper-24gb: " in done.stdout, part
    fields, mixed = read(work / "fields"), read(work / "mixed")
    assert {name: len(members) for name, members in fields.parts.items()} == {"train": 12, "val": 6, "test": 6}
    for name, members in fields.parts.items():
        whose = {image.extra["patient"] for image in fields.images if image.file_name in members}
        assert whose == {patient for patient, part in zip(patients(), SLIDES, strict=True) if part == name}
    made = {image.file_name for image in mixed.images if image.extra["synthetic"]}
    chosen = next(folder for folder in ("runs/select/subset", "synthetic") if (work / folder).exists())
    taken = min(3, len(read(work / chosen).images))  # of twelve real ones, by RATIO
    added = {name: len(set(members) & made) for name, members in mixed.parts.items()}
    assert added == {"train": taken, "val": 0, "test": 0}
    trained = json.loads(weights.read_text())
    assert (trained["train"], trained["val"], trained["test"]) == (12 + taken, 6, 6)
    assert trained["cells"] == sum(len(image.cells) for image in mixed.images)
    assert "sampler: lcm" in (work / "synthetic/settings.yaml").read_text()
    for run in ("normal", "cell"):
        assert "CreativeML Open RAIL-M" in (work / f"runs/{run}/weights/README.md").read_text()
    rows = (work / "runs/robustness/robustness.csv").read_text()
    assert all(name in rows for name in ("real", "synthetic", "yolo"))
    assert "Where this detector fails" in (work / "runs/mixed/weights/README.md").read_text()


def parsed(words: list[str]) -> dict[str, object]:
    """Return the options that the command of `words` gets; it ends the test where there are no such."""
    command, rest = get_command(app), words
    while hasattr(command, "commands"):
        command, rest = command.commands[rest[0]], rest[1:]
    return command.make_context(words[0], list(rest)).params


def test_on_fields_every_command_of_it_is_one_that_there_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a program in the place of `cytosynth` that only notes what it is asked to do."""
    (tmp_path / "export").mkdir()
    table = tmp_path / "patients.csv"
    table.write_text("image,patient\n")
    noting = tmp_path / "noting"
    noting.write_text(f'#!/bin/bash\nprintf "%q " "$@" >> {tmp_path}/said; echo >> {tmp_path}/said\n')
    noting.chmod(0o755)
    given = {
        "FIELDS": tmp_path / "export", "PATIENTS": table, "WORK": tmp_path / "work", "CYTOSYNTH": noting,
        "YOLO_TRAIN": "no-yolo-here train", "RENAME": "negative=NILM",
    }  # fmt: skip
    done = subprocess.run(
        ["bash", ROOT / "examples/own_lab.sh"], capture_output=True, text=True, check=True,
        env={"PATH": os.environ["PATH"]} | {name: str(value) for name, value in given.items()},
    )  # fmt: skip
    assert "no-yolo-here is not installed: only our detector is trained" in done.stdout
    said = [shlex.split(line) for line in (tmp_path / "said").read_text().splitlines()]
    for folder in ("fields", "synthetic", "mixed"):
        (tmp_path / "work" / folder).mkdir()
    monkeypatch.chdir(tmp_path / "work")
    taken = [(" ".join(words[: 1 + (words[0] in ("train", "distill", "evaluate"))]), parsed(words)) for words in said]
    assert [name for name, _ in taken] == [
        "doctor", "convert", "check", "train normal", "train cell", "train detector", "distill normal", "distill cell",
        "synthesize", "select", "mix", "mix", "train detector", "train detector", "evaluate robustness",
    ]  # fmt: skip
    options = dict(taken)
    assert options["convert"]["patients"] == table
    normal = next(given for name, given in taken if name == "train detector")
    assert "categories=[NILM]" in normal["settings"], "the one whose cells are edited"
    assert options["convert"]["rename"] == ["negative=NILM"]
    assert {given["preset"] for name, given in taken if name.startswith(("train", "distill"))} == {"paper-24gb"}
    assert options["synthesize"]["gate"] == "nucleus"
    assert options["synthesize"]["detector"] == "runs/nilm"
    assert options["synthesize"]["fast_normal"] == "runs/fast_normal"
    assert options["evaluate robustness"]["split"] == "test"
